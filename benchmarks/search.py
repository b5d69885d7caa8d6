"""Does the search choose what was measured to be best: `python -m benchmarks.search --cases DIR [--models DIR]`.

Runs of one model on one kind of device with the same lengths are a frontier: engines, formats, numbers of devices and
concurrencies. A configuration gives so many output tokens/s per device at a bound on the time per token: between two
of its loads it is interpolated. The planner chooses a configuration by its predictions at the bound. Its regret is what
that one was measured to give less than the best; a choice that was never measured to keep the bound counts as broken.

The time of a search over 10,000 configurations is printed beside it, as processor seconds of one core.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from servolt.catalogue import accelerators, find_model_entry, prices
from servolt.deployment import Deployment
from servolt.plan.cost import Economy
from servolt.plan.roofline import RooflineLaw, roofline_of
from servolt.plan.search import search
from servolt.plan.search_space import Space
from servolt.plan.steady import steady
from servolt.workload import Workload
from tools.planner.cases import Case, read_cases

LEAST_RUNS, LEAST_DEPLOYMENTS = 8, 2  # of a frontier
BOUNDS = (0.2, 0.4, 0.6, 0.8)  # quantiles of the measured times per token
GOAL = 0.05


class Run(NamedTuple):
    tpot: float
    throughput: float  # output tokens/s of one device
    predicted_tpot: float
    predicted_throughput: float
    deployment: tuple[object, ...]


class Choice(NamedTuple):
    frontier: tuple[object, ...]
    bound: float
    regret: float | None  # None where the chosen one breaks the bound, or none was chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=Path, required=True, help="folder of reference cases")
    parser.add_argument("--models", type=Path, help="folder of config files; default: models inside the cases")
    asked = parser.parse_args()
    choices = [
        choice
        for name, runs in frontiers(read_cases(asked.cases, asked.models or asked.cases / "models")).items()
        for choice in chosen(name, runs)
    ]
    good = sum(one.regret is not None and one.regret <= GOAL for one in choices)
    broken = sum(one.regret is None for one in choices)
    regrets = sorted(one.regret for one in choices if one.regret is not None)
    print(f"{len({one.frontier for one in choices})} frontiers, {len(choices)} bounds")
    if choices:
        share = good / len(choices)
        print(f"within {GOAL:.0%} of the best measured: {share:.0%}; bound broken: {broken / len(choices):.0%}")
    if regrets:
        print(f"regret: median {regrets[len(regrets) // 2]:.1%}, P90 {regrets[len(regrets) * 9 // 10]:.1%}")
    number, seconds = timed()
    print(f"{number:,} configurations in {seconds:.1f} s: {10_000 / number * seconds:.1f} s for 10,000")


def frontiers(cases: Iterator[Case]) -> dict[tuple[object, ...], list[Run]]:
    found: dict[tuple[object, ...], list[Run]] = defaultdict(list)
    laws: dict[tuple[object, ...], RooflineLaw] = {}
    for case in cases:
        if case.kind not in ("closed", "steady") or case.flags or not case.tpot or not case.ttft:
            continue
        deployment = case.deployment
        key = (case.model.name, case.precision, case.accelerator.name, deployment.digest)
        if key not in laws:
            laws[key] = roofline_of(deployment, case.model, case.accelerator)
        state = steady(laws[key], input_len=case.input_len, output_len=case.output_len, concurrency=case.concurrency)
        request_s = case.ttft + (case.output_len - 1) * case.tpot  # Little's law gives the rate
        run = Run(
            case.tpot,
            case.concurrency * case.output_len / request_s / case.devices,
            state.tpot,
            state.output_throughput / case.devices,
            key,
        )
        found[case.source, case.family, case.accelerator.name, case.input_len, case.output_len].append(run)
    return {
        name: runs
        for name, runs in found.items()
        if len(runs) >= LEAST_RUNS and len({run.deployment for run in runs}) >= LEAST_DEPLOYMENTS
    }


def chosen(name: tuple[object, ...], runs: Sequence[Run]) -> Iterator[Choice]:
    times = sorted(run.tpot for run in runs)
    curves: dict[tuple[object, ...], list[Run]] = defaultdict(list)
    for run in runs:
        curves[run.deployment].append(run)
    for quantile in BOUNDS:
        bound = times[int(quantile * (len(times) - 1))]
        seen = {key: at_bound(bound, [(run.tpot, run.throughput) for run in one]) for key, one in curves.items()}
        said = {
            key: at_bound(bound, [(run.predicted_tpot, run.predicted_throughput) for run in one])
            for key, one in curves.items()
        }
        choice = max(said, key=lambda key: said[key])
        if not said[choice] or not seen[choice]:
            yield Choice(name, bound, None)
        else:
            yield Choice(name, bound, 1 - seen[choice] / max(seen.values()))


def at_bound(bound: float, curve: Sequence[tuple[float, float]]) -> float:
    """Throughput at this time per token; 0 where even the least load takes longer."""
    points = sorted(curve)
    if points[0][0] > bound:
        return 0.0
    best = max(throughput for tpot, throughput in points if tpot <= bound)
    for (tpot, throughput), (later, more) in pairwise(points):
        if tpot <= bound < later:
            best = max(best, throughput + (more - throughput) * (bound - tpot) / (later - tpot))
    return best


def timed() -> tuple[int, float]:
    """Every accelerator with a price, both ways of the cache, and three numbers of requests."""
    machines = [one for one in accelerators() if prices(one.name)]
    economies: Mapping[str, Economy] = {
        one.name: Economy(usd_per_device_hour=prices(one.name)[0].usd_per_accelerator_hour, source="catalogue")
        for one in machines
    }
    model = find_model_entry("Qwen3 32B").model()
    asked = Deployment(model="Qwen3 32B", max_model_len=8192)
    space = Space(asked, model, machines, max_num_seqs=(None, 64, 256))
    start = time.process_time()
    found = search(space, Workload(input_len=1024, output_len=512, concurrency=(32,)), None, economies)
    return found.considered.configurations, time.process_time() - start


if __name__ == "__main__":
    main()
