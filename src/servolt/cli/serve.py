"""`servolt serve`."""

import asyncio
import json
import logging
from collections.abc import Coroutine, Mapping
from typing import Any

import click

from servolt import __version__, registry, settings
from servolt.cli.deployment import deployment_options, read_deployment
from servolt.cli.engine import checked_model, supervisor_of
from servolt.cli.output import Output, output_options, say
from servolt.deployment import Deployment
from servolt.errors import InvalidInputError
from servolt.model import Model
from servolt.serve.catalogue import Catalogue, Offer
from servolt.serve.fleet import Fleet
from servolt.serve.run import DEFAULT_PORT, Listener, listen, serve
from servolt.serve.supervisor import State, Supervisor
from servolt.sources import list_models
from servolt.units import format_bytes, format_count, format_duration, parse_duration

__all__ = ["command"]


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--host", help="Address to listen on, HOST or HOST:PORT. [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; without it 11434, or the next free one.")
@click.option("--exposed", is_flag=True, help="Allow an address that other machines can reach.")
@click.option("--keep-alive", help="How long an idle model stays loaded: 5m, 300, -1 for ever.")
@click.option("--dry-run", is_flag=True, help="Print the commands that would be started, and leave.")
@deployment_options
@output_options
def command(
    models: tuple[str, ...],
    host: str | None,
    port: int | None,
    exposed: bool,
    keep_alive: str | None,
    dry_run: bool,
    flags: Mapping[str, Any],
    out: Output,
) -> None:
    """Serve models behind the Ollama and OpenAI APIs.

    The first MODEL is loaded at once, the others when they are first asked for. Without MODEL, every model that
    `servolt list` shows is served, the built-in guide first.
    """
    pairs = _pairs(models, flags)
    if dry_run:
        out.text("\n".join(_shell(deployment, model) for deployment, model in pairs))
        return
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    keep_alive_s = settings.resolve("keep_alive", _seconds(keep_alive)).value
    fleet = Fleet(
        Catalogue.of(pairs), _reporting, keep_alive_s=keep_alive_s, max_queue=settings.resolve("max_queue").value
    )
    listener = _listener(host, port, exposed)
    if not models:
        say('no model given: serving the built-in "guide", which only knows this product and the words of its field.')
    _run(_serve(fleet, listener, out))


def _run(serving: Coroutine[None, None, None]) -> None:
    """On uvloop, which halves the gateway's work for each event, where there is one."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(serving)
    else:
        uvloop.run(serving)


def _reporting(deployment: Deployment, model: Model) -> Supervisor:
    """An engine that dies is told at once, not only to the next one who asks."""

    def report(state: State) -> None:
        if state is State.FAILED and supervisor.error is not None:
            say(f"Warning: {deployment.label}: {supervisor.error} It is started anew when it is asked for.")

    supervisor = supervisor_of(deployment, model, report)
    return supervisor


def _pairs(models: tuple[str, ...], flags: Mapping[str, Any]) -> list[tuple[Deployment, Model]]:
    if models:
        deployments = [read_deployment(name, flags) for name in models]
    else:
        deployments = [read_deployment(deployment.label, flags) for deployment, _ in list_models()]
    return [(deployment, checked_model(deployment)) for deployment in deployments]


def _shell(deployment: Deployment, model: Model) -> str:
    return registry.launcher("process").render(registry.engine(deployment.engine).command(deployment, model))


def _seconds(keep_alive: str | None) -> float | None:
    try:
        return None if keep_alive is None else parse_duration(keep_alive)
    except ValueError as error:
        raise InvalidInputError(f"--keep-alive: {error}.", "Write 5m, 300 or -1.") from error


def _listener(host: str | None, port: int | None, exposed: bool) -> Listener:
    """A port that somebody named is never replaced by another."""
    found = settings.resolve("host", host)
    name, _, named_port = str(found.value or "").rpartition(":")
    if not name and found.value is not None:
        name, named_port = str(found.value), ""
    if port is None and named_port.isdigit():
        port = int(named_port)
    if port is not None and port > 65535:
        raise InvalidInputError(f"{port} is no port.", "Ports lie between 0 and 65535.")
    return listen((name or "127.0.0.1").strip("[]"), port, exposed=exposed)


async def _serve(fleet: Fleet, listener: Listener, out: Output) -> None:
    first = next(iter(fleet.catalogue))
    if listener.moved:
        bare = listener.url.removeprefix("http://")
        say(f"port {DEFAULT_PORT} is taken; this gateway listens on {listener.port}. Clients: OLLAMA_HOST={bare}")
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
        f"[1/3] model   {offer.name}, {format_count(model.parameters)} parameters, {model.quantization}, "
        f"{format_bytes(model.file_bytes)}"
    )
    resident = fleet.resident(offer)
    seconds = await resident.load()
    server = resident.server
    threads = resident.supervisor.effective.get("threads")
    say(
        f"[2/3] engine  {deployment.engine} {engine.version or ''}, process {server.pid if server else '?'}"
        f"{f', {threads} threads' if threads else ''}, ready in {format_duration(seconds)}"
    )


def _ready(listener: Listener, fleet: Fleet, out: Output) -> None:
    url = listener.url
    if out.format in ("json", "jsonl"):
        ready = {"schema": "servolt.ready/1", "tool_version": __version__, "url": url}
        out.text(json.dumps({**ready, "models": [name for offer in fleet.catalogue for name in offer.names]}))
        return
    name = fleet.catalogue.offers[0].names[-1]
    body = json.dumps({"model": name, "prompt": "What is TTFT?"})
    say(f"[3/3] ready   OpenAI {url}/v1    Ollama {url}")
    say(f"try:  curl {url}/api/generate -d '{body}'")
    say("Ctrl-C stops.")
