"""What users ask of a search, put to measured configurations: which is the best, and how much worse is the choice."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from benchmarks.search.frontiers import Configuration, Frontier, at_bound

__all__ = ["BOUNDS", "QUESTIONS", "Question", "questions_of"]

BOUNDS = (0.2, 0.4, 0.6, 0.8)  # quantiles of the measured times per token
# Kinds of questions, in words.
QUESTIONS: Mapping[str, str] = {
    "bound": "most tokens/s of a device within a bound on the time per token",
    "load": "most tokens/s of a device at a number of streams",
    "latency": "fastest answer at a number of streams",
}


class Question(NamedTuple):
    """`worth` is what each of the configurations was measured to give: 0 where it breaks the bound."""

    kind: str
    frontier: Frontier
    configurations: Sequence[Configuration]
    worth: Sequence[float]
    bound: float | None = None  # seconds of a token
    streams: int | None = None

    @property
    def best(self) -> int:
        return max(range(len(self.worth)), key=lambda place: self.worth[place])

    def regret(self, chosen: int | None) -> float | None:
        """The share that the choice gives less than the best; None where it breaks the bound, or nothing is chosen."""
        if chosen is None or not self.worth[chosen]:
            return None
        return 1 - self.worth[chosen] / self.worth[self.best]


def questions_of(frontier: Frontier) -> Iterator[Question]:
    yield from _within_bounds(frontier)
    yield from _at_loads(frontier)


def _within_bounds(frontier: Frontier) -> Iterator[Question]:
    """Configurations whose runs end below the bound are left out: what they give at it was not measured."""
    times = sorted(run.tpot for run in frontier.runs)
    for quantile in BOUNDS:
        bound = times[int(quantile * (len(times) - 1))]
        able = [one for one in frontier.configurations if max(run.tpot for run in one.runs) >= bound]
        worth = [_at(bound, one) for one in able]
        if len(able) > 1 and any(worth):
            yield Question("bound", frontier, able, worth, bound=bound)


def _at(bound: float, one: Configuration) -> float:
    return max(at_bound(bound, [(run.tpot, run.throughput) for run in curve]) for curve in one.curves.values())


def _at_loads(frontier: Frontier) -> Iterator[Question]:
    kinds: Mapping[str, Callable[[float, float], float]] = {
        "load": lambda throughput, e2el: throughput,
        "latency": lambda throughput, e2el: 1 / e2el,
    }
    for streams in sorted({run.concurrency for run in frontier.runs}):
        here = [(one, [run for run in one.runs if run.concurrency == streams]) for one in frontier.configurations]
        able = [(one, runs) for one, runs in here if runs]
        for kind, worth_of in kinds.items() if len(able) > 1 else ():
            worth = [max(worth_of(run.throughput, run.e2el) for run in runs) for _, runs in able]
            yield Question(kind, frontier, [one for one, _ in able], worth, streams=streams)
