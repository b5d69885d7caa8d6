"""Measurements, as people read them."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import RenderableType

from servolt.cli.tables import point, spread, table
from servolt.measurement import Measurement
from servolt.metrics import Estimate

__all__ = ["measurement_rows", "measurements_shown"]

# In the order in which people ask; the document holds the rest.
SHOWN = (
    ("output_throughput", None),
    ("ttft", "p50"),
    ("ttft", "p99"),
    ("tpot", "mean"),
    ("itl", "p99"),
    ("e2el", "p50"),
    ("decode_throughput", None),
    ("prefill_throughput", None),
    ("request_goodput", None),
    ("slo_attainment", None),
    ("failed_share", None),
    ("resident_memory", None),
    ("cpu_seconds_per_output_token", None),
    ("energy_per_output_token", None),
)


def measurement_rows(measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    """One row for each result, for tables."""
    return [
        {"measurement": one.id[:12], "deployment": one.deployment.label, **estimate.model_dump(mode="json")}
        for one in measurements
        for estimate in one.results
    ]


def measurements_shown(measurements: Sequence[Measurement]) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for one in measurements:
        parts += [*_parts(one), ""]
    return parts[:-1]


def _parts(one: Measurement) -> Iterator[RenderableType]:
    version = f" {one.engine_version}" if one.engine_version else ""
    yield f"{one.deployment.label} · {one.engine or 'a server of others'}{version} · {one.host.cpu} · {one.id[:12]}"
    load = one.workload
    yield (
        f"{load.repetitions} windows of {load.duration_s:g} s at each load · {load.input_len} tokens in, "
        f"{load.output_len} out ({load.length_control}) · seed {load.seed} · {one.created}"
    )
    yield table(["metric", "load", "measured [95 % interval]>", "n>"], [_cells(found) for found in _shown(one)])
    for reason in dict.fromkeys(_reasons(one)):
        yield f"  {reason}"
    flags = one.validity.flags
    yield f"{one.validity.verdict.upper()}" + (f" with {len(flags)} flags" if len(flags) > 1 else "")
    for flag in flags:
        yield f"  {flag.severity} {flag.code}: {flag.message} {flag.remedy}"


def _shown(one: Measurement) -> Iterator[Estimate]:
    for load in one.workload.points:
        here = [found for found in one.results if (found.concurrency, found.request_rate) == tuple(load)]
        for metric, statistic in SHOWN:
            chosen = [found for found in here if found.metric == metric and statistic in (None, found.statistic)]
            yield from (found for found in chosen[:1] if found.value is not None or metric.startswith("energy"))


def _cells(found: Estimate) -> list[str]:
    name = f"{found.metric} {found.statistic}" if found.statistic in ("p50", "p90", "p99") else found.metric
    measured = spread(found.value, found.low, found.high, found.unit)
    return [name, point(found.concurrency, found.request_rate), measured, "" if found.n is None else str(found.n)]


def _reasons(one: Measurement) -> Iterator[str]:
    """Why what is missing is missing, once each."""
    for found in one.results:
        if found.value is None and found.reason and found.metric == "energy_per_output_token":
            yield f"{found.metric}: {found.reason}"
