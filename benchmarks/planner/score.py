"""Errors of plans against what was seen, by class."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.planner.cases import Case
from servolt.plan import Plan

__all__ = ["Error", "Row", "errors_of", "quantile", "rank_correlation", "rows"]

RANK_FIGURES = ("weights_bytes", "activation_bytes", "graph_bytes", "overhead_bytes", "kv_cache_bytes", "state_bytes")
WHOLE_FIGURES = ("kv_cache_tokens", "max_concurrency")
FEWEST = 5  # cases of a class before its percentiles are worth a line
ROUNDING = 1e-3  # of what logs round, for what must be exact

Interval = tuple[float | None, float | None, float | None]
NOTHING: Interval = (None, None, None)


class Error(NamedTuple):
    """Of one figure of one case; `value` is what was predicted, None where there was no prediction."""

    case: Case
    figure: str
    seen: float
    value: float | None
    low: float | None
    high: float | None

    @property
    def ratio(self) -> float | None:
        return None if self.value is None else self.value / self.seen

    @property
    def size(self) -> float:
        return math.inf if self.ratio is None else abs(self.ratio - 1)

    @property
    def inside(self) -> bool | None:
        if self.low is None or self.high is None:
            return None
        return self.low <= self.seen * (1 + ROUNDING) and self.seen <= self.high * (1 + ROUNDING)


class Row(NamedTuple):
    """One line of the table."""

    figure: str
    name: str
    cases: int
    refused: int
    median: float | None
    mean: float | None
    p90: float | None
    bias: float | None
    inside: float | None


def errors_of(case: Case, plan: Plan | None) -> list[Error]:
    """`plan` is None where the planner refused."""
    found = ((figure, seen, _predicted(figure, plan)) for figure, seen in case.seen.items())
    return [Error(case, figure, seen, *interval) for figure, seen, interval in found]


def rows(errors: Iterable[Error], *, all_classes: bool) -> list[Row]:
    """Worst class first within each figure."""
    by: dict[tuple[str, str], list[Error]] = defaultdict(list)
    for error in errors:
        by[error.figure, "all"].append(error)
        for cls in error.case.classes if all_classes else ():
            by[error.figure, cls].append(error)
    found = [_row(figure, cls, some) for (figure, cls), some in by.items() if len(some) >= FEWEST or cls == "all"]
    return sorted(found, key=lambda row: (row.figure, row.name != "all", -(row.median or 0.0)))


def _predicted(figure: str, plan: Plan | None) -> Interval:
    if plan is None:
        return NOTHING
    memory = plan.memory
    if figure in RANK_FIGURES:
        return _of_rank(figure, plan)
    if figure in WHOLE_FIGURES:
        value, low, high = (float(getattr(memory, f"{figure}{end}")) for end in ("", "_low", "_high"))
        return value, low, high
    if figure == "total_bytes":
        rank = memory.fullest
        return float(rank.total_bytes), float(rank.low_bytes), float(rank.high_bytes)
    found = plan.predictions.get(figure)
    return NOTHING if found is None or found.value is None else (found.value, found.low, found.high)


def _of_rank(figure: str, plan: Plan) -> Interval:
    """What a log says is of its first rank. llama.cpp's is told as the sum over unequal devices and the host."""
    memory = plan.memory
    name = figure.removesuffix("_bytes")
    terms = [(rank.terms[name], rank.ranks) for rank in memory.per_rank]  # type: ignore[index]
    devices = [rank.terms[name] for rank in memory.per_rank if rank.rank != "host"]  # type: ignore[index]
    if memory.pooled and name == "kv_cache":
        # The pool is what the other terms leave: it is as sure as its tokens are.
        value = float(devices[0].bytes)
        tokens = max(memory.kv_cache_tokens, 1)
        return value, value * memory.kv_cache_tokens_low / tokens, value * memory.kv_cache_tokens_high / tokens
    if memory.pooled:
        return float(devices[0].bytes), float(devices[0].low), float(devices[0].high)
    if name in ("weights", "kv_cache", "state"):
        value, low, high = (
            sum(getattr(term, key) * count for term, count in terms) for key in ("bytes", "low", "high")
        )
        return float(value), float(low), float(high)
    largest = max(devices or [term for term, _ in terms], key=lambda term: term.bytes)
    return float(largest.bytes), float(largest.low), float(largest.high)


def _row(figure: str, cls: str, errors: Sequence[Error]) -> Row:
    answered = sorted(error.size for error in errors if error.ratio is not None)
    inside = [error.inside for error in errors if error.inside is not None]
    logs = [math.log(error.ratio) for error in errors if error.ratio]
    return Row(
        figure,
        cls,
        len(errors),
        len(errors) - len(answered),
        quantile(answered, 0.5),
        sum(answered) / len(answered) if answered else None,
        quantile(answered, 0.9),
        math.expm1(sum(logs) / len(logs)) if logs else None,
        sum(inside) / len(inside) if inside else None,
    )


def quantile(values: Iterable[float], share: float) -> float | None:
    """Between neighbours in a straight line; None of nothing.

    >>> quantile([3, 1, 2], 0.5), quantile([], 0.5)
    (2.0, None)
    """
    ordered = sorted(values)
    if not ordered:
        return None
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    if math.isinf(ordered[above]):
        return float(ordered[below] if place == below else math.inf)
    return float(ordered[below] + (ordered[above] - ordered[below]) * (place - below))


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's, without a care for ties; None of fewer than three.

    >>> rank_correlation([(1, 10), (2, 30), (3, 20)])
    0.5
    """
    if len(pairs) < 3:
        return None
    ranks = np.argsort(np.argsort(np.array(pairs), axis=0), axis=0)
    return round(float(np.corrcoef(ranks[:, 0], ranks[:, 1])[0, 1]), 6)
