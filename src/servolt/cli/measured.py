"""Measurements, as people read them."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import RenderableType

from servolt.cli.tables import point, quantity, spread, table
from servolt.measurement import Measurement
from servolt.metrics import Estimate

__all__ = ["measurement_rows", "measurements_shown"]

# In the order in which people ask; the document holds the rest. ALWAYS: shown, with the reason, where it has no value.
ALWAYS = (("output_throughput", None), ("ttft", "p50"), ("energy_per_output_token", None))
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
EVIDENCE = {
    "foreign_processors": "other programs took {} of the processors",
    "client_core": "the load client took {} of a core",
    "send_lag_p99_s": "requests left {} late (p99)",
    "receive_lag_p99_s": "events were read {} late (p99), which the kernel's stamps take out",
    "events_read_together": "{} of them were read with the next, and have its time",
    "first_tokens_seen_late_s": "first tokens have a time that is {} late by the engine's clock",
}


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
    load, natural = one.workload, one.workload.length_control == "natural"
    lengths = f"{load.input_len} tokens in, {load.output_len} out"
    if natural:  # words are drawn, and what they are in tokens is the model's business
        lengths = f"{load.input_len} words in and the chat template, at most {load.output_len} tokens out"
    windows = f"{load.repetitions} windows of {load.duration_s:g} s at each load"
    yield f"{windows} · {lengths} · seed {load.seed} · {one.created}"
    yield table(["metric", "load", "measured [95 % interval]>", "n>"], [_cells(found) for found in _shown(one)])
    for reason in dict.fromkeys(_reasons(one)):
        yield f"  {reason}"
    flags = one.validity.flags
    yield f"{one.validity.verdict.upper()}" + (f" with {len(flags)} flags" if len(flags) > 1 else "")
    for flag in flags:
        yield f"  {flag.severity} {flag.code}: {flag.message} {flag.remedy}"
    if told := list(_evidence(one)):
        yield f"At worst in a window: {'; '.join(told)}."


def _evidence(one: Measurement) -> Iterator[str]:
    for name, words in EVIDENCE.items():
        if name in one.validity.evidence:
            yield words.format(quantity(one.validity.evidence[name], "s" if name.endswith("_s") else "share"))


def _shown(one: Measurement) -> Iterator[Estimate]:
    for load in one.workload.points:
        here = [found for found in one.results if (found.concurrency, found.request_rate) == tuple(load)]
        for metric, statistic in SHOWN:
            of_metric = [found for found in here if found.metric == metric]
            known = [found for found in of_metric if found.value is not None and statistic in (None, found.statistic)]
            missing = (metric, statistic) in ALWAYS and all(found.value is None for found in of_metric)
            yield from (known or (of_metric if missing else []))[:1]


def _cells(found: Estimate) -> list[str]:
    name = f"{found.metric} {found.statistic}" if found.statistic in ("p50", "p90", "p99") else found.metric
    measured = spread(found.value, found.low, found.high, found.unit)
    return [name, point(found.concurrency, found.request_rate), measured, "" if found.n is None else str(found.n)]


def _reasons(one: Measurement) -> Iterator[str]:
    """Why what is shown is missing, or what it rests on, once each."""
    for found in _shown(one):
        if found.reason:
            yield f"{found.metric}: {found.reason}"
