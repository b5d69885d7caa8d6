"""What an engine says while it answers, in one form for every dialect."""

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from servolt.serve.tool_calls import ToolCalls

__all__ = [
    "Answer",
    "Counts",
    "Delta",
    "Durations",
    "Event",
    "FinishReason",
    "Finished",
    "answer_of",
    "tokens_of",
]

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


# gc=False: hundreds of these live for milliseconds, hold no references in a circle, and need not be walked through.


class Counts(msgspec.Struct, frozen=True, gc=False):
    """Tokens, as the engine counted them."""

    prompt_tokens: int
    output_tokens: int
    cached_tokens: int | None = None


class Durations(msgspec.Struct, frozen=True, gc=False):
    """Seconds, by the engine's own clock. None where the engine did not say."""

    prefill_s: float | None = None
    decode_s: float | None = None


class Delta(msgspec.Struct, frozen=True, gc=False):
    """One piece of an answer: one event of the engine, which is not always one token."""

    text: str | None = None
    reasoning: str | None = None
    tool_calls: msgspec.Raw | None = None
    logprobs: msgspec.Raw | None = None


class Finished(msgspec.Struct, frozen=True, gc=False):
    """The end of one choice. `counts` is None where the engine sent no usage."""

    reason: FinishReason
    counts: Counts | None = None
    durations: Durations = Durations()
    timings: msgspec.Raw | None = None


Event = Delta | Finished


class Answer(msgspec.Struct, frozen=True):
    """A whole answer, for those who did not ask for a stream. Calls and tokens are in OpenAI's shapes."""

    text: str
    finished: Finished
    reasoning: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    logprobs: list[dict[str, Any]] | None = None


def answer_of(events: Iterable[Event]) -> Answer:
    """All of an answer's events in one piece. They end with Finished."""
    said: list[str] = []
    thought: list[str] = []
    calls = ToolCalls()
    tokens: list[dict[str, Any]] = []
    for event in events:
        if isinstance(event, Finished):
            return Answer("".join(said), event, "".join(thought) or None, calls.calls() or None, tokens or None)
        if event.text:
            said.append(event.text)
        if event.reasoning:
            thought.append(event.reasoning)
        if event.tool_calls is not None:
            calls.add(event.tool_calls)
        if event.logprobs is not None:
            tokens += tokens_of(event.logprobs)
    raise ValueError("the events have no end")


def tokens_of(logprobs: msgspec.Raw) -> list[dict[str, Any]]:
    """The tokens inside OpenAI's `logprobs`, each with its own alternatives."""
    return (msgspec.json.decode(logprobs) or {}).get("content") or []
