"""A comparison, as people read it."""

from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from servolt.cli.tables import point, quantity, spread, table
from servolt.compare import Change, Comparison, PredictedBesideMeasured

__all__ = ["comparison_rows", "comparison_shown", "prediction_table"]

# What a reader decides by; the document holds the rest.
PREDICTED = ("prefill_throughput", "decode_throughput", "output_throughput", "ttft", "tpot", "resident_memory")


def comparison_rows(comparison: Comparison) -> list[dict[str, Any]]:
    return [change.model_dump(mode="json") for change in comparison.changes]


def comparison_shown(comparison: Comparison, *, show_all: bool = False) -> list[RenderableType]:
    labels = dict(zip(comparison.measurements, comparison.labels, strict=True))
    baseline = comparison.measurements[0]
    parts: list[RenderableType] = []
    parts += [
        f"differs: {one.field}  " + " → ".join(_fact(value) for value in one.values) for one in comparison.differs
    ]
    parts.append(
        f"same:    {', '.join(comparison.same)}" if show_all else f"same:    {len(comparison.same)} facts (--all)"
    )
    for other in comparison.measurements[1:]:
        changes = [change for change in comparison.changes if change.other == other]
        shown = [change for change in changes if change.value is not None or change.baseline_value is not None]
        columns = ["metric", "load", f"{labels[baseline]}>", f"{labels[other]}>", "change [95 % interval]>", "verdict"]
        parts += ["", table(columns, [_cells(change) for change in shown]), *_reasons(changes)]
    if comparison.predictions:
        parts += ["", prediction_table(comparison.predictions)]
    parts += [f"caution: {problem.message} {problem.remedy}" for problem in comparison.warnings]
    return parts


def _fact(value: Any) -> str:
    return "not set" if value is None else str(value)


def _cells(change: Change) -> list[str]:
    return [
        _metric(change.metric, change.statistic),
        point(change.concurrency, change.request_rate),
        quantity(change.baseline_value, change.unit),
        quantity(change.value, change.unit),
        _percent(change),
        change.verdict,
    ]


def _metric(metric: str, statistic: str | None) -> str:
    """The mean is what people expect where nothing is said."""
    return f"{metric} {statistic}" if statistic not in (None, "mean", "max") else metric


def _percent(change: Change) -> str:
    if change.change is None:
        return ""
    middle = f"{change.change * 100:+.1f} %"
    if change.change_low is None or change.change_high is None:
        return middle
    return f"{middle} [{change.change_low * 100:+.1f}, {change.change_high * 100:+.1f}]"


def _reasons(changes: Sequence[Change]) -> list[str]:
    """Why something is undecided or missing, once each."""
    said: dict[str, list[str]] = {}
    for change in changes:
        if change.verdict == "undecided":
            said.setdefault(change.reason, []).append(
                f"{_metric(change.metric, change.statistic)} {point(change.concurrency, change.request_rate)}"
            )
    return [f"  {', '.join(names)}: {reason}" for reason, names in said.items()]


def prediction_table(predictions: Sequence[PredictedBesideMeasured]) -> Table:
    """Predicted beside measured: one statistic of each metric, the median of latencies where there is one."""
    rows = [
        [
            one.label,
            _metric(one.metric, one.statistic),
            point(one.concurrency, one.request_rate),
            spread(one.predicted, one.predicted_low, one.predicted_high, one.unit),
            quantity(one.measured, one.unit),
            "" if one.error is None else f"{one.error * 100:+.0f} %",
            "" if one.inside is None else "inside" if one.inside else "outside",
        ]
        for one in _one_statistic_each(predictions)
    ]
    columns = ["deployment", "metric", "load", "predicted [90 % interval]>", "measured>", "error>", "interval"]
    return table(columns, rows)


def _one_statistic_each(predictions: Sequence[PredictedBesideMeasured]) -> list[PredictedBesideMeasured]:
    chosen: dict[tuple[str, str, int | None, float | None], PredictedBesideMeasured] = {}
    for one in predictions:
        key = (one.measurement, one.metric, one.concurrency, one.request_rate)
        if one.metric in PREDICTED and (key not in chosen or one.statistic == "p50"):
            chosen[key] = one
    return list(chosen.values())
