"""`servolt run`."""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import click

from servolt import __version__
from servolt.cli.deployment import deployment_options, read_deployment
from servolt.cli.engine import checked_model, supervisor_of
from servolt.cli.output import Output, output_options, say
from servolt.errors import InvalidInputError, ServoltError
from servolt.model import Model
from servolt.serve.events import Delta, Finished
from servolt.serve.request import GenerationRequest, Sampling
from servolt.serve.supervisor import Supervisor
from servolt.serve.upstream import Upstream
from servolt.units import format_duration

__all__ = ["command"]

_HELP = "/bye leaves, /clear forgets the conversation, /? prints this. Ctrl-C stops an answer."


@click.command()
@click.argument("model", required=False)
@click.argument("prompt", nargs=-1)
@click.option("--system", help="What the model is told before the conversation.")
@click.option("--temperature", type=click.FloatRange(0, 100), help="0 always takes the likeliest token.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 2), help="Makes the same answer again.")
@click.option("--max-tokens", type=click.IntRange(1, 2**31 - 1), help="Longest answer, tokens.")
@click.option("--verbose", is_flag=True, help="Print tokens and speed after a single answer too.")
@deployment_options
@output_options
def command(
    model: str | None,
    prompt: tuple[str, ...],
    system: str | None,
    temperature: float | None,
    seed: int | None,
    max_tokens: int | None,
    verbose: bool,
    flags: Mapping[str, Any],
    out: Output,
) -> None:
    """Chat with a model in the terminal.

    With PROMPT, or with text on stdin, print one answer and leave. Without MODEL, the built-in guide answers.
    """
    deployment = read_deployment(model, flags)
    found = checked_model(deployment)
    sampling = Sampling(temperature=temperature, seed=seed, max_tokens=max_tokens)
    chat = _Chat(supervisor_of(deployment, found), deployment.label, system, sampling)
    question = " ".join(prompt)
    if not question and not sys.stdin.isatty():
        question = sys.stdin.buffer.read().decode(errors="replace").strip()
        if not question:
            raise InvalidInputError("nothing was asked.", f'servolt run {deployment.label} "What is TTFT?"')
    with asyncio.Runner() as runner:
        try:
            if question:
                _answer_once(runner, chat, question, verbose, out)
            else:
                _converse(runner, chat, found)
        finally:
            runner.run(chat.close())


def _answer_once(runner: asyncio.Runner, chat: "_Chat", question: str, verbose: bool, out: Output) -> None:
    if out.for_people:
        answer = runner.run(chat.ask(question, _write))
        _write("\n")
        if verbose:
            say(_speed(answer))
        return
    answer = runner.run(chat.ask(question, lambda text: None))
    out.text(
        json.dumps({"schema": "servolt.answer/1", "tool_version": __version__, **answer}, ensure_ascii=False)
        if out.format in ("json", "jsonl")
        else answer["content"]
    )


def _converse(runner: asyncio.Runner, chat: "_Chat", model: Model) -> None:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives input() history and line editing
    runner.run(chat.ready())
    say(f"{_about(chat, model)} {_HELP}")
    while True:
        try:
            question = input(">>> ").strip()
        except EOFError:
            say("")
            return
        except KeyboardInterrupt:
            say("\n/bye or Ctrl-D leaves.")
            continue
        if question in ("/bye", "/exit", "/quit"):
            return
        if question == "/clear":
            chat.forget()
        elif question.startswith("/"):
            say(_HELP)
        elif question:
            _answer(runner, chat, question)


def _answer(runner: asyncio.Runner, chat: "_Chat", question: str) -> None:
    try:
        answer = runner.run(chat.ask(question, _write))
        say(f"\n    {_speed(answer)}")
    except KeyboardInterrupt:
        say("\n    stopped")
    except ServoltError as error:  # the conversation goes on, with an engine that is started anew if need be
        say(f"\nError [{error.code}]: {error}")


def _about(chat: "_Chat", model: Model) -> str:
    if model.name == "guide":
        return "guide (built in, llama.cpp, CPU). It knows this product and the words of its field, and nothing else."
    return f"{chat.label} ({model.parameters:,} parameters, {model.quantization})."


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _speed(answer: Mapping[str, Any]) -> str:
    """What is not known is left out."""
    parts = []
    if answer["usage"] is not None:
        parts.append(f"{answer['usage']['completion_tokens']} tokens")
    if answer["ttft_s"] is not None:
        parts.append(f"first token {format_duration(answer['ttft_s'])}")
    if answer["decode_tokens_per_s"] is not None:
        parts.append(f"{answer['decode_tokens_per_s']:,.0f} tok/s")
    return " · ".join([*parts, "energy not measured"])


class _Chat:
    """A conversation with one engine."""

    def __init__(self, supervisor: Supervisor, label: str, system: str | None, sampling: Sampling) -> None:
        self.label = label
        self._supervisor, self._sampling = supervisor, sampling
        self._start = [{"role": "system", "content": system}] if system else []
        self._messages = list(self._start)

    def forget(self) -> None:
        self._messages = list(self._start)

    async def ready(self) -> None:
        await self._supervisor.ensure_ready()

    async def close(self) -> None:
        await self._supervisor.stop()

    async def ask(self, question: str, write: Callable[[str], None]) -> dict[str, Any]:
        """Streams the answer to `write`. An answer that was stopped stays in the conversation as far as it got."""
        server = await self._supervisor.ensure_ready()
        self._messages.append({"role": "user", "content": question})
        request = GenerationRequest(messages=self._messages, sampling=self._sampling)
        began, first, pieces, end = time.perf_counter(), None, list[str](), None
        try:
            async with Upstream(server.url, self._supervisor.api_key) as upstream:
                async for event in upstream.stream(request):
                    if isinstance(event, Finished):
                        end = event
                    elif isinstance(event, Delta) and (text := event.text or event.reasoning):
                        first = first or time.perf_counter()
                        pieces.append(text)
                        write(text)
        except ServoltError:
            self._messages.pop()  # a question that could not be answered would stand in the way of the next
            raise
        except asyncio.CancelledError:
            self._messages.append({"role": "assistant", "content": "".join(pieces)})
            raise
        self._messages.append({"role": "assistant", "content": "".join(pieces)})
        return self._told("".join(pieces), end, None if first is None else first - began)

    def _told(self, content: str, end: Finished | None, ttft_s: float | None) -> dict[str, Any]:
        counts = end.counts if end else None
        decode_s = end.durations.decode_s if end else None
        usage = None
        if counts is not None:
            usage = {"prompt_tokens": counts.prompt_tokens, "completion_tokens": counts.output_tokens}
        return {
            "model": self.label,
            "content": content,
            "finish_reason": end.reason if end else None,
            "usage": usage,
            "ttft_s": ttft_s,
            "decode_tokens_per_s": _decode_rate(counts.output_tokens, decode_s) if counts else None,
            "energy_j": None,
        }


def _decode_rate(tokens: int, decode_s: float | None) -> float | None:
    """The engine's time of decoding begins with the first token, which belongs to the prompt."""
    return (tokens - 1) / decode_s if tokens > 1 and decode_s else None
