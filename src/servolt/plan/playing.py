"""Requests played through the law of one step: where arrivals or lengths are spread, what the closed form can't say.

Continuous batching as vLLM schedules it: all running sequences decode, prompts in chunks fill the rest of a step, a
request is let in when the cache has room for its prompt, and the last one in loses its place when the cache is full:
it comes back first, with what it has written as part of its prompt. Time goes in leaps from one event to the next.
"""

import heapq
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from servolt.plan.roofline import RooflineLaw
from servolt.workload import Slo, TraceRequest

__all__ = ["Fitted", "Limits", "Played", "StepLaw", "Times", "play_closed", "play_open"]

LEAPS_LIMIT = 60_000  # some seconds of Python
CONTEXT_GRID = 40.0  # a context is taken to the nearest of a grid of 2.5 %: steps are then computed once


class StepLaw(Protocol):
    def decode_s(self, sequences: float, context: float) -> float: ...

    def step_s(
        self, *, sequences: float, context: float, prompt_tokens: float, prompts: float, prompt_context: float
    ) -> float: ...

    def late_s(self, tokens: int) -> float:
        """What the first token of a prompt comes later than the step that took it in, while others decode."""
        ...


class Fitted:
    """The roofline, with what was fitted of prompts among running sequences: a part of a prompt's arithmetic falls
    between the others' tokens, and the rest delays its own first one. `pace` and `first` are corrections."""

    def __init__(self, law: RooflineLaw, pace: float = 1.0, first: float = 1.0) -> None:
        self._law, self._pace, self._first = law, pace, first
        self._between = law.constants.interference * (1.0 - law.constants.queue)  # as in steady.times_of
        self._known: dict[tuple[float, int], float] = {}
        self._late: dict[int, float] = {}

    def decode_s(self, sequences: float, context: float) -> float:
        place = round(math.log(max(context, 1.0)) * CONTEXT_GRID)
        found = self._known.get((sequences, place))
        if found is None:
            running, near = max(sequences, self._law.work.groups), math.exp(place / CONTEXT_GRID)
            found = self._known[sequences, place] = self._pace * self._law.decode_s(running, near)
        return found

    def step_s(
        self, *, sequences: float, context: float, prompt_tokens: float, prompts: float, prompt_context: float
    ) -> float:
        if not sequences:
            alone = self._law.step_s(
                sequences=0.0,
                context=context,
                prompt_tokens=prompt_tokens,
                prompts=prompts,
                prompt_context=prompt_context,
            )
            return self._first * alone
        added = self._between * self._law.prompt_s(prompt_tokens, prompt_context)
        return self.decode_s(sequences, context) + self._pace * added

    def late_s(self, tokens: int) -> float:
        if tokens not in self._late:
            within = self._between * self._law.prompt_s(tokens)
            self._late[tokens] = self._first * max(0.0, self._law.prefill_s(tokens) - within)
        return self._late[tokens]


class Limits(NamedTuple):
    """Of one copy. None is no limit; `in_flight` is the client's."""

    slots: int
    batch_tokens: int
    kv_cache_tokens: float | None = None
    in_flight: int | None = None
    longest: float | None = None  # context of one request


class Times(NamedTuple):
    """Of the requests that were measured, by statistic."""

    mean: float
    p50: float
    p90: float
    p99: float


class Played(NamedTuple):
    """Seconds; rates of one copy. `whole` is whether all requests that were to be measured are done."""

    requests: int
    ttft: Times
    tpot: Times | None
    e2el: Times
    queue_time: Times
    preemptions: float
    request_throughput: float
    output_throughput: float
    busy: float
    most_running: int
    most_waiting: int
    refused: int
    slo_attainment: float | None
    whole: bool


@dataclass(slots=True)
class _Request:
    number: int
    asked: TraceRequest
    prompt_left: int
    tokens_left: int
    context: int = 0  # when it began to decode, less the count of steps then
    end: int = 0  # the step at which it is done
    admitted_s: float = -1.0
    first_s: float = -1.0
    last_s: float = 0.0
    preempted: int = 0
    out: bool = False  # of the batch again


def play_open(
    law: StepLaw,
    requests: Iterator[TraceRequest],
    limits: Limits,
    *,
    request_s: float,
    warmup: int,
    measured: int,
    slo: Slo | None = None,
) -> Played | None:
    """Of the requests after the first `warmup`, so many. None where not one of them could be served."""
    machine = _Machine(law, limits, requests, warmup + measured)
    machine.run()
    return machine.summary(warmup, request_s, slo)


def play_closed(
    law: StepLaw,
    lengths: Iterator[tuple[int, int]],
    limits: Limits,
    *,
    streams: int,
    request_s: float,
    measured: int,
    slo: Slo | None = None,
) -> Played | None:
    """Streams that each send the next request when the one before it is done. The first of each is left out."""

    def requests() -> Iterator[TraceRequest]:
        while True:
            yield TraceRequest(0.0, *next(lengths))

    capped = limits._replace(in_flight=streams)
    machine = _Machine(law, capped, requests(), streams + measured, closed=True)
    machine.run()
    return machine.summary(streams, request_s, slo)


class _Machine:
    def __init__(
        self, law: StepLaw, limits: Limits, requests: Iterator[TraceRequest], wanted: int, *, closed: bool = False
    ) -> None:
        self._law, self._limits, self._requests, self._closed = law, limits, requests, closed
        self._wanted = wanted
        self._room = math.inf if limits.kv_cache_tokens is None else limits.kv_cache_tokens
        self._longest = min(self._room, limits.longest or math.inf)
        self._in_flight = math.inf if limits.in_flight is None else limits.in_flight
        self._next = next(requests, None)
        self._sent = 0
        self._waiting: deque[_Request] = deque()
        self._prefilling: deque[_Request] = deque()
        self._decoding: list[tuple[int, int, _Request]] = []  # by the step at which each is done
        self._last_in: list[_Request] = []
        self._running = 0  # of those that decode
        self._base = 0  # sum of contexts when they began, less the steps then
        self._steps = 0
        self._now = self._busy_s = 0.0
        self._prompt_tokens = 0  # that admitted prompts hold or will
        self._done: list[_Request] = []
        self._refused = self._most_running = self._most_waiting = 0

    def run(self) -> None:
        for _ in range(LEAPS_LIMIT):
            self._arrive()
            self._admit()
            if len(self._done) + self._refused >= self._wanted:
                return
            if not self._prefilling and not self._running:
                if self._next is None:
                    return
                self._now = max(self._now, self._next.arrival_s)
                continue
            before = self._now
            if self._prefilling:
                self._mixed_step()
            else:
                self._leap()
            self._busy_s += self._now - before
            self._retire()

    def _arrive(self) -> None:
        """A closed loop's next request comes when there is a stream for it."""
        while self._next is not None and self._next.arrival_s <= self._now and self._flying < self._in_flight:
            asked = self._next
            if self._closed:
                asked = asked._replace(arrival_s=self._now)
            self._next = next(self._requests, None)
            if asked.input_tokens + asked.output_tokens > self._longest:
                self._refused += 1
                if self._refused > self._wanted:
                    return
                continue
            self._waiting.append(_Request(self._sent, asked, asked.input_tokens, asked.output_tokens))
            self._sent += 1
        self._most_waiting = max(self._most_waiting, len(self._waiting))

    @property
    def _flying(self) -> int:
        return len(self._waiting) + len(self._prefilling) + self._running

    @property
    def _held(self) -> int:
        return self._prompt_tokens + self._base + self._running * self._steps

    def _admit(self) -> None:
        while self._waiting and len(self._prefilling) + self._running < self._limits.slots:
            one = self._waiting[0]
            if self._held + one.prompt_left + 1 > self._room:
                break
            self._waiting.popleft()
            one.admitted_s = self._now if one.admitted_s < 0 else one.admitted_s
            self._prompt_tokens += one.prompt_left
            one.context = one.prompt_left
            self._prefilling.append(one)
        self._most_running = max(self._most_running, len(self._prefilling) + self._running)

    def _mixed_step(self) -> None:
        room, taken, seen, ended = max(1, self._limits.batch_tokens - self._running), 0, 0.0, []
        while self._prefilling and taken < room:
            one = self._prefilling[0]
            part = min(one.prompt_left, room - taken)
            done = one.context - one.prompt_left
            seen += part * (done + part / 2)
            one.prompt_left -= part
            taken += part
            if one.prompt_left:
                break
            ended.append(self._prefilling.popleft())
        self._now += self._law.step_s(
            sequences=self._running,
            context=self._context(0.0),
            prompt_tokens=taken,
            prompts=len(ended),
            prompt_context=seen / taken,
        )
        self._steps += 1
        among = self._running
        for one in ended:
            self._begin(one, self._law.late_s(one.context) if among else 0.0)

    def _begin(self, one: _Request, late_s: float) -> None:
        """Its first token is there; the others are still to come."""
        if one.first_s < 0:
            one.first_s = self._now + late_s
        self._prompt_tokens -= one.context
        one.tokens_left -= 1
        one.end = self._steps + one.tokens_left
        one.context = one.context + 1 - self._steps
        self._base += one.context
        self._running += 1
        heapq.heappush(self._decoding, (one.end, one.number, one))
        self._last_in.append(one)

    def _context(self, further: float) -> float:
        return (self._base / self._running + self._steps + further) if self._running else 0.0

    def _leap(self) -> None:
        """All steps up to the next end, arrival or full cache at once: their batch is the same."""
        steps = max(1, self._decoding[0][0] - self._steps)
        if self._room < math.inf:
            steps = min(steps, max(1, int(self._room - self._held) // self._running))
        seconds = self._law.decode_s(self._running, self._context(steps / 2))
        if self._next is not None and not self._closed and self._flying < self._in_flight:
            steps = max(1, min(steps, math.ceil((self._next.arrival_s - self._now) / seconds)))
        self._steps += steps
        self._now += steps * seconds

    def _retire(self) -> None:
        while self._decoding and self._decoding[0][0] <= self._steps:
            _, _, one = heapq.heappop(self._decoding)
            self._leave(one)
            one.last_s = max(self._now, one.first_s)
            self._done.append(one)
        while self._held > self._room and self._running > 1:
            self._preempt()

    def _leave(self, one: _Request) -> None:
        self._base -= one.context
        self._running -= 1
        one.out = True

    def _preempt(self) -> None:
        """The last one in, which comes back first."""
        one = self._last_in.pop()
        while one.out:
            one = self._last_in.pop()
        self._leave(one)
        again = _Request(one.number, one.asked, one.context + self._steps, one.end - self._steps)
        again.admitted_s, again.first_s, again.preempted = one.admitted_s, one.first_s, one.preempted + 1
        self._decoding = [entry for entry in self._decoding if entry[2] is not one]
        heapq.heapify(self._decoding)
        self._waiting.appendleft(again)

    def summary(self, warmup: int, request_s: float, slo: Slo | None) -> Played | None:
        counted = [one for one in self._done if warmup <= one.number < self._wanted]
        if not counted:
            return None
        ttft = [one.first_s - one.asked.arrival_s + request_s for one in counted]
        e2el = [one.last_s - one.asked.arrival_s + request_s for one in counted]
        longer = [one for one in counted if one.asked.output_tokens > 1]
        tpot = [(one.last_s - one.first_s) / (one.asked.output_tokens - 1) for one in longer]
        begin = min(one.asked.arrival_s for one in counted) if not self._closed else self._warm_s(warmup)
        span = max(self._now - begin, 1e-9)
        within = [one for one in self._done if one.last_s > begin]
        return Played(
            requests=len(counted),
            ttft=_times(ttft),
            tpot=_times(tpot) if tpot else None,
            e2el=_times(e2el),
            queue_time=_times([one.admitted_s - one.asked.arrival_s for one in counted]),
            preemptions=sum(one.preempted for one in counted) / len(counted),
            request_throughput=len(within) / span,
            output_throughput=sum(one.asked.output_tokens for one in within) / span,
            busy=min(1.0, self._busy_s / self._now) if self._now else 1.0,
            most_running=self._most_running,
            most_waiting=self._most_waiting,
            refused=self._refused,
            slo_attainment=None if slo is None else _attained(slo, counted, request_s) / len(counted),
            whole=len(self._done) + self._refused >= self._wanted or self._next is None,
        )

    def _warm_s(self, warmup: int) -> float:
        """When the first requests are done, of a closed loop."""
        return max((one.last_s for one in self._done[:warmup]), default=0.0)


def _attained(slo: Slo, requests: Sequence[_Request], request_s: float) -> int:
    kept = 0
    for one in requests:
        later = max(one.asked.output_tokens - 1, 1)
        values = (
            (slo.ttft, one.first_s - one.asked.arrival_s + request_s),
            (slo.tpot, (one.last_s - one.first_s) / later),
            (slo.e2el, one.last_s - one.asked.arrival_s + request_s),
        )
        kept += all(bound is None or value <= bound for bound, value in values)
    return kept


def _times(values: list[float]) -> Times:
    values.sort()

    def at(share: float) -> float:
        place = share * (len(values) - 1)
        low = int(place)
        high = min(low + 1, len(values) - 1)
        return values[low] + (values[high] - values[low]) * (place - low)

    return Times(math.fsum(values) / len(values), at(0.5), at(0.9), at(0.99))
