"""How well one and two measured points correct the others, with the correction's constants fitted without them.

    python -m tools.planner.correction --cases DIR [--models DIR] [--folds 4]

Groups of (model family, device) are left out in turn: the constants of `servolt.plan.correction` (`Ties`) are searched
on the other groups, and the error is that on the ones left out. The law itself is the shipped one. A deployment's
lowest load is handed over, or its lowest and highest, and the others are scored, as in `benchmarks.planner`; and, which
depends on no choice, each load in turn.
"""

import argparse
import math
import os
import random
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.planner.cases import Case, speed_cases
from benchmarks.planner.names import Configs
from servolt.errors import ServoltError
from servolt.library import plan
from servolt.plan.adjustment import Adjustment, At, adjustment
from servolt.plan.correction import FIRST_TOKENS, TIMES, KnownPoint, Ties
from servolt.plan.loads import LoadPlanner
from servolt.workload import Workload

METRICS = ("tpot", "ttft")
TRIES = 30  # sets of constants that are tried for each fold, seeded
# Around the shipped constants, each is drawn from this factor below to this factor above.
AROUND = 3.0


class Run(NamedTuple):
    """One measured load of one deployment."""

    deployment: str
    group: tuple[str, str]  # family, device
    at: At
    factors: Mapping[str, tuple[float, float]]
    seen: Mapping[str, float]
    workload: Workload


Errors = Mapping[str, Sequence[float]]  # by metric: logarithms of predicted over measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, required=True)
    parser.add_argument("--models", type=Path, action="append", default=[])
    parser.add_argument("--folds", type=int, default=4)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"SERVOLT_HOME": home, "HF_HUB_OFFLINE": "1"}
        runs = list(read_runs(asked.cases, Configs(*asked.models, asked.cases / "models")))
    report(runs, asked.folds)


def report(runs: Sequence[Run], folds: int) -> None:
    groups = sorted({run.group for run in runs})
    print(f"{len(runs)} runs of {len({run.deployment for run in runs})} deployments in {len(groups)} groups")
    shipped = {"tpot": TIMES, "ttft": FIRST_TOKENS}
    _line("as predicted", errors(runs, shipped, lambda some: [((), some)]))
    for name, choose in CHOICES.items():
        _line(f"{name}, shipped", errors(runs, shipped, choose))
        _line(f"{name}, constants without the group", _left_out(runs, groups, folds, choose))


def _left_out(
    runs: Sequence[Run], groups: Sequence[tuple[str, str]], folds: int, choose: "Choice"
) -> dict[str, list[float]]:
    order = list(groups)
    random.Random(0).shuffle(order)
    found: dict[str, list[float]] = {metric: [] for metric in METRICS}
    for fold in range(folds):
        out = set(order[fold::folds])
        others = [run for run in runs if run.group not in out]
        here = [run for run in runs if run.group in out]
        best = {metric: _fitted(others, metric, choose) for metric in METRICS}
        print(f"  fold {fold}: {best}", file=sys.stderr)
        for metric, some in errors(here, best, choose).items():
            found[metric] += some
    return found


def _fitted(runs: Sequence[Run], metric: str, choose: "Choice") -> Ties:
    shipped = {"tpot": TIMES, "ttft": FIRST_TOKENS}
    draw = random.Random(1)
    tried = [shipped[metric], *(_around(shipped[metric], draw) for _ in range(TRIES))]
    return min(tried, key=lambda ties: _cost(errors(runs, {**shipped, metric: ties}, choose, (metric,))[metric]))


def _around(ties: Ties, draw: random.Random) -> Ties:
    return Ties(*(value * math.exp(draw.uniform(-1, 1) * math.log(AROUND)) for value in ties))


def _cost(found: Sequence[float]) -> float:
    """Mean absolute error of the logarithm: between the median, which ignores the worst, and the square."""
    return sum(map(abs, found)) / max(1, len(found))


def _line(title: str, found: Errors) -> None:
    parts = []
    for metric in METRICS:
        shares = sorted(abs(math.expm1(one)) for one in found[metric])
        if shares:
            middle, p90 = statistics.median(shares), shares[int(0.9 * (len(shares) - 1))]
            parts.append(f"{metric} {middle:6.1%} p90 {p90:6.1%} n {len(shares):5}")
    print(f"{title:42} {'   '.join(parts)}", flush=True)


Choice = Callable[[Sequence[Run]], Iterable[tuple[Sequence[Run], Sequence[Run]]]]  # known, and those to be predicted


def _lowest(runs: Sequence[Run]) -> Iterator[tuple[Sequence[Run], Sequence[Run]]]:
    if len({run.workload.concurrency for run in runs}) > 1:
        yield runs[:1], runs[1:]


def _ends(runs: Sequence[Run]) -> Iterator[tuple[Sequence[Run], Sequence[Run]]]:
    if len({run.workload.concurrency for run in runs}) > 2:
        yield (runs[0], runs[-1]), runs[1:-1]


def _any_one(runs: Sequence[Run]) -> Iterator[tuple[Sequence[Run], Sequence[Run]]]:
    """Of long curves five loads, evenly."""
    for place in range(0, len(runs), max(1, len(runs) // 5)):
        yield (runs[place],), [run for run in runs if run is not runs[place]]


CHOICES: Mapping[str, Choice] = {"after the lowest": _lowest, "after both ends": _ends, "after any one": _any_one}


def errors(
    runs: Sequence[Run], ties: Mapping[str, Ties], choose: Choice, metrics: Sequence[str] = METRICS
) -> dict[str, list[float]]:
    by: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by[run.deployment].append(run)
    found: dict[str, list[float]] = {metric: [] for metric in METRICS}
    nothing = _learnt(runs[0], (), ties) if runs else None
    for some in by.values():
        ordered = sorted(some, key=lambda run: run.workload.concurrency)
        for known, others in choose(ordered):
            learnt = _learnt(ordered[0], known, ties) if known else nothing
            assert learnt is not None
            for run in others:
                state = learnt.state(run.at)
                for metric in metrics:
                    if metric in run.seen:
                        found[metric].append(math.log(getattr(state, metric) / run.seen[metric]))
    return found


def _learnt(one: Run, known: Sequence[Run], ties: Mapping[str, Ties]) -> Adjustment:
    loads = {run.workload: run.at for run in known}
    points = [
        KnownPoint(metric=metric, workload=run.workload, value=value)
        for run in known
        for metric, value in run.seen.items()
    ]
    return adjustment(
        points, loads.get, lambda metric: one.factors[metric], ties=lambda name: ties.get(name, ties["tpot"])
    )


def read_runs(folder: Path, configs: Configs) -> Iterator[Run]:
    for case in speed_cases(folder, configs):
        if (
            case.key
            and case.kind == "agg"
            and not case.trap
            and "tpot" in case.seen
            and "concurrency" in (case.workload or {})
        ):
            run = _run(case)
            if run is not None:
                yield run


def _run(case: Case) -> Run | None:
    try:
        made = plan(case.deployment, case.workload)
    except ServoltError:
        return None
    planner = LoadPlanner(
        made.deployment, made.model, made.accelerator, made.workload, made.memory, None, made.workload.slo
    )
    seen = {metric: case.seen[metric] for metric in METRICS if case.seen.get(metric)}
    group = (made.model.architecture or made.model.name, made.accelerator.name)
    return Run(
        case.key,
        group,
        planner.load(made.workload.points[0]).at,
        {metric: planner.factors(metric) for metric in (*METRICS, "prefill_throughput", "itl", "power")},
        seen,
        made.workload,
    )


if __name__ == "__main__":
    main()
