"""`servolt run`."""

import asyncio
import contextlib
import json
import math
import select
import sys
from collections.abc import Mapping
from typing import Any

import click

from servolt import __version__
from servolt.cli.chat import Chat
from servolt.cli.completion import complete_model
from servolt.cli.deployment import deployment_options, read_deployment
from servolt.cli.engine import checked_model, supervisor_of
from servolt.cli.formats import is_json, require_text_or_json
from servolt.cli.output import Output, output_options, say
from servolt.errors import InvalidInputError, ServoltError
from servolt.model import Model
from servolt.serve.abilities import abilities
from servolt.serve.refusal import RefusedError
from servolt.serve.request import Sampling
from servolt.units import format_duration

__all__ = ["command"]

_HELP = "/bye leaves, /clear forgets the conversation, /? prints this. Ctrl-C stops an answer."

_FULL = "There is no room in the context for more of this answer; a larger --max-model-len has it."
QUIET_STDIN_S = 2.0  # what writes into a pipe has begun by then, or was never meant to


class _Finite(click.FloatRange):
    """Comparisons with NaN are all false, so a range alone lets it through."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no number.", param, ctx)
        return number


@click.command()
@click.argument("model", required=False, shell_complete=complete_model)
@click.argument("prompt", nargs=-1)
@click.option("--system", help="What the model is told before the conversation.")
@click.option("--temperature", type=_Finite(0, 100), help="0 always takes the likeliest token.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 2), help="Makes the same answer again.")
@click.option("--max-tokens", type=click.IntRange(1, 2**31 - 1), help="Longest answer, tokens.")
@click.option("--force", is_flag=True, help="Start the model even where the plan says that it does not fit.")
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
    force: bool,
    verbose: bool,
    flags: Mapping[str, Any],
    out: Output,
) -> None:
    """Chat with a model in the terminal.

    With PROMPT, or with text on stdin, print one answer and leave; with both, what stdin has stands before the prompt.
    Without MODEL, the built-in guide answers.
    """
    require_text_or_json(out, "an answer")
    deployment = read_deployment(model, flags)
    found = checked_model(deployment, force=force)
    if "embedding" in abilities(found):
        remedy = f"Serve it (`servolt serve {deployment.label}`) and ask /api/embed."
        raise InvalidInputError(f"{deployment.label} turns text into vectors and answers nothing.", remedy)
    sampling = Sampling(temperature=temperature, seed=seed, max_tokens=max_tokens)
    chat = Chat(supervisor_of(deployment, found), deployment.label, system, sampling)
    question = _question(prompt, deployment.label)
    if not question and (is_json(out) or out.file is not None):
        raise InvalidInputError("a conversation has no form but the terminal.", "Give a prompt, or leave that out.")
    with asyncio.Runner() as runner:
        try:
            if question:
                _answer_once(runner, chat, question, verbose, out)
            else:
                _converse(runner, chat, found)
        finally:
            runner.run(chat.close())


def _question(prompt: tuple[str, ...], label: str) -> str:
    """What is asked, as Ollama's `run` has it: stdin first, then the prompt. Empty for a conversation."""
    if sys.stdin is not None and sys.stdin.isatty() and not prompt:
        return ""
    question = " ".join([*_piped(wait_in_silence=not prompt), *prompt]).strip()
    if not question:
        raise InvalidInputError("nothing was asked.", f'servolt run {label} "What is TTFT?"')
    return question


def _piped(*, wait_in_silence: bool) -> list[str]:
    """What stdin holds up to its end; nothing where a person types there."""
    if sys.stdin is None or sys.stdin.isatty():
        return []
    if not wait_in_silence and not _has_begun():
        say("Reading stdin to its end, to put it before the prompt; `< /dev/null` leaves it out.")
    text = sys.stdin.buffer.read().decode(errors="replace")
    return [text] if text else []


def _has_begun() -> bool:
    if sys.platform == "win32":  # which can't wait for a pipe
        return True
    return bool(select.select([sys.stdin.fileno()], [], [], QUIET_STDIN_S)[0])


def _answer_once(runner: asyncio.Runner, chat: Chat, question: str, verbose: bool, out: Output) -> None:
    streams = out.for_people and out.file is None
    answer = runner.run(chat.ask(question, _write if streams else lambda text: None))
    if streams:
        _write("\n")
    elif is_json(out):
        document = {"schema": "servolt.answer/1", "tool_version": __version__, **answer}
        out.text(json.dumps(document, ensure_ascii=False))
    else:
        out.text(answer["content"])
    if chat.is_full:
        say(f"Warning: {_FULL}")
    if verbose and not is_json(out):
        say(_speed(answer))


def _converse(runner: asyncio.Runner, chat: Chat, model: Model) -> None:
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


def _answer(runner: asyncio.Runner, chat: Chat, question: str) -> None:
    left_out = chat.left_out
    try:
        answer = runner.run(chat.ask(question, _write))
        say(f"\n    {_speed(answer)}")
        if chat.is_full:
            say(f"    {_FULL}")
        if chat.left_out and not left_out:
            size = f" of {chat.context:,} tokens" if chat.context else ""
            say(f"    The context{size} is full: from here on the oldest turns are left out. /clear forgets all.")
    except KeyboardInterrupt:
        say("\n    stopped")
    except ServoltError as error:  # the conversation goes on, with an engine that is started anew if need be
        say(f"\nError [{error.code}]: {error}")
        if isinstance(error, RefusedError) and error.kind == "overflow":
            say("What was said before is kept; /clear forgets it.")


def _about(chat: Chat, model: Model) -> str:
    if model.name == "guide":
        return "guide (built in, llama.cpp, CPU). It knows this product and the words of its field, and nothing else."
    return f"{chat.label} ({model.total_params:,} parameters, {model.quantization})."


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
