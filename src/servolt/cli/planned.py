"""A plan, as people and as tables read it."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType

from servolt.cli.tables import labelled, point, spread, table, terminal_width
from servolt.document import Problem
from servolt.metrics import Estimate
from servolt.plan import Plan
from servolt.units import format_bytes

__all__ = ["plan_rows", "plan_shown"]

# What a reader decides by; the document holds the rest.
SHOWN = (
    *("prefill_throughput", "decode_throughput", "output_throughput", "ttft", "tpot"),
    *("ttft p99", "tpot p99", "e2el p99", "preemptions", "slo_attainment", "request_goodput"),
    *(
        "utilisation",
        "power",
        "idle_energy_share",
        "energy_per_output_token",
        "cost_per_million_output_tokens",
        "carbon_per_million_output_tokens",
    ),
)
OPEN_ONLY = ("utilisation", "idle_energy_share")
ONCE = ("load_time", "saturation_concurrency", "saturation_request_rate", "kv_concurrency")  # the same at every load
BAR, SHORT_BAR = 44, 12  # characters for the whole of the memory
WIDE = 100  # columns of a terminal, from which the long bar has room
HEADLINES = {"fits": "FITS", "tight": "TIGHT", "no": "DOES NOT FIT", "unknown": "NOT KNOWN"}
# Of an estimate; how its interval was obtained is the same for all and stands in the document.
COLUMNS = ("statistic", "concurrency", "request_rate", "value", "low", "high", "unit", "basis", "n", "reason")


def plan_rows(plan: Plan) -> list[dict[str, Any]]:
    """The verdict first, then where the memory goes, what would save some, the estimates, and what to heed."""
    memory = plan.memory
    bounds = {"value": memory.total_bytes, "low": memory.low_bytes, "high": memory.high_bytes, "unit": "bytes"}
    rows = [_row("verdict", plan.verdict, **bounds, reason=" ".join(plan.reasons))]
    rows += [
        _row(
            "memory",
            f"{rank.rank} {name}" if len(memory.per_rank) > 1 else name,
            value=term.bytes,
            low=term.low,
            high=term.high,
            unit="bytes",
            basis=term.basis,
            reason=term.formula,
        )
        for rank in memory.per_rank
        for name, term in rank.terms.items()
        if term.high
    ]
    rows.append(_row("memory", "available", value=memory.available_bytes, unit="bytes", reason="free now"))
    rows += [
        _row("fix", _words(fix.change), value=fix.total_bytes, unit="bytes", reason=fix.text) for fix in plan.fixes
    ]
    rows += [
        _row("estimate", one.metric, **one.model_dump(mode="json", include=set(COLUMNS))) for one in plan.estimates
    ]
    rows += [_row("plugin", name, **figure.model_dump(mode="json")) for name, figure in plan.of_plugins.items()]
    return rows + [_row(one.severity, one.code, reason=f"{one.message} {one.remedy}") for one in plan.problems]


def _row(kind: str, metric: str, **cells: Any) -> dict[str, Any]:
    return {"row": kind, "metric": metric, **{column: cells.get(column) for column in COLUMNS}}


def _words(change: Mapping[str, str | int | float | bool]) -> str:
    return " ".join(f"{name}={value}" for name, value in change.items())


def plan_shown(plan: Plan) -> list[RenderableType]:
    # What an engine refuses stands first: that the memory would do is no use then.
    refused = [labelled("CAN'T RUN", _said(problem)) for problem in plan.problems if problem.severity == "error"]
    parts: list[RenderableType] = [_head(plan), *refused, *_memory(plan), "", *_speed(plan)]
    if "power" not in plan.predictions:
        parts.append(labelled("energy", "not predicted: no power of this machine was measured"))
    for name, one in plan.of_plugins.items():
        said = spread(one.value, one.low, one.high, one.unit) if one.value is not None else "not predicted"
        parts.append(labelled("plug-in", f"{name}: {said}{f' ({one.reason})' if one.reason else ''}"))
    parts += [labelled("bottleneck", _bottleneck(plan)), labelled("basis", plan.calibration)]
    parts += [labelled(one.severity, _said(one)) for one in plan.problems if one.severity != "error"]
    if plan.command is not None and plan.verdict != "no":
        parts += ["", f"Run it:     servolt serve {_arguments(plan)}"]
    if plan.command is not None:
        parts += [f"Export:     servolt plan {_arguments(plan)} --export shell"]
    return parts


def _said(problem: Problem) -> str:
    return f"{problem.message} {problem.remedy}"


def _arguments(plan: Plan) -> str:
    """The deployment as this command line takes it, quoted for a shell."""
    deployment = plan.deployment
    words = [deployment.label]
    apart = {"schema_", "model", "quantization", "hardware"}
    if hardware := deployment.hardware:
        words += ["--accelerator", hardware.accelerator] if hardware.accelerator else []
        words += ["--count", str(hardware.count)] if hardware.count > 1 else []
    for name, value in deployment.model_dump(exclude=apart, exclude_none=True).items():
        if isinstance(value, dict | list | tuple):
            continue  # it has no flag: such a deployment is a file
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        elif (name, value) != ("engine", "llamacpp"):
            words += [flag, str(value)]
    return shlex.join(words)


def _head(plan: Plan) -> str:
    version = f" {plan.engine_version}" if plan.engine_version else ""
    machine, deployment = plan.accelerator, plan.deployment
    named = deployment.label if deployment.quantization else f"{deployment.label} · {plan.model.quantization}"
    if plan.threads is None:
        return f"{named} · {deployment.engine}{version} · {machine.count} x {machine.name}"
    many = f"{_many(machine.count, 'core')}, {_many(plan.threads, 'thread')}"
    return f"{named} · {deployment.engine}{version} · {machine.name}, {many}"


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _memory(plan: Plan) -> Iterator[RenderableType]:
    yield labelled(HEADLINES[plan.verdict], " ".join(plan.reasons))
    memory = plan.memory
    bar = BAR if terminal_width() >= WIDE else SHORT_BAR
    rows = [
        [name, format_bytes(term.bytes), "█" * round(bar * term.bytes / memory.total_bytes), term.formula]
        for name, term in memory.fullest.terms.items()
        if term.high
    ]
    yield table(["  part", "size>", "", "from"], [[f"  {row[0]}", *row[1:]] for row in rows])
    each = f"{memory.kv_bytes_per_token:,} B for each token"
    if memory.pooled:
        held = f"{memory.kv_cache_tokens:,} tokens [{memory.kv_cache_tokens_low:,}, {memory.kv_cache_tokens_high:,}]"
        yield labelled(
            "  KV cache",
            f"{each}; {held}: {memory.max_concurrency:.1f} requests of {memory.max_model_len:,} tokens at once",
        )
    else:
        each += f"; {_many(memory.max_num_seqs, 'sequence')} of {memory.max_model_len:,} tokens"
        yield labelled("  KV cache", each)
    for fix in plan.fixes:
        yield labelled("  fix", fix.text)


def _speed(plan: Plan) -> Iterator[RenderableType]:
    asked = plan.workload
    lengths = f"{asked.input_len} tokens in, {asked.output_len} out"
    if asked.input_lengths or asked.output_lengths or asked.trace:
        lengths += " on average"
    rows = []
    for load in plan.workload.points:
        here = [one for one in plan.estimates if (one.concurrency, one.request_rate) == tuple(load)]
        # A closed loop is never without work, so only an open one has a share to tell.
        shown = [metric for metric in SHOWN if load.request_rate is not None or metric not in OPEN_ONLY]
        chosen = [found for metric in shown if (found := _chosen(here, metric)) is not None]
        rows += [[_named(found), point(*load), _predicted(found), found.basis] for found in chosen]
    for metric in ONCE:
        if (once := next((one for one in plan.estimates if one.metric == metric), None)) is not None:
            rows.append([metric, "any", _predicted(once), once.basis])
    level = next((one.level for one in plan.estimates if one.level), 0.9)
    yield table([f"speed at {lengths}", "load", f"predicted [{level:.0%} interval]>".replace("%", " %"), "basis"], rows)


def _chosen(here: list[Estimate], metric: str) -> Estimate | None:
    """The median of latencies, where there is one."""
    metric, _, statistic = metric.partition(" ")
    named = [one for one in here if one.metric == metric]
    if statistic:
        return next((one for one in named if one.statistic == statistic), None)
    return next((one for one in named if one.statistic == "p50"), named[0] if named else None)


def _named(found: Estimate) -> str:
    return f"{found.metric} {found.statistic}" if found.statistic in ("p50", "p99") else found.metric


def _predicted(found: Estimate) -> str:
    if found.value is None:
        return f"not predicted: {(found.reason or '').partition(':')[0]}"  # the rest stands among the problems
    return spread(found.value, found.low, found.high, found.unit)


def _bottleneck(plan: Plan) -> str:
    if not plan.step:
        return plan.bottleneck
    first, *others = sorted(plan.step, key=lambda term: -term.seconds)[:3]
    then = ", ".join(f"{term.name} {term.share * 100:.0f} %" for term in others)
    at = f"{first.name}, {first.share * 100:.0f} % of a decode step at {plan.workload.points[0]}"
    return f"{at}; then {then}" if then else at
