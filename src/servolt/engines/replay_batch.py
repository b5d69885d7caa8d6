"""The replay engine's batch: admits, prefills and steps by the law, on a clock that does not drift."""

import asyncio
import zlib
from collections import deque
from collections.abc import Sequence as Items
from dataclasses import dataclass, field

from servolt.engines.replay_law import Law

__all__ = ["Batch", "Sequence", "Token"]

# Blocks of prompts that count as cached; the oldest go first.
CACHED_BLOCKS = 65_536


@dataclass(frozen=True)
class Token:
    """One output token: its number from 1, and when it was due after the sequence's own prefill, seconds."""

    number: int
    decode_s: float


@dataclass(eq=False)
class Sequence:
    """One request while it waits and runs. `tokens` yields None once it has all of them."""

    prompt: Items[int]
    output_tokens: int
    tokens: "asyncio.Queue[Token | None]" = field(default_factory=asyncio.Queue)
    cached: int = 0
    prefill_s: float = 0.0
    first_at: float = 0.0
    done: int = 0
    aborted: bool = False


class Batch:
    """What runs, what waits, and the engine's counters."""

    def __init__(self, law: Law, max_num_seqs: int, *, caching: bool) -> None:
        self.law, self.max_num_seqs, self.caching = law, max_num_seqs, caching
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.counters = dict.fromkeys(
            ("prompt_tokens", "cached_prompt_tokens", "prefill_s", "output_tokens", "decode_s", "decode_calls"), 0.0
        )
        self.counters |= {"requests_aborted": 0.0, "busy_s": 0.0, "late_s": 0.0}
        self._blocks: dict[int, None] = {}
        self._work = asyncio.Event()
        self._due = 0.0

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)
        self._work.set()

    def abort(self, sequence: Sequence) -> None:
        """Its client has left. A sequence that has ended already is left alone."""
        if sequence in self.waiting:
            self.waiting.remove(sequence)
        elif sequence in self.running:
            self.running.remove(sequence)
        elif sequence.done >= sequence.output_tokens:
            return
        sequence.aborted = True
        self.counters["requests_aborted"] += 1

    async def run(self) -> None:
        """For ever. Every event is due a stated time after the one before, so lateness does not add up."""
        clock = asyncio.get_running_loop().time
        while True:
            if not self.waiting and not self.running:
                self._work.clear()
                await self._work.wait()
                self._due = clock()
            if self.waiting and len(self.running) < self.max_num_seqs:
                await self._prefill(self.waiting.popleft())
            else:
                await self._step()

    async def _prefill(self, sequence: Sequence) -> None:
        sequence.cached = self._cached(sequence.prompt) if self.caching else 0
        fresh = len(sequence.prompt) - sequence.cached
        sequence.prefill_s = self.law.prefill(fresh)
        await self._pass(sequence.prefill_s)
        self.counters["prompt_tokens"] += fresh
        self.counters["cached_prompt_tokens"] += sequence.cached
        self.counters["prefill_s"] += sequence.prefill_s
        if not sequence.aborted:
            sequence.first_at = self._due
            self.running.append(sequence)
            self._give(sequence)

    async def _step(self) -> None:
        members = list(self.running)
        duration_s = self.law.step(len(members))
        await self._pass(duration_s)
        self.counters["decode_calls"] += 1
        self.counters["decode_s"] += duration_s
        for sequence in members:
            if not sequence.aborted:
                self._give(sequence)

    def _give(self, sequence: Sequence) -> None:
        sequence.done += 1
        self.counters["output_tokens"] += 1
        sequence.tokens.put_nowait(Token(sequence.done, self._due - sequence.first_at))
        if sequence.done >= sequence.output_tokens:
            self.running.remove(sequence)
            sequence.tokens.put_nowait(None)

    async def _pass(self, duration_s: float) -> None:
        """Until `duration_s` after the last event was due. A machine too slow for the law is told by `late_s`."""
        clock = asyncio.get_running_loop().time
        self._due += duration_s
        self.counters["busy_s"] += duration_s
        await asyncio.sleep(max(0.0, self._due - clock()))
        self.counters["late_s"] = max(self.counters["late_s"], clock() - self._due)

    def _cached(self, prompt: Items[int]) -> int:
        """Leading tokens whose blocks were seen before; at least one token is always computed."""
        size, known, run, chain = self.law.prefix_block_tokens, 0, True, 0
        for start in range(0, len(prompt) - size + 1, size):
            chain = zlib.crc32(repr(list(prompt[start : start + size])).encode(), chain)
            run = run and chain in self._blocks
            known = start + size if run else known
            self._blocks[chain] = None
        while len(self._blocks) > CACHED_BLOCKS:
            del self._blocks[next(iter(self._blocks))]
        return min(known, len(prompt) - 1)
