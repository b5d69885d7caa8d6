"""`servolt plan --against`: two plans, as people and as tables read them."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import RenderableType

from servolt.cli.output import Output
from servolt.cli.tables import labelled, point, quantity, spread, table
from servolt.plan import Plan
from servolt.plan.against import Advice, PlanComparison, PlannedChange, against

__all__ = ["show_against"]

# What a reader decides by; the document holds the rest.
SHOWN = (
    *("prefill_throughput", "output_throughput", "ttft", "tpot", "power", "energy_per_output_token"),
    *("cost_per_million_output_tokens", "carbon_per_million_output_tokens"),
)
PURPOSE = 37  # columns of the longest purpose and a gap


def show_against(first: Plan, other: Plan, out: Output) -> None:
    found = against(first, other)
    out.document(
        found,
        rows=list(_rows(found)),
        ids=[f"{one.take or 'either'} {one.purpose}" for one in found.advice],
        human=lambda: list(_shown(found)),
    )


COLUMNS = (
    *("row", "metric", "statistic", "concurrency", "request_rate", "unit", "first", "first_low", "first_high"),
    *("other", "other_low", "other_high", "change", "overlap", "verdict", "reason"),
)


def _rows(found: PlanComparison) -> Iterator[dict[str, Any]]:
    empty = dict.fromkeys(COLUMNS)
    yield {**empty, "row": "verdict", "first": found.verdicts[0], "other": found.verdicts[1]}
    for one in found.differs:
        yield {**empty, "row": "differs", "metric": one.field, "first": one.first, "other": one.other}
    for kind, changes in (("memory", found.memory), ("estimate", found.changes)):
        for change in changes:
            yield {**empty, "row": kind, **change.model_dump(mode="json", exclude={"basis"})}
    for advice in found.advice:
        yield {**empty, "row": "advice", "metric": advice.purpose, "verdict": _taken(advice), "reason": advice.why}


def _shown(found: PlanComparison) -> Iterator[RenderableType]:
    first, other = found.labels if found.labels[0] != found.labels[1] else ("first", "other")
    yield labelled("first", f"{found.labels[0]}: {found.verdicts[0]}")
    yield labelled("other", f"{found.labels[1]}: {found.verdicts[1]}")
    for one in found.differs:
        yield labelled("differs", f"{one.field}  {_fact(one.first)} → {_fact(one.other)}")
    for title, changes in (("memory of one device", found.memory), ("predicted", found.changes)):
        shown = changes if title != "predicted" else _chosen(found.changes)
        if shown:
            yield ""
            columns = [title, "load", f"{first}>", f"{other}>", "change>", "intervals", "verdict"]
            yield table(columns, [_cells(change) for change in shown])
    if found.advice:
        yield ""
    for advice in found.advice:
        yield labelled(advice.purpose, f"{_taken(advice)}: {advice.why}", PURPOSE)


def _chosen(changes: Sequence[PlannedChange]) -> list[PlannedChange]:
    """What a reader decides by; of latencies the median, where there is one."""
    medians = {one.metric for one in changes if one.statistic == "p50"}
    return [one for one in changes if one.metric in SHOWN and (one.statistic == "p50" or one.metric not in medians)]


def _cells(change: PlannedChange) -> list[str]:
    name = change.metric if change.statistic is None else f"{change.metric} {change.statistic}"
    values = [
        spread(change.first, change.first_low, change.first_high, change.unit),
        spread(change.other, change.other_low, change.other_high, change.unit),
    ]
    if change.first_low == change.first_high:
        values = [quantity(change.first, change.unit), quantity(change.other, change.unit)]
    percent = "" if change.change is None else f"{change.change * 100:+.1f} %"
    overlap = {True: "overlap", False: "apart", None: ""}[change.overlap]
    return [name, point(change.concurrency, change.request_rate), *values, percent, overlap, change.verdict or ""]


def _fact(value: Any) -> str:
    if value is None:
        return "not set"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _taken(advice: Advice) -> str:
    if advice.take is None:
        return "either"
    return f"the {advice.take}" if advice.sure else f"probably the {advice.take}"
