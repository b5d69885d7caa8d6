"""What OpenAI's clients send, and the events they read back."""

import time
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import msgspec
import orjson

from servolt.errors import ServoltError
from servolt.serve.events import Answer, Counts, Delta, Event, Finished, tokens_of
from servolt.serve.generation import Generation
from servolt.serve.openai.errors import error_body

__all__ = ["ChatBody", "ChatWriter", "CompletionBody", "CompletionWriter", "Identity", "chat_reply", "completion_reply"]

EVENTS = b"text/event-stream; charset=utf-8"


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class SharedBody(msgspec.Struct, kw_only=True):
    """What chat and completions have in common, with the extra samplers that vLLM takes."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    ignore_eos: bool | None = None
    keep_alive: Any = None


class ChatBody(SharedBody):
    messages: list[dict[str, Any]] | None = None
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: dict[str, Any] | None = None
    tools: list[Any] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class CompletionBody(SharedBody):
    prompt: Any = None
    best_of: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    logprobs: int | None = None


class Identity(msgspec.Struct, frozen=True):
    """What is the same in all pieces of one answer."""

    id: str
    created: int
    model: str
    fingerprint: str

    @classmethod
    def new(cls, prefix: str, request_id: str, model: str, deployment_digest: str) -> "Identity":
        """The fingerprint changes when the deployment does."""
        return cls(f"{prefix}-{request_id}", int(time.time()), model, f"fp_{deployment_digest[:12]}")

    def fields(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


class _EventWriter:
    """Server-sent events; each piece is put together from bytes that are the same for the whole stream."""

    content_type = EVENTS
    kind = ""

    def __init__(self, identity: Identity, *, include_usage: bool) -> None:
        self._head = b"data: " + orjson.dumps(identity.fields(self.kind))[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
        self._include_usage = include_usage
        self._finished: dict[int, Finished] = {}

    def batch(self, events: Sequence[Event], index: int = 0) -> bytes:
        raise NotImplementedError

    def last(self) -> bytes:
        if not self._include_usage:
            return b"data: [DONE]\n\n"
        ends = [self._finished[index] for index in sorted(self._finished)]
        usage = orjson.dumps(usage_of(ends, self._prompts(len(ends))))
        timings = _timings(ends)
        return self._head + b'],"usage":' + usage + timings + b"}\n\ndata: [DONE]\n\n"

    def failed(self, error: ServoltError) -> bytes:
        return b"data: " + orjson.dumps(error_body(error)) + b"\n\ndata: [DONE]\n\n"

    async def before_last(self, generation: Generation, events: Sequence[Event]) -> None:
        """Nothing is missing."""

    def _prompts(self, choices: int) -> int:
        return 1


class ChatWriter(_EventWriter):
    kind = "chat.completion.chunk"

    def __init__(self, identity: Identity, *, include_usage: bool) -> None:
        super().__init__(identity, include_usage=include_usage)
        self._begun: set[int] = set()

    def batch(self, events: Sequence[Event], index: int = 0) -> bytes:
        number = b"%d" % index
        pieces = []
        if index not in self._begun:
            self._begun.add(index)
            pieces.append(self._piece(number, b'{"role":"assistant","content":""}'))
        for event in events:
            if isinstance(event, Finished):
                self._finished[index] = event
                pieces.append(self._piece(number, b"{}", reason=b'"%s"' % event.reason.encode()))
            elif event.reasoning is None and event.tool_calls is None and event.logprobs is None:
                text = b'{"content":' + orjson.dumps(event.text) + b"}"
                pieces.append(self._piece(number, text))
            else:
                pieces.append(self._rich(number, event))
        return b"".join(pieces)

    def _rich(self, number: bytes, event: Delta) -> bytes:
        delta: dict[str, Any] = {}
        if event.text:
            delta["content"] = event.text
        if event.reasoning:
            delta["reasoning_content"] = event.reasoning
        if event.tool_calls:
            delta["tool_calls"] = msgspec.Raw(event.tool_calls)
        logprobs = bytes(event.logprobs) if event.logprobs else b"null"
        return self._piece(number, msgspec.json.encode(delta), logprobs=logprobs)

    def _piece(self, number: bytes, delta: bytes, *, logprobs: bytes = b"null", reason: bytes = b"null") -> bytes:
        parts = (b'{"index":', number, b',"delta":', delta, b',"logprobs":', logprobs, b',"finish_reason":', reason)
        return b"".join((self._head, *parts, b"}", self._tail))


class CompletionWriter(_EventWriter):
    kind = "text_completion"

    def __init__(self, identity: Identity, *, include_usage: bool, echoes: Sequence[str], per_prompt: int) -> None:
        super().__init__(identity, include_usage=include_usage)
        self._echoes = dict(enumerate(echoes))
        self._per_prompt = per_prompt
        self._lengths: dict[int, int] = {}

    def batch(self, events: Sequence[Event], index: int = 0) -> bytes:
        number = b"%d" % index
        pieces = []
        if echo := self._echoes.pop(index, ""):
            pieces.append(self._piece(number, echo))
        for event in events:
            if isinstance(event, Finished):
                self._finished[index] = event
                pieces.append(self._piece(number, "", reason=b'"%s"' % event.reason.encode()))
            else:
                pieces.append(self._piece(number, event.text or "", logprobs=self._logprobs(index, event)))
        return b"".join(pieces)

    def _logprobs(self, index: int, event: Delta) -> bytes:
        offset = self._lengths.get(index, 0)
        self._lengths[index] = offset + len(event.text or "")
        return orjson.dumps(legacy_logprobs(tokens_of(event.logprobs), offset)) if event.logprobs else b"null"

    def _piece(self, number: bytes, text: str, *, logprobs: bytes = b"null", reason: bytes = b"null") -> bytes:
        said = orjson.dumps(text)
        parts = (b'{"index":', number, b',"text":', said, b',"logprobs":', logprobs, b',"finish_reason":', reason)
        return b"".join((self._head, *parts, b"}", self._tail))

    def _prompts(self, choices: int) -> int:
        return choices // self._per_prompt


def chat_reply(identity: Identity, answers: Sequence[Answer], *, logprobs: bool) -> bytes:
    choices = [
        {
            "index": index,
            "message": _message(answer),
            "logprobs": {"content": answer.logprobs or []} if logprobs else None,
            "finish_reason": answer.finished.reason,
        }
        for index, answer in enumerate(answers)
    ]
    return _reply(identity, "chat.completion", choices, answers, 1)


def completion_reply(
    identity: Identity, answers: Sequence[Answer], echoes: Sequence[str], per_prompt: int, *, logprobs: bool
) -> bytes:
    choices = [
        {
            "index": index,
            "text": echo + answer.text,
            "logprobs": legacy_logprobs(answer.logprobs or []) if logprobs else None,
            "finish_reason": answer.finished.reason,
        }
        for index, (answer, echo) in enumerate(zip(answers, echoes, strict=True))
    ]
    return _reply(identity, "text_completion", choices, answers, len(answers) // per_prompt)


def usage_of(ends: Sequence[Finished], prompts: int) -> dict[str, Any] | None:
    """Several choices of one prompt read it once. None where the engine did not count.

    `ends` has the choices of the first prompt, then those of the second.
    """
    counts: list[Counts] = [end.counts for end in ends if end.counts is not None]
    if len(counts) < len(ends) or not counts:
        return None
    firsts = counts[:: len(counts) // prompts]
    prompt_tokens = sum(count.prompt_tokens for count in firsts)
    output_tokens = sum(count.output_tokens for count in counts)
    usage: dict[str, Any] = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": prompt_tokens + output_tokens,
    }
    cached = [count.cached_tokens for count in firsts if count.cached_tokens is not None]
    if len(cached) == len(firsts):
        usage["prompt_tokens_details"] = {"cached_tokens": sum(cached)}
    return usage


def legacy_logprobs(tokens: Sequence[Mapping[str, Any]], offset: int = 0) -> dict[str, Any]:
    """/v1/completions has a shape of its own: parallel lists, and a mapping for the alternatives."""
    lengths = [len(token.get("token") or "") for token in tokens]
    return {
        "tokens": [token.get("token") for token in tokens],
        "token_logprobs": [token.get("logprob") for token in tokens],
        "top_logprobs": [
            {other.get("token"): other.get("logprob") for other in token.get("top_logprobs") or ()} for token in tokens
        ],
        "text_offset": list(accumulate(lengths[:-1], initial=offset)) if tokens else [],
    }


def _message(answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    if answer.tool_calls:
        message["content"] = answer.text or None
        message["tool_calls"] = answer.tool_calls
    return message


def _reply(identity: Identity, kind: str, choices: list[Any], answers: Sequence[Answer], prompts: int) -> bytes:
    ends = [answer.finished for answer in answers]
    plain = identity.fields(kind) | {"choices": choices, "usage": usage_of(ends, prompts)}
    if len(ends) == 1 and ends[0].timings is not None:
        plain["timings"] = ends[0].timings
    return msgspec.json.encode(plain)


def _timings(ends: Sequence[Finished]) -> bytes:
    """The engine's own, where there is one choice to speak of."""
    if len(ends) != 1 or ends[0].timings is None:
        return b""
    return b',"timings":' + bytes(ends[0].timings)
