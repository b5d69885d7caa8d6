"""One window: load on one running server, every counter read at its two edges."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from servolt.cores import usable_cpus
from servolt.host import ProcessTree, machine_busy_s, own_cpu_s
from servolt.measure.load.client import LoadClient
from servolt.measure.scrape import scrape
from servolt.measure.tables import events_table, requests_table
from servolt.measurement import Meter, Window
from servolt.results import Table
from servolt.workload import LoadPoint, Workload

__all__ = ["Place", "RawWindow", "Target", "measure_window"]

WARM_WITHIN_S = 300.0  # warm-up that takes longer has failed; a 7B model on two cores needs about a minute for it
DRAIN_AT_MOST_S = 30.0  # open loop: how long requests of the window may still run after it
MEMORY_READINGS = 4  # per window; reading the whole process table costs milliseconds
GAUGES = ("requests_running", "requests_waiting")  # the engine's readings that don't only grow
STREAMS_PER_WORKER = 256  # one worker reads some 20 k events/s; more workers would take the engine's cores


@dataclass(frozen=True)
class Target:
    """A server that runs. `pid` None: a server of others, whose processor time and memory stay unknown.

    `model` is the name that requests carry; `vocab_size` None lets prompts be words instead of token ids.
    `readings` turns the text of `metrics_path` into counters (`Engine.readings`).
    """

    url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    pid: int | None = None
    vocab_size: int | None = None
    metrics_path: str | None = None
    readings: Callable[[str], Mapping[str, float]] | None = None


@dataclass(frozen=True)
class Place:
    """Where the window stands in the study: its number in the run, and repetition, block and place in the block."""

    index: int
    repetition: int
    block: int
    position: int


@dataclass(frozen=True)
class RawWindow:
    """What was seen: the window's own facts and the rows of its requests and events."""

    window: Window
    requests: Table
    events: Table


@dataclass(frozen=True)
class _Edge:
    """All counters at one moment. What can't be read is None."""

    t_ns: int
    wall_less_monotonic_ns: int
    joules: Mapping[str, float] | None
    engine_cpu_s: float | None
    worker_cpu_s: tuple[float | None, ...]
    own_cpu_s: float
    busy_s: float


async def measure_window(
    target: Target,
    workload: Workload,
    point: LoadPoint,
    place: Place,
    *,
    client: LoadClient,
    meter: Meter | None,
    origin_ns: int,
) -> RawWindow:
    """Warm-up, then `workload.duration_s` of load at `point`. `origin_ns` is the run's zero on CLOCK_MONOTONIC.

    A closed loop's requests that still run at the end are cancelled and marked so; an open loop's are waited for.
    Raises EngineError if warm-up fails. Failures inside the window are rows, not errors.
    """
    workers = _workers(point)
    await client.begin(
        target.url,
        target.api_key,
        workload,
        point,
        repetition=place.repetition,
        model=target.model,
        vocab_size=target.vocab_size,
        workers=workers,
        warm_within_s=WARM_WITHIN_S,
    )
    tree = ProcessTree(target.pid) if target.pid is not None else None
    counters_before = await _counters(target)
    before = await _edge(tree, client, meter)
    resident_bytes = await _until(before.t_ns + round(workload.duration_s * 1e9), tree)
    after = await _edge(tree, client, meter)
    counters_after = await _counters(target)
    drain_s = 0.0 if point.request_rate is None else min(workload.duration_s, DRAIN_AT_MOST_S)
    records = await client.end(after.t_ns, drain_s)
    window = Window(
        index=place.index,
        repetition=place.repetition,
        block=place.block,
        position=place.position,
        concurrency=point.concurrency,
        request_rate=point.request_rate,
        start_ns=before.t_ns - origin_ns,
        end_ns=after.t_ns - origin_ns,
        usable_cores=len(usable_cpus()),
        resident_bytes=resident_bytes,
        clock_step_ns=after.wall_less_monotonic_ns - before.wall_less_monotonic_ns,
        joules=_joules(before.joules, after.joules),
        engine_counters=_growth(counters_before, counters_after) or {},
        **_processor_seconds(before, after),
    )
    return RawWindow(
        window, requests_table(records, place.index, origin_ns), events_table(records, place.index, origin_ns)
    )


def _workers(point: LoadPoint) -> int:
    """One is enough until hundreds of streams; never so many that the engine has no core left."""
    streams = point.concurrency or point.request_rate or 1
    return max(1, min(len(usable_cpus()) - 1, -(-int(streams) // STREAMS_PER_WORKER)))


async def _until(end_ns: int, tree: ProcessTree | None) -> int | None:
    """Waits, and returns the largest resident memory seen."""
    step_s = (end_ns - time.monotonic_ns()) / 1e9 / MEMORY_READINGS
    largest: int | None = None
    while (left_s := (end_ns - time.monotonic_ns()) / 1e9) > 0:
        await asyncio.sleep(min(left_s, step_s))
        seen = tree.resident_bytes() if tree is not None else None
        largest = max((one for one in (largest, seen) if one is not None), default=None)
    return largest


async def _edge(tree: ProcessTree | None, client: LoadClient, meter: Meter | None) -> _Edge:
    joules = await _at_a_tick(meter) if meter is not None else None
    t_ns = time.monotonic_ns()
    return _Edge(
        t_ns=t_ns,
        wall_less_monotonic_ns=time.time_ns() - t_ns,
        joules=joules,
        engine_cpu_s=tree.cpu_s() if tree is not None else None,
        worker_cpu_s=tuple(ProcessTree(pid).cpu_s() for pid in client.pids),
        own_cpu_s=own_cpu_s(),
        busy_s=machine_busy_s(),
    )


async def _at_a_tick(meter: Meter) -> Mapping[str, float]:
    """Read just after the counter moved, so that its step does not blur the edge. One that stands still is as it is."""
    first = meter.read()
    give_up_ns = time.monotonic_ns() + round(2 * meter.period_s * 1e9)
    while time.monotonic_ns() < give_up_ns:
        await asyncio.sleep(meter.period_s / 50)
        now = meter.read()
        if now != first:
            return now
    return meter.read()


async def _counters(target: Target) -> Mapping[str, float] | None:
    if target.metrics_path is None or target.readings is None:
        return None
    text = await scrape(target.url, target.metrics_path, target.api_key)
    if text is None:
        return None
    return {name: value for name, value in target.readings(text).items() if name not in GAUGES}


def _growth(before: Mapping[str, float] | None, after: Mapping[str, float] | None) -> dict[str, float] | None:
    """Of what could be read at both edges."""
    if before is None or after is None:
        return None
    return {name: after[name] - before[name] for name in sorted(after) if name in before}


def _joules(before: Mapping[str, float] | None, after: Mapping[str, float] | None) -> dict[str, float] | None:
    """None where a device could be read at one edge only: the sum of the others is not the machine's."""
    if before is None or after is None or set(before) != set(after):
        return None
    return _growth(before, after)


def _processor_seconds(before: _Edge, after: _Edge) -> dict[str, float | None]:
    engine = _less(after.engine_cpu_s, before.engine_cpu_s)
    workers = [_less(later, earlier) for earlier, later in zip(before.worker_cpu_s, after.worker_cpu_s, strict=True)]
    known = [seconds for seconds in workers if seconds is not None]
    client = sum(known) + after.own_cpu_s - before.own_cpu_s if len(known) == len(workers) else None
    ours = None if engine is None or client is None else engine + client
    return {
        "engine_cpu_s": engine,
        "client_cpu_s": client,
        "client_busiest_cpu_s": None if client is None else max(known),
        "foreign_cpu_s": None if ours is None else after.busy_s - before.busy_s - ours,
    }


def _less(later: float | None, earlier: float | None) -> float | None:
    return None if later is None or earlier is None else later - earlier
