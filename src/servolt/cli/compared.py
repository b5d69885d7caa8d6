"""A comparison, as people read it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from servolt.cli.tables import labelled, point, quantity, spread, table
from servolt.compare import Change, Comparison, PredictedBesideMeasured

__all__ = ["comparison_rows", "comparison_shown", "verdict_lines"]

# What a reader decides by; the document holds the rest.
PREDICTED = ("prefill_throughput", "decode_throughput", "output_throughput", "ttft", "tpot", "resident_memory")


def comparison_rows(comparison: Comparison) -> list[dict[str, Any]]:
    return [change.model_dump(mode="json") for change in comparison.changes]


def verdict_lines(comparison: Comparison) -> list[str]:
    """For scripts: worse ttft c=4. What was not measured has no verdict."""
    labels = _labels(comparison)
    many = len(comparison.measurements) > 2
    return [
        " ".join(
            (
                change.verdict,
                change.metric,
                point(change.concurrency, change.request_rate),
                *([labels[change.other]] if many else []),
            )
        )
        for change in comparison.changes
        if change.value is not None and change.baseline_value is not None
    ]


def comparison_shown(comparison: Comparison, *, show_all: bool = False) -> list[RenderableType]:
    labels = _labels(comparison)
    baseline = comparison.measurements[0]
    parts: list[RenderableType] = []
    parts += [
        labelled("differs", f"{one.field}  " + " → ".join(_fact(value) for value in one.values))
        for one in comparison.differs
    ]
    same = ", ".join(comparison.same) if show_all else f"{len(comparison.same)} facts (--all names them)"
    parts.append(labelled("same", same))
    for other in comparison.measurements[1:]:
        changes = [change for change in comparison.changes if change.other == other]
        shown = [change for change in changes if change.value is not None or change.baseline_value is not None]
        columns = ["metric", "load", f"{labels[baseline]}>", f"{labels[other]}>", "change [95 % interval]>", "verdict"]
        parts += ["", table(columns, [_cells(change) for change in shown]), *_reasons(changes)]
    for one in comparison.measurements:
        predictions = _one_statistic_each([row for row in comparison.predictions if row.measurement == one])
        if predictions:
            parts += ["", _prediction_table(labels[one], predictions)]
    return parts + [labelled("caution", f"{problem.message} {problem.remedy}") for problem in comparison.warnings]


def _labels(comparison: Comparison) -> dict[str, str]:
    """By id: the deployment, with the id's first digits where one deployment was measured twice."""
    pairs = list(zip(comparison.measurements, comparison.labels, strict=True))
    return {one: label if comparison.labels.count(label) == 1 else f"{label} {one[:6]}" for one, label in pairs}


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


def _reasons(changes: Sequence[Change]) -> Iterator[RenderableType]:
    """Why something is undecided or missing, once each, and how many blocks would tell."""
    undecided = [change for change in changes if change.verdict == "undecided"]
    for reason in dict.fromkeys(change.reason for change in undecided):
        about = [change for change in undecided if change.reason == reason]
        needed = _names_by({_name(change): change.blocks_needed for change in about})
        counts = "; ".join(f"{count} for {', '.join(needed[count])}" for count in sorted(filter(None, needed)))
        if counts:
            yield labelled("undecided", f"{reason}. By the spread so far, these --repetitions would: about {counts}.")
        else:
            measured = any(change.value is not None and change.baseline_value is not None for change in about)
            yield labelled("undecided" if measured else "missing", f"{', '.join(map(_name, about))}: {reason}.")


def _name(change: Change) -> str:
    return f"{_metric(change.metric, change.statistic)} {point(change.concurrency, change.request_rate)}".strip()


def _names_by(counts: Mapping[str, int | None]) -> dict[int | None, list[str]]:
    found: dict[int | None, list[str]] = {}
    for name, count in counts.items():
        found.setdefault(count, []).append(name)
    return found


def _prediction_table(label: str, predictions: Sequence[PredictedBesideMeasured]) -> RenderableType:
    """Predicted beside measured. The deployment stands where its metrics do, which leaves room for them."""
    rows = [
        [
            _metric(one.metric, one.statistic),
            point(one.concurrency, one.request_rate),
            spread(one.predicted, one.predicted_low, one.predicted_high, one.unit),
            quantity(one.measured, one.unit),
            "" if one.error is None else f"{one.error * 100:+.0f} %",
            "" if one.inside is None else "inside" if one.inside else "outside",
        ]
        for one in predictions
    ]
    return table([label, "load", "predicted [90 % interval]>", "measured>", "error>", "interval"], rows)


def _one_statistic_each(predictions: Sequence[PredictedBesideMeasured]) -> list[PredictedBesideMeasured]:
    """Of each metric, the median of latencies where there is one."""
    chosen: dict[tuple[str, int | None, float | None], PredictedBesideMeasured] = {}
    for one in predictions:
        key = (one.metric, one.concurrency, one.request_rate)
        if one.metric in PREDICTED and (key not in chosen or one.statistic == "p50"):
            chosen[key] = one
    return list(chosen.values())
