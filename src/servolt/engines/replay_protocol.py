"""The replay engine's requests and answers, in the shapes that llama.cpp's server has."""

import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from servolt.engines.replay_batch import Sequence, Token
from servolt.engines.replay_law import Law

__all__ = ["Answer", "Generation", "RefusedError", "read_generation", "token_ids"]

VOCABULARY = 32_000
FIRST_WORD = 4  # ids below it are special, as in most vocabularies
TEXT = "the time of a token is what it costs and what it costs is time so count every one before you say"


class RefusedError(Exception):
    """A request that gets no tokens."""

    def __init__(self, status: int, kind: str, message: str, **facts: int) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"code": status, "message": message, "type": kind, **facts}}


@dataclass(frozen=True)
class Generation:
    """What a client asked for."""

    prompt: tuple[int, ...]
    output_tokens: int
    limited: bool
    chat: bool
    stream: bool
    usage: bool
    timings: bool


def read_generation(body: Mapping[str, Any], chat: bool, law: Law, context: int) -> Generation:
    """Raises RefusedError. `stop`, sampling and tools are accepted and change nothing."""
    prompt = token_ids(_conversation(body)) if chat else _prompt(body.get("prompt"))
    if not prompt:
        raise RefusedError(400, "invalid_request_error", "the prompt is empty")
    if len(prompt) >= context:
        message = f"request ({len(prompt)} tokens) exceeds the available context size ({context} tokens)"
        raise RefusedError(400, "exceed_context_size_error", message, n_prompt_tokens=len(prompt), n_ctx=context)
    room = context - len(prompt)
    asked = _limit(body)
    natural = room if body.get("ignore_eos") is True else min(law.output_tokens, room)
    tokens = natural if asked is None else min(natural, asked)
    options = body.get("stream_options")
    return Generation(
        prompt=tuple(prompt),
        output_tokens=max(1, tokens),
        limited=tokens < law.output_tokens or body.get("ignore_eos") is True,
        chat=chat,
        stream=body.get("stream") is True,
        usage=isinstance(options, dict) and options.get("include_usage") is True,
        timings=body.get("timings_per_token") is True,
    )


def token_ids(text: str) -> list[int]:
    """A token is a word."""
    return [FIRST_WORD + zlib.crc32(word.encode()) % (VOCABULARY - FIRST_WORD) for word in text.split()]


class Answer:
    """One sequence's answer, as one object or as chunks."""

    def __init__(self, asked: Generation, sequence: Sequence, alias: str, law: Law) -> None:
        self.asked, self.sequence, self.alias, self.law = asked, sequence, alias, law
        self.id, self.created = f"chatcmpl-{id(sequence):x}", int(time.time())
        self.tokens: list[Token] = []
        self.sent = 0

    def add(self, token: Token) -> None:
        self.tokens.append(token)

    def whole(self) -> dict[str, Any]:
        text = self._text(self.tokens)
        reason = "length" if self.asked.limited else "stop"
        part = {"message": {"role": "assistant", "content": text}} if self.asked.chat else {"text": text}
        kind = "chat.completion" if self.asked.chat else "text_completion"
        choice = {"index": 0, "finish_reason": reason, **part}
        return {**self._frame(kind, [choice]), "usage": self._usage(), "timings": self._timings()}

    def chunks(self) -> Iterator[dict[str, Any]]:
        """What is due after the newest token. The role comes before the first; a bundle waits until it is full."""
        if self.asked.chat and self.sent == 0 and len(self.tokens) == 1:
            yield self._chunk({"role": "assistant", "content": None}, None)
        fresh = self.tokens[self.sent :]
        if len(fresh) >= self.law.tokens_per_chunk or len(self.tokens) == self.asked.output_tokens:
            self.sent = len(self.tokens)
            text = self._text(fresh)
            chunk = self._chunk({"content": text} if self.asked.chat else text, None)
            yield {**chunk, "timings": self._timings()} if self.asked.timings else chunk

    def end(self) -> Iterator[dict[str, Any]]:
        """A chunk without text that bears the reason; then the counts, in a chunk of their own where that is usual."""
        last = self._chunk({} if self.asked.chat else "", "length" if self.asked.limited else "stop")
        counts = {"timings": self._timings()} | ({"usage": self._usage()} if self.asked.usage else {})
        if self.asked.chat and self.asked.usage:
            yield last
            yield {**self._frame("chat.completion.chunk", []), **counts}
        else:
            yield {**last, **counts}

    def _chunk(self, part: Any, reason: str | None) -> dict[str, Any]:
        name, kind = ("delta", "chat.completion.chunk") if self.asked.chat else ("text", "text_completion")
        return self._frame(kind, [{"index": 0, "finish_reason": reason, name: part}])

    def _frame(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"choices": choices, "created": self.created, "id": self.id, "model": self.alias, "object": kind}

    def _text(self, tokens: list[Token]) -> str:
        words, start = TEXT.split(), self.law.seed + len(self.sequence.prompt)
        return "".join(f" {words[(start + token.number) % len(words)]}" for token in tokens)

    def _usage(self) -> dict[str, Any]:
        prompt, output = len(self.sequence.prompt), len(self.tokens)
        cached = {"cached_tokens": self.sequence.cached}
        return {
            "completion_tokens": output,
            "prompt_tokens": prompt,
            "total_tokens": prompt + output,
            "prompt_tokens_details": cached,
        }

    def _timings(self) -> dict[str, float]:
        """By the law's clock: when things were due."""
        return {
            "cache_n": self.sequence.cached,
            "prompt_n": len(self.sequence.prompt) - self.sequence.cached,
            "prompt_ms": round(self.sequence.prefill_s * 1e3, 6),
            "predicted_n": len(self.tokens),
            "predicted_ms": round(self.tokens[-1].decode_s * 1e3, 6),
        }


def _conversation(body: Mapping[str, Any]) -> str:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RefusedError(400, "invalid_request_error", "messages is no list, or is empty")
    if not all(isinstance(message, dict) for message in messages):
        raise RefusedError(400, "invalid_request_error", "a message is an object")
    return " ".join(f"<{message.get('role')}> {message.get('content')}" for message in messages) + " <assistant>"


def _prompt(prompt: Any) -> list[int]:
    """Text, token ids, or a list that holds one of them."""
    if isinstance(prompt, list) and len(prompt) == 1 and not isinstance(prompt[0], int):
        return _prompt(prompt[0])
    if isinstance(prompt, str):
        return token_ids(prompt)
    if isinstance(prompt, list) and all(type(token) is int and 0 <= token < VOCABULARY for token in prompt):
        return prompt
    raise RefusedError(400, "invalid_request_error", "prompt is one text or one list of token ids")


def _limit(body: Mapping[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens", "n_predict"):
        value = body.get(name)
        if value is not None:
            if type(value) is not int:
                raise RefusedError(400, "invalid_request_error", f"{name} is a whole number")
            return value if value >= 0 else None
    return None
