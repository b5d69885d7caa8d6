"""What Ollama's clients send, and the lines they read back."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import orjson

from servolt.errors import EngineError, ServoltError
from servolt.serve.events import Answer, Delta, Event, Finished, tokens_of
from servolt.serve.generation import Generation
from servolt.serve.ollama.errors import error_body
from servolt.serve.tool_calls import ToolCalls

__all__ = [
    "ChatBody",
    "EmbedBody",
    "GenerateBody",
    "LineWriter",
    "ShowBody",
    "final_fields",
    "timestamp",
    "whole",
]

LINES = b"application/x-ndjson"


class GenerateBody(msgspec.Struct):
    model: str | None = None
    name: str | None = None
    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: list[int] | None = None
    stream: bool | None = None
    raw: bool | None = None
    format: Any = None
    keep_alive: Any = None
    images: list[Any] | None = None
    options: dict[str, Any] | None = None
    think: bool | str | None = None
    truncate: bool | None = None
    shift: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


class ChatBody(msgspec.Struct):
    model: str | None = None
    messages: list[dict[str, Any]] | None = None
    tools: list[Any] | None = None
    tool_choice: str | dict[str, Any] | None = None  # Ollama itself has none
    stream: bool | None = None
    format: Any = None
    keep_alive: Any = None
    options: dict[str, Any] | None = None
    think: bool | str | None = None
    truncate: bool | None = None
    shift: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


class EmbedBody(msgspec.Struct):
    model: str | None = None
    input: str | list[str] | None = None
    truncate: bool | None = None
    dimensions: int | None = None
    keep_alive: Any = None
    options: dict[str, Any] | None = None


class ShowBody(msgspec.Struct):
    model: str | None = None
    name: str | None = None
    system: str | None = None
    template: str | None = None
    verbose: bool | None = None
    options: dict[str, Any] | None = None


class LineWriter:
    """One JSON object a line: /api/chat with `message`, /api/generate with `response`."""

    content_type = LINES

    def __init__(self, model: str, *, is_chat: bool, started: float) -> None:
        self._model = model
        self._is_chat = is_chat
        self._started = started
        self._head = b'{"model":' + orjson.dumps(model) + b',"created_at":"'
        self._open = b'Z","message":{"role":"assistant","content":' if is_chat else b'Z","response":'
        self._shut = b'},"done":false}\n' if is_chat else b',"done":false}\n'
        self._calls = ToolCalls()
        self.load_s = 0.0
        self.context: list[int] | None = None

    def batch(self, events: Sequence[Event], index: int = 0) -> bytes:
        lines = [self._line(event) for event in events]
        return lines[0] if len(lines) == 1 else b"".join(lines)

    def last(self) -> bytes:
        return b""

    async def before_last(self, generation: Generation, events: Sequence[Event]) -> None:
        self.load_s = generation.load_s

    def failed(self, error: ServoltError) -> bytes:
        return orjson.dumps(error_body(error)) + b"\n"

    def _line(self, event: Event) -> bytes:
        if isinstance(event, Finished):
            return self._final(event)
        if event.reasoning or event.tool_calls or event.logprobs:
            return self._rich(event)
        text = orjson.dumps(event.text or "")
        return b"".join((self._head, _now(), self._open, text, self._shut))

    def _rich(self, event: Delta) -> bytes:
        if event.tool_calls:
            self._calls.add(event.tool_calls)
            if not event.text and not event.reasoning:
                return b""
        plain: dict[str, Any] = {"model": self._model, "created_at": timestamp()}
        plain |= _said(event.text or "", event.reasoning, None, is_chat=self._is_chat)
        plain["done"] = False
        if event.logprobs:
            plain["logprobs"] = logprobs(tokens_of(event.logprobs))
        return orjson.dumps(plain) + b"\n"

    def _final(self, finished: Finished) -> bytes:
        lines = b""
        if self._calls:
            message = {"role": "assistant", "content": "", "tool_calls": _calls(self._calls.calls())}
            line = {"model": self._model, "created_at": timestamp(), "message": message, "done": False}
            lines = orjson.dumps(line) + b"\n"
        plain: dict[str, Any] = {"model": self._model, "created_at": timestamp()}
        plain |= _said("", None, None, is_chat=self._is_chat)
        plain |= final_fields(finished, time.monotonic() - self._started, self.load_s)
        if self.context is not None:
            plain["context"] = self.context
        return lines + orjson.dumps(plain) + b"\n"


def whole(model: str, answer: Answer, total_s: float, load_s: float, *, is_chat: bool) -> dict[str, Any]:
    """The answer to `stream: false`."""
    calls = _calls(answer.tool_calls) if answer.tool_calls else None
    plain: dict[str, Any] = {"model": model, "created_at": timestamp()}
    plain |= _said(answer.text, answer.reasoning, calls, is_chat=is_chat)
    plain |= final_fields(answer.finished, total_s, load_s)
    if answer.logprobs:
        plain["logprobs"] = logprobs(answer.logprobs)
    return plain


def final_fields(finished: Finished, total_s: float, load_s: float) -> dict[str, Any]:
    """Durations in nanoseconds; what the engine did not count or time is absent.

    Its clock of decoding begins with the first token, which belongs to the prompt: for one token there is nothing to
    time, and llama.cpp says a microsecond, from which clients would compute a speed.
    """
    plain: dict[str, Any] = {
        "done": True,
        "done_reason": "stop" if finished.reason == "tool_calls" else finished.reason,  # as Ollama says it
        "total_duration": _nanoseconds(total_s),
        "load_duration": _nanoseconds(load_s),
    }
    counts, durations = finished.counts, finished.durations
    if counts is not None:
        plain["prompt_eval_count"] = counts.prompt_tokens
    if durations.prefill_s is not None:
        plain["prompt_eval_duration"] = _nanoseconds(durations.prefill_s)
    if counts is not None:
        plain["eval_count"] = counts.output_tokens
    if durations.decode_s is not None and (counts is None or counts.output_tokens > 1):
        plain["eval_duration"] = _nanoseconds(durations.decode_s)
    return plain


def timestamp() -> str:
    """RFC 3339 with nanoseconds, in UTC."""
    return _now().decode() + "Z"


def logprobs(tokens: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """From OpenAI's chat shape."""
    return [
        _logprob(token) | {"top_logprobs": [_logprob(other) for other in token.get("top_logprobs") or ()]}
        for token in tokens
    ]


def _logprob(token: Mapping[str, Any]) -> dict[str, Any]:
    return {"token": token.get("token"), "logprob": token.get("logprob"), "bytes": token.get("bytes")}


def _said(text: str, thinking: str | None, calls: Any, *, is_chat: bool) -> dict[str, Any]:
    if not is_chat:
        return {"response": text} | ({"thinking": thinking} if thinking else {})
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if thinking:
        message["thinking"] = thinking
    if calls:
        message["tool_calls"] = calls
    return {"message": message}


def _calls(calls: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """From OpenAI's shape: arguments are an object here."""
    return [
        {
            "id": call["id"],
            "function": {"index": index, "name": call["function"]["name"], "arguments": _arguments(call)},
        }
        for index, call in enumerate(calls)
    ]


def _arguments(call: Mapping[str, Any]) -> Any:
    try:
        return orjson.loads(call["function"]["arguments"] or "{}")
    except orjson.JSONDecodeError as error:
        raise EngineError("The model called a tool with arguments that are not JSON.", "Ask again.") from error


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


_second = 0
_second_text = b""


def _now() -> bytes:
    """The time without its Z. Formatting a date costs more than the rest of a line: once a second is enough."""
    global _second, _second_text
    second, rest = divmod(time.time_ns(), 10**9)
    if second != _second:
        _second_text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second)).encode()
        _second = second
    return _second_text + b"%09d" % rest
