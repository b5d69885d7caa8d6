"""A workload played through the law of one step: who waits, who is in the batch, when each token comes."""

import math
import random
import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from servolt.plan.speed import Law
from servolt.plan.stated import StatedLaw
from servolt.workload import LoadPoint, Workload

__all__ = ["Outcome", "simulate"]

# Generations of requests of a closed loop: the first start together and are left out, the others are the steady state.
CLOSED_GENERATIONS = 4
# Requests of an open loop; enough for a median, and short enough for an answer in milliseconds.
OPEN_REQUESTS = 200
# More streams than this many for each slot are not played: what is beyond only waits longer, by Little's law.
STREAMS_PER_SLOT = 8
# About 50 ms of Python; a prompt of a million tokens takes 512 steps of 2,048.
STEPS_LIMIT = 10_000
# Streams that start together come one after another, as a client sends them.
TOGETHER_S = 1e-4


class Outcome(NamedTuple):
    """Means and medians over the steady requests, seconds and tokens per second. None where no time passed for it."""

    ttft_mean: float
    ttft_p50: float
    tpot_mean: float | None
    tpot_p50: float | None
    e2el_mean: float
    e2el_p50: float
    output_throughput: float
    request_throughput: float
    decode_throughput: float | None
    prefill_throughput: float | None


@dataclass
class _Request:
    sent_s: float
    arrives_s: float
    prompt_left: int
    tokens_left: int
    started_s: float = -1.0
    first_s: float = 0.0
    last_s: float = 0.0


def simulate(
    law: Law | StatedLaw, workload: Workload, point: LoadPoint, *, slots: int, batch_tokens: int, apart: bool
) -> Outcome | None:
    """The steady state at one load point; None where the limit of steps came before enough requests were done.

    Streams of a closed loop with fixed lengths stay in step: all prompts at once when they start together, one prompt
    at a time when they start `apart`. Real clients end up somewhere between.
    """
    return _Engine(law, workload, point, slots, batch_tokens, apart).outcome()


class _Engine:
    """Continuous batching as llama.cpp does it: all running sequences decode, prompts fill the rest of the step."""

    def __init__(
        self, law: Law | StatedLaw, workload: Workload, point: LoadPoint, slots: int, batch_tokens: int, apart: bool
    ) -> None:
        self._law, self._workload, self._slots, self._batch = law, workload, slots, batch_tokens
        self._closed = point.request_rate is None
        self._streams = min(point.concurrency or 0, slots * STREAMS_PER_SLOT)
        self._beyond = (point.concurrency or 0) - self._streams
        self._request_s = law.constants.request_s
        self._gap_s = self._request_time_s() / self._streams if apart and self._streams else TOGETHER_S
        self._waiting = deque(self._first_requests(point))
        self._running: list[_Request] = []
        self._done: list[_Request] = []
        self._now = 0.0
        self._wanted = self._streams * CLOSED_GENERATIONS if self._closed else OPEN_REQUESTS

    def _first_requests(self, point: LoadPoint) -> list[_Request]:
        if point.request_rate is None:
            return [self._request(index * self._gap_s) for index in range(self._streams)]
        chance, time, made = random.Random(self._workload.seed), 0.0, []
        together = self._workload.burst_size or 1
        for index in range(OPEN_REQUESTS):
            if index % together == 0:
                time += together * self._gap(chance) / point.request_rate
            made.append(self._request(time))
        return made

    def _gap(self, chance: random.Random) -> float:
        """Between arrivals, 1 on average; bursts come at random, as in plan/arrivals.py."""
        spread = {"poisson": 1.0, "burst": 1.0, "gamma": self._workload.arrival_cv}.get(self._workload.arrival)
        return chance.gammavariate(spread**-2, spread**2) if spread else 1.0

    def _request_time_s(self) -> float:
        """Of one request beside as many others as can run."""
        load, running = self._workload, min(self._streams, self._slots)
        step_s = self._law.decode_s(running, load.input_len + load.output_len / 2)
        return self._request_s + running * self._law.prefill_s(load.input_len) + (load.output_len - 1) * step_s

    def _request(self, sent_s: float) -> _Request:
        return _Request(sent_s, sent_s + self._request_s, self._workload.input_len, self._workload.output_len)

    def outcome(self) -> Outcome | None:
        steps = 0
        while len(self._done) < self._wanted and steps < STEPS_LIMIT:
            self._advance()
            steps += 1
        if len(self._done) < self._wanted:
            return None
        return self._summary(self._done[self._streams :] if self._closed else self._done)

    def _advance(self) -> None:
        self._admit()
        if not self._running:
            self._now = self._waiting[0].arrives_s
            return
        if any(request.prompt_left for request in self._running):
            self._mixed_step()
        else:
            self._decode_steps()
        self._retire()

    def _admit(self) -> None:
        while self._waiting and self._waiting[0].arrives_s <= self._now and len(self._running) < self._slots:
            self._running.append(self._waiting.popleft())

    def _mixed_step(self) -> None:
        decoding = [request for request in self._running if not request.prompt_left]
        room = max(1, self._batch - len(decoding))
        taken, ending = 0, []
        for request in self._running:
            if request.prompt_left and room > taken:
                part = min(request.prompt_left, room - taken)
                request.started_s = self._now if request.started_s < 0 else request.started_s
                request.prompt_left, taken = request.prompt_left - part, taken + part
                ending += [] if request.prompt_left else [request]
        self._now += self._law.step_s(
            sequences=len(decoding),
            context=self._context(decoding),
            prompt_tokens=taken,
            prompts=len(ending),
            prompt_context=self._workload.input_len / 2,
        )
        for request in ending:
            request.first_s = self._now
        self._emit(decoding + ending, 1)

    def _decode_steps(self) -> None:
        """All steps up to the next end or arrival at once: their batch is the same."""
        seconds = self._law.decode_s(len(self._running), self._context(self._running))
        steps = min(request.tokens_left for request in self._running)
        if self._waiting and len(self._running) < self._slots:
            steps = max(1, min(steps, -int(-(self._waiting[0].arrives_s - self._now) // seconds)))
        self._now += steps * seconds
        self._emit(self._running, steps)

    def _context(self, requests: Sequence[_Request]) -> float:
        """Mean context of the sequences, half of what is still to come included."""
        if not requests:
            return 0.0
        whole = self._workload.input_len + self._workload.output_len
        return whole - statistics.fmean(request.tokens_left for request in requests) / 2

    def _emit(self, requests: Sequence[_Request], tokens: int) -> None:
        for request in requests:
            request.tokens_left -= tokens
            request.last_s = self._now

    def _retire(self) -> None:
        ended = [request for request in self._running if request.tokens_left <= 0]
        if not ended:
            return
        self._running = [request for request in self._running if request.tokens_left > 0]
        self._done += ended
        if self._closed:
            self._waiting.extend(self._request(self._now) for _ in ended)

    def _start_s(self) -> float:
        """Of the steady state: a closed loop's when the first generation is done."""
        return max((request.last_s for request in self._done[: self._streams]), default=0.0) if self._closed else 0.0

    def _summary(self, requests: Sequence[_Request]) -> Outcome:
        span = max(request.last_s for request in requests) - self._start_s()
        beyond_s = self._beyond * span / len(requests)
        ttft = [request.first_s - request.sent_s + beyond_s for request in requests]
        e2el = [request.last_s - request.sent_s + beyond_s for request in requests]
        tpot = self._tpot(requests)
        prefill_s = statistics.fmean(request.first_s - request.started_s for request in requests)
        return Outcome(
            ttft_mean=statistics.fmean(ttft),
            ttft_p50=statistics.median(ttft),
            tpot_mean=statistics.fmean(tpot) if tpot else None,
            tpot_p50=statistics.median(tpot) if tpot else None,
            e2el_mean=statistics.fmean(e2el),
            e2el_p50=statistics.median(e2el),
            output_throughput=len(requests) * self._workload.output_len / span,
            request_throughput=len(requests) / span,
            decode_throughput=self._decode_throughput(requests),
            prefill_throughput=self._workload.input_len / prefill_s if prefill_s else None,
        )

    def _tpot(self, requests: Sequence[_Request]) -> list[float]:
        """Empty where the first token is the last."""
        later = self._workload.output_len - 1
        return [(request.last_s - request.first_s) / later for request in requests] if later else []

    def _decode_throughput(self, requests: Sequence[_Request]) -> float | None:
        """Of as many streams as decode at the same time on average; None where none does."""
        covered_s = _covered(requests)
        if not covered_s:
            return None
        streams = sum(request.last_s - request.first_s for request in requests) / covered_s
        context = self._workload.input_len + (self._workload.output_len - 1) / 2
        return streams / self._law.decode_s(streams, context)


def _covered(requests: Sequence[_Request]) -> float:
    """Seconds in which at least one of them decodes."""
    covered, reach = 0.0, -math.inf
    for request in sorted(requests, key=lambda request: request.first_s):
        covered += max(0.0, request.last_s - max(request.first_s, reach))
        reach = max(reach, request.last_s)
    return covered
