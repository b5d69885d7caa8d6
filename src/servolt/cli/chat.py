"""A conversation in the terminal: what has been said, and what of it still fits the context."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from servolt.errors import ServoltError
from servolt.serve.events import Counts, Delta, Finished
from servolt.serve.refusal import RefusedError
from servolt.serve.request import GenerationRequest, Sampling
from servolt.serve.supervisor import Supervisor
from servolt.serve.upstream import Upstream

__all__ = ["Chat"]

Write = Callable[[str], None]
Message = Mapping[str, str]
Turn = tuple[Message, Message]  # a question and its answer


class Chat:
    """A conversation with one engine."""

    def __init__(self, supervisor: Supervisor, label: str, system: str | None, sampling: Sampling) -> None:
        self.label = label
        self.is_full = False  # the last answer was cut because the context has no room left
        self.left_out = 0  # turns that the model does not see any more
        self._supervisor, self._sampling = supervisor, sampling
        self._start: list[Message] = [{"role": "system", "content": system}] if system else []
        self._turns: list[Turn] = []

    @property
    def context(self) -> int | None:
        """Tokens that one conversation may have; None where the engine does not say."""
        held = self._supervisor.effective.get("max_model_len")
        return held if isinstance(held, int) else None

    def forget(self) -> None:
        self._turns, self.left_out = [], 0

    async def ready(self) -> None:
        await self._supervisor.ensure_ready()

    async def close(self) -> None:
        await self._supervisor.stop()

    async def ask(self, question: str, write: Write) -> dict[str, Any]:
        """Streams the answer to `write`. Raises EngineError, RefusedError; what then failed is not remembered.

        Where the conversation has outgrown the context, its older half is left out until the question fits. An answer
        that was stopped stays in the conversation as far as it got.
        """
        said = _Said(write)
        try:
            turns, end = await self._fitting(question, said)
        except asyncio.CancelledError:
            self._turns.append(_turn(question, said.text))
            raise
        self.is_full = end is not None and end.reason == "length" and not self._was_limited(end)
        self._keep([*turns, _turn(question, said.text)])
        return self._told(said, end)

    async def _fitting(self, question: str, said: "_Said") -> tuple[list[Turn], Finished | None]:
        """The turns that went along with the question, and how the answer ended."""
        turns = self._turns
        while True:
            try:
                return turns, await self._answer([*self._start, *_flat(turns), _user(question)], said)
            except RefusedError as error:
                if error.kind != "overflow":
                    raise
                if not turns:
                    raise _too_long(error) from error
                turns = _newer_half(turns)

    async def _answer(self, messages: Sequence[Message], said: "_Said") -> Finished | None:
        server = await self._supervisor.ensure_ready()
        request = GenerationRequest(messages=messages, sampling=self._sampling)
        said.begin()
        end = None
        async with Upstream(server.url, self._supervisor.api_key) as upstream:
            async for event in upstream.stream(request):
                if isinstance(event, Finished):
                    end = event
                elif isinstance(event, Delta) and (text := event.text or event.reasoning):
                    said.add(text)
        return end

    def _keep(self, turns: list[Turn]) -> None:
        """With a full context the next question would find no room for its answer."""
        kept = _newer_half(turns) if self.is_full else turns
        self.left_out += len(self._turns) + 1 - len(kept)
        self._turns = kept

    def _was_limited(self, end: Finished) -> bool:
        most = self._sampling.max_tokens
        return most is not None and (end.counts is None or end.counts.output_tokens >= most)

    def _told(self, said: "_Said", end: Finished | None) -> dict[str, Any]:
        counts = end.counts if end else None
        usage = None
        if counts is not None:
            usage = {"prompt_tokens": counts.prompt_tokens, "completion_tokens": counts.output_tokens}
        return {
            "model": self.label,
            "content": said.text,
            "finish_reason": end.reason if end else None,
            "usage": usage,
            "ttft_s": said.ttft_s,
            "decode_tokens_per_s": _decode_rate(counts, end.durations.decode_s) if counts and end else None,
            "energy_j": None,
        }


class _Said:
    """An answer while it comes."""

    def __init__(self, write: Write) -> None:
        self.ttft_s: float | None = None
        self._write = write
        self._pieces: list[str] = []
        self._began = 0.0

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def begin(self) -> None:
        self._began = time.perf_counter()

    def add(self, text: str) -> None:
        if self.ttft_s is None:
            self.ttft_s = time.perf_counter() - self._began
        self._pieces.append(text)
        self._write(text)


def _newer_half(turns: list[Turn]) -> list[Turn]:
    """Half, and not only as much as must go, so that there is room for an answer too."""
    return turns[(len(turns) + 1) // 2 :]


def _user(question: str) -> Message:
    return {"role": "user", "content": question}


def _turn(question: str, answer: str) -> Turn:
    return _user(question), {"role": "assistant", "content": answer}


def _flat(turns: Sequence[Turn]) -> list[Message]:
    return [message for turn in turns for message in turn]


def _too_long(error: ServoltError) -> RefusedError:
    remedy = "Shorten it, or start with a larger --max-model-len."
    return RefusedError("overflow", f"The question alone is too long: {error.cause}", remedy)


def _decode_rate(counts: Counts, decode_s: float | None) -> float | None:
    """The engine's time of decoding begins with the first token, which belongs to the prompt."""
    tokens = counts.output_tokens
    return (tokens - 1) / decode_s if tokens > 1 and decode_s else None
