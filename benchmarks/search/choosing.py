"""Who chooses: the search, the search after the measurements that it asks for, and those that it is compared with."""

import math
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from benchmarks.search.frontiers import Configuration, Run
from benchmarks.search.questions import Question
from servolt.deployment import Deployment
from servolt.plan.known import KnownDeployments, KnownSpeed, conditions_of
from servolt.plan.search import Advice, Search, search
from servolt.plan.search_learnt import Learnt
from servolt.plan.search_limits import Constraints, Objective
from servolt.plan.search_space import LOADS, Candidate, Space
from servolt.workload import Slo, Workload

__all__ = ["Chosen", "by_devices", "by_noise", "by_search"]

MEASUREMENTS = 2
VERSION = "benchmark"


class Chosen(NamedTuple):
    """Places among the question's configurations, None where nothing is chosen: at first, and after each measurement
    that the search asked for."""

    places: Sequence[int | None]
    asked: int  # measurements that it asked for and got

    def after(self, measurements: int) -> int | None:
        return self.places[min(measurements, len(self.places) - 1)]


def by_search(question: Question, measurements: int = 0) -> Chosen:
    """With so many of the measurements that it asks for, one after the other."""
    known = KnownDeployments()
    answer = _searched(question, known)
    places = [_place(question, answer)]
    for _ in range(measurements):
        rows = [row for advice in answer.measure[:1] if (row := _measured(question, advice))]
        if not rows:
            break
        known = known.having(*rows)
        answer = _searched(question, known)
        places.append(_place(question, answer))
    return Chosen(places, len(places) - 1)


def by_noise(question: Question, spread: float, source: random.Random) -> int:
    """Who knows the truth but for an error of each configuration's times. A bound moves with them."""
    from benchmarks.search.frontiers import at_bound

    def worth(place: int) -> float:
        error = math.exp(source.gauss(0, spread))
        if question.bound is None:
            return question.worth[place] / error
        curves = question.configurations[place].curves.values()
        bound = question.bound / error
        return max(at_bound(bound, [(run.tpot, run.throughput) for run in curve]) for curve in curves) / error

    said = [worth(place) for place in range(len(question.worth))]
    return max(range(len(said)), key=lambda place: said[place])


def by_devices(question: Question) -> int:
    """The rule of thumb: the fewest devices for throughput, the most for latency; of those the fewest bits."""
    sign = -1 if question.kind == "latency" else 1
    places = range(len(question.worth))

    def order(place: int) -> tuple[int, float]:
        one = question.configurations[place]
        model = one.candidates[0].model
        return sign * one.devices, model.weights_bytes

    return min(places, key=order)


def _searched(question: Question, known: KnownDeployments) -> Search:
    frontier = question.frontier
    candidates = [candidate for one in question.configurations for candidate in one.candidates]
    first = candidates[0]
    space = Space(
        Deployment(model=frontier.family),
        first.model,
        [first.accelerator],
        loads=LOADS if question.streams is None else (),
    )
    workload = Workload(
        input_len=frontier.input_len, output_len=frontier.output_len, concurrency=(question.streams or 1,)
    )
    limits = Constraints(slo=Slo(tpot=question.bound)) if question.bound else None
    objective: Objective = "latency" if question.kind == "latency" else "throughput"
    learnt = Learnt(known, tool_version=VERSION)
    return search(space, workload, limits, objective=objective, learnt=learnt, candidates=candidates)


def _place(question: Question, answer: Search) -> int | None:
    """Where nothing keeps the bound as predicted, the nearest is taken: something has to run."""
    option = answer.choice or next(iter(answer.nearest), None)
    return None if option is None else _of(question, option.deployment)[0]


def _of(question: Question, deployment: Deployment) -> tuple[int, Candidate, Sequence[Run]]:
    return next(
        (place, candidate, curve)
        for place, one in enumerate(question.configurations)
        for candidate, curve in _versions(one)
        if candidate.deployment == deployment
    )


def _versions(one: Configuration) -> Iterator[tuple[Candidate, Sequence[Run]]]:
    return zip(one.candidates, one.curves.values(), strict=True)


def _measured(question: Question, advice: Advice) -> KnownSpeed | None:
    """What was measured of that configuration, at the load nearest to the one asked for."""
    _, candidate, curve = _of(question, advice.option.deployment)
    run = min(curve, key=lambda one: abs(math.log(one.concurrency / advice.option.concurrency)))
    return KnownSpeed(
        conditions=conditions_of(candidate.deployment, candidate.model, candidate.accelerator),
        metric="tpot",
        input_len=question.frontier.input_len,
        output_len=question.frontier.output_len,
        concurrency=run.concurrency,
        value=run.tpot,
        date="2026-11-28T00:00:00Z",
        tool_version=VERSION,
    )
