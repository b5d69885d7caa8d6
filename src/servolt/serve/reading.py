"""The engine's answers, from bytes to events: pure, and right for any split of the bytes."""

import re

import msgspec

from servolt.errors import EngineError, EngineLostError, ServoltError
from servolt.serve.events import Counts, Delta, Durations, Event, Finished, FinishReason
from servolt.serve.refusal import RefusedError

__all__ = ["EventReader", "refusal_of"]

MAX_EVENT_BYTES = 2**23  # an engine that sends 8 MiB without a line end is not speaking this protocol

# llama.cpp's word for an embedding's input beyond the context; its status is 500 (xllamacpp 2026.10.11549).
_TOO_LARGE = re.compile(r"input \((\d+) tokens\) is too large to process.*batch size: (\d+)")

_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
}


class _CachedTokens(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _CachedTokens | None = None


class _Timings(msgspec.Struct, gc=False):
    prompt_ms: float | None = None
    predicted_ms: float | None = None


class _Message(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: msgspec.Raw = msgspec.Raw()


class _Choice(msgspec.Struct, gc=False):
    delta: _Message | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: msgspec.Raw = msgspec.Raw()


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    timings: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


class _Fault(msgspec.Struct, gc=False):
    message: str = ""
    type: str = ""
    n_prompt_tokens: int | None = None
    n_ctx: int | None = None


class _FaultBody(msgspec.Struct, gc=False):
    error: _Fault | str = ""


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode_timings = msgspec.json.Decoder(_Timings).decode
_decode_fault = msgspec.json.Decoder(_FaultBody).decode
_decode_plain_fault = msgspec.json.Decoder(_Fault).decode


class EventReader:
    """Server-sent events of one choice, fed in pieces of any size."""

    def __init__(self) -> None:
        self.done = False
        self._rest = b""
        self._reason: FinishReason | None = None
        self._usage: _Usage | None = None
        self._timings: bytes = b""

    def feed(self, data: bytes) -> list[Event]:
        """The events that are complete by now. Raises EngineLostError for what is no event, RefusedError for refusals.

        The last one, Finished, comes with the engine's [DONE], else from `close`.
        """
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > MAX_EVENT_BYTES:
            raise _garbage()
        events: list[Event] = []
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line[5:].strip(), events)
            elif line.startswith(b"error:"):
                raise _fault(500, _decode_error(line[6:]))
        return events

    def close(self) -> list[Event]:
        """What is left when the engine has closed the stream. Raises EngineLostError if it ended too early."""
        if self._reason is None:
            raise EngineLostError("The engine ended the stream before the answer.", "Ask again: it is started anew.")
        return [_finished(self._reason, self._usage, self._timings)]

    def _event(self, payload: bytes, events: list[Event]) -> None:
        if payload == b"[DONE]":
            events.extend(self.close())
            self.done = True
            return
        try:
            chunk = _decode_chunk(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if payload == b"null":  # llama.cpp sends one before some streams
                return
            raise _garbage() from error
        if chunk.error:
            raise _fault(500, _decode_error(chunk.error))
        if chunk.usage is not None:
            self._usage = chunk.usage
        if chunk.timings:
            self._timings = bytes(chunk.timings)
        for choice in chunk.choices:
            self._choice(choice, events)

    def _choice(self, choice: _Choice, events: list[Event]) -> None:
        message = choice.delta
        if message is not None:
            logprobs = _raw(choice.logprobs)
            if message.content or message.reasoning_content or message.tool_calls or logprobs:
                events.append(Delta(message.content, message.reasoning_content, _raw(message.tool_calls), logprobs))
        elif choice.text:
            events.append(Delta(choice.text, logprobs=_raw(choice.logprobs)))
        if choice.finish_reason is not None:
            self._reason = _reason(choice.finish_reason)


def _reason(told: str) -> FinishReason:
    """Raises EngineError for an end that we can't name: whether the answer is whole is not known then."""
    reason = _REASONS.get(told)
    if reason is None:
        raise EngineError(f"The engine ended the answer for a reason of its own: {told[:40]!r}.", "Look into its log.")
    return reason


def refusal_of(status: int, content: bytes) -> ServoltError:
    """The engine's own refusal in our words."""
    try:
        fault = _decode_fault(content).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return EngineError(f"The engine answered with status {status} and no reason.", "Look into the engine's log.")
    return _fault(status, _Fault(fault) if isinstance(fault, str) else fault)


def _fault(status: int, fault: _Fault) -> ServoltError:
    if fault.type == "exceed_context_size_error":
        return _overflow(fault.n_prompt_tokens, fault.n_ctx)
    if too_large := _TOO_LARGE.search(fault.message):
        return _overflow(too_large[1], too_large[2])
    text = fault.message.strip() or f"The engine answered with status {status}."
    text = text if text.endswith((".", "!", "?")) else f"{text}."
    if status in (501, 404) or fault.type == "not_supported_error":
        return RefusedError("unsupported", f"The engine can't do that: {text}", "Ask for something else.")
    if 400 <= status < 500:
        return RefusedError("invalid", text, "Correct the request.")
    return EngineError(f"The engine failed: {text}", "Look into the engine's log.")


def _overflow(given: int | str | None, held: int | str | None) -> RefusedError:
    return RefusedError(
        "overflow",
        f"The input has {given} tokens and the context holds {held}: it exceeds maximum context length.",
        "Shorten the input, or serve the model with a larger --max-model-len.",
    )


def _decode_error(content: bytes | msgspec.Raw) -> _Fault:
    try:
        return _decode_plain_fault(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Fault(message=bytes(content).decode("utf-8", "replace")[:500])


def _finished(reason: FinishReason, usage: _Usage | None, timings: bytes) -> Finished:
    counts = _counts(usage)
    if not timings or timings == b"null":
        return Finished(reason, counts)
    try:
        read = _decode_timings(timings)
    except msgspec.DecodeError:
        return Finished(reason, counts)
    durations = Durations(
        None if read.prompt_ms is None else read.prompt_ms / 1e3,
        None if read.predicted_ms is None else read.predicted_ms / 1e3,
    )
    return Finished(reason, counts, durations, msgspec.Raw(timings))


def _counts(usage: _Usage | None) -> Counts | None:
    if usage is None or usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    details = usage.prompt_tokens_details
    return Counts(usage.prompt_tokens, usage.completion_tokens, details.cached_tokens if details else None)


def _raw(value: msgspec.Raw) -> msgspec.Raw | None:
    """A copy, since a Raw keeps the whole buffer that it points into alive."""
    return value.copy() if value and bytes(value) != b"null" else None


def _garbage() -> EngineLostError:
    return EngineLostError("The engine sent something that is no answer.", "Look into the engine's log.")
