"""`servolt serve`."""

import asyncio
import json
import logging
import os
from collections.abc import Coroutine, Mapping
from typing import Any

import click

from servolt import __version__, registry, settings
from servolt.cli.address import bound, holder_of, read_address
from servolt.cli.completion import complete_model
from servolt.cli.deployment import deployment_options, read_deployment
from servolt.cli.dry_run import show_dry_run
from servolt.cli.engine import checked_model, supervisor_of
from servolt.cli.formats import is_json, require_text_or_json
from servolt.cli.output import Output, output_options, say
from servolt.deployment import Deployment
from servolt.errors import ConditionFailedError, InvalidInputError, ModelFileError
from servolt.model import Model
from servolt.serve.abilities import abilities
from servolt.serve.catalogue import Catalogue, Offer
from servolt.serve.fleet import Fleet
from servolt.serve.run import DEFAULT_PORT, Listener, serve
from servolt.serve.supervisor import State, Supervisor
from servolt.serve.webhook import Webhooks
from servolt.sources import list_models
from servolt.study.planning import PlanningProcess
from servolt.units import format_bytes, format_count, format_duration, parse_duration

__all__ = ["command"]


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...", shell_complete=complete_model)
@click.option("--host", help="Address to listen on, HOST or HOST:PORT. [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; without it 11434, or the next free one.")
@click.option("--exposed", is_flag=True, help="Allow an address that other machines can reach.")
@click.option("--keep-alive", help="How long an idle model stays loaded: 5m, 300, -1 for ever.")
@click.option("--force", is_flag=True, help="Start a model even where the plan says that it does not fit.")
@click.option("--dry-run", is_flag=True, help="Print what would be started, and leave.")
@deployment_options
@output_options
def command(
    models: tuple[str, ...],
    host: str | None,
    port: int | None,
    exposed: bool,
    keep_alive: str | None,
    force: bool,
    dry_run: bool,
    flags: Mapping[str, Any],
    out: Output,
) -> None:
    """Serve models behind the Ollama and OpenAI APIs.

    The first MODEL is loaded at once, the others when they are first asked for. Without MODEL, every model that
    `servolt list` shows is served, the built-in guide first.
    """
    require_text_or_json(out, "what is served")
    catalogue = Catalogue.of(_pairs(models, flags, force=force))
    keep_alive_s = settings.resolve("keep_alive", _seconds(keep_alive)).value
    address, wanted_port = read_address(host, port)
    max_queue = settings.resolve("max_queue").value
    listener = bound(address, wanted_port, exposed=exposed)
    if dry_run:
        listener.socket.close()
        show_dry_run(out, catalogue, None if wanted_port == 0 else listener.url, keep_alive_s)
        return
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    reports = _Reports()
    fleet = Fleet(
        catalogue,
        reports.supervise,
        keep_alive_s=keep_alive_s,
        max_queue=max_queue,
        planner=PlanningProcess(paths=settings.resolve("plan_paths").value),
        webhooks=_webhooks(),
    )
    if not models:
        say('no model given: serving the built-in "guide", which only knows this product and the words of its field.')
    _run(_serve(fleet, listener, reports, out))


def _webhooks() -> Webhooks:
    # No setting, since `servolt config` shows those, and taken out of what engines inherit.
    secret = os.environ.pop("SERVOLT_WEBHOOK_SECRET", "")
    return Webhooks(settings.resolve("webhook_hosts").value.split(","), secret=secret.encode() or None)


def _run(serving: Coroutine[None, None, None]) -> None:
    """On uvloop, which halves the gateway's work for each event, where there is one."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(serving)
    else:
        uvloop.run(serving)


class _Reports:
    """An engine that dies is told at once, not only to the next one who asks; at the very start the error says it."""

    def __init__(self) -> None:
        self.has_begun = False

    def supervise(self, deployment: Deployment, model: Model) -> Supervisor:
        def report(state: State) -> None:
            if self.has_begun and state is State.FAILED and supervisor.error is not None:
                say(f"Warning: {deployment.label}: {supervisor.error} It is started anew when it is asked for.")

        supervisor = supervisor_of(deployment, model, report)
        return supervisor


def _pairs(models: tuple[str, ...], flags: Mapping[str, Any], *, force: bool) -> list[tuple[Deployment, Model]]:
    """Where nobody named a model, those that can't be served are left out with a word, so that the others are."""
    if models:
        named = [read_deployment(name, flags) for name in models]
        return [(deployment, checked_model(deployment, force=force)) for deployment in named]
    found, last = [], None
    for listed, _ in list_models():
        deployment = read_deployment(listed.label, flags)
        try:
            found.append((deployment, checked_model(deployment, force=force)))
        except (ConditionFailedError, ModelFileError) as error:
            say(f"Warning: {deployment.label} is not served: {error}")
            last = error
    if not found and last is not None:
        raise last
    return found


def _seconds(keep_alive: str | None) -> float | None:
    try:
        return None if keep_alive is None else parse_duration(keep_alive)
    except ValueError as error:
        raise InvalidInputError(f"--keep-alive: {error}.", "Write 5m, 300 or -1.") from error


async def _serve(fleet: Fleet, listener: Listener, reports: _Reports, out: Output) -> None:
    first = next(iter(fleet.catalogue))
    if listener.moved:
        bare, holder = listener.url.removeprefix("http://"), holder_of(DEFAULT_PORT)
        taken = f"port {DEFAULT_PORT} is taken{f' by {holder}' if holder else ''}"
        say(f"{taken}; this gateway listens on {listener.port}. Clients: OLLAMA_HOST={bare}")
    loading = asyncio.create_task(_load(fleet, first))

    def on_ready() -> None:
        loading.add_done_callback(lambda task: None if _failed(task) else _ready(listener, fleet, out))

    serving = asyncio.create_task(
        serve(
            fleet,
            listener,
            state_folder=settings.folders().servers,
            origins=[origin.strip() for origin in settings.resolve("origins").value.split(",") if origin.strip()],
            on_ready=on_ready,
        )
    )
    await asyncio.wait((loading, serving), return_when=asyncio.FIRST_COMPLETED)
    if loading.done() and _failed(loading):
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await loading
    reports.has_begun = True
    await serving
    loading.cancel()
    say("stopped")


def _failed(task: "asyncio.Task[None]") -> bool:
    return task.cancelled() or task.exception() is not None


async def _load(fleet: Fleet, offer: Offer) -> None:
    """The first model, so that the first request does not wait for it."""
    model, deployment = offer.model, offer.deployment
    engine = registry.engine(deployment.engine)
    say(
        f"[1/3] model   {offer.name}, {format_count(model.total_params)} parameters, {model.quantization}, "
        f"{format_bytes(model.file_bytes)}"
    )
    resident = fleet.resident(offer)
    seconds = await resident.load()
    server = resident.server
    threads = resident.supervisor.effective.get("threads")
    beside = "" if threads is None else ", 1 thread" if threads == 1 else f", {threads} threads"
    say(
        f"[2/3] engine  {deployment.engine} {engine.version or ''}, process {server.pid if server else '?'}"
        f"{beside}, ready in {format_duration(seconds)}"
    )


def _ready(listener: Listener, fleet: Fleet, out: Output) -> None:
    url = listener.url
    if is_json(out):
        ready = {"schema": "servolt.ready/1", "tool_version": __version__, "url": url}
        out.text(json.dumps({**ready, "models": [name for offer in fleet.catalogue for name in offer.names]}))
        return
    say(f"[3/3] ready   OpenAI {url}/v1    Ollama {url}")
    say(f"try:  curl {url}{_first_request(fleet.catalogue.offers[0])}")
    say("Ctrl-C stops.")


def _first_request(offer: Offer) -> str:
    """A path and a body that this model can answer."""
    name = offer.names[-1]
    if "embedding" in abilities(offer.model):
        return f"/api/embed -d '{json.dumps({'model': name, 'input': 'Hello'})}'"
    prompt = "What is TTFT?" if offer.model.name == "guide" else "Why is the sky blue?"
    return f"/api/generate -d '{json.dumps({'model': name, 'prompt': prompt})}'"
