"""The requests of a workload, one after another: when each comes and how long it is."""

import math
import random
from collections.abc import Iterator

from servolt.workload import LoadPoint, TraceRequest, Workload

__all__ = ["lengths_of", "requests_of"]


def requests_of(workload: Workload, point: LoadPoint, copies: int) -> Iterator[TraceRequest]:
    """What one of the copies gets: they take turns. A trace comes once, at the point's mean rate."""
    if workload.trace is not None:
        yield from _replayed(workload, point, copies)
        return
    lengths, now = lengths_of(workload), 0.0
    gaps = _gaps(workload, point.request_rate or 1.0)
    while True:
        for turn in range(copies):
            now += next(gaps)
            if turn == 0:
                yield TraceRequest(now, *next(lengths))


def lengths_of(workload: Workload) -> Iterator[tuple[int, int]]:
    """Prompt and output tokens, drawn apart from each other."""
    chance = random.Random(workload.seed)
    spread = workload.input_lengths, workload.output_lengths
    while True:
        first = workload.input_len if spread[0] is None else spread[0].quantile(chance.random())
        yield first, workload.output_len if spread[1] is None else spread[1].quantile(chance.random())


def _gaps(workload: Workload, rate: float) -> Iterator[float]:
    """Seconds from each request to the next; the requests of a burst come together."""
    chance, size = random.Random(workload.seed + 1), workload.burst_size or 1
    shape = 1.0 if workload.arrival_cv is None else 1.0 / workload.arrival_cv**2
    while True:
        if workload.arrival == "constant":
            yield 1.0 / rate
        elif workload.arrival == "gamma":
            yield chance.gammavariate(shape, 1.0 / (shape * rate))
        else:
            yield chance.expovariate(rate / size)
            yield from (0.0 for _ in range(size - 1))


def _replayed(workload: Workload, point: LoadPoint, copies: int) -> Iterator[TraceRequest]:
    trace = workload.trace
    assert trace is not None
    requests = trace.requests
    first, own = requests[0].arrival_s, (len(requests) - 1) / (trace.span_s or math.inf)
    faster = 1.0 if point.request_rate is None or not own else own / point.request_rate
    for one in requests[::copies]:
        yield one._replace(arrival_s=(one.arrival_s - first) * faster)
