"""Does the search choose what was measured to be best: `python -m benchmarks.search --cases DIR [--models DIR]`.

Runs of one model on one kind of device with the same lengths are a frontier: engines, formats, numbers of devices and
concurrencies. For a bound on the time per token, the best measured run is the one with the most output tokens/s per
device that keeps it. The planner chooses among the same runs by its predictions alone. A choice whose measured time
breaks the bound by more than a tenth is wrong; else its regret is what it gives less than the best measured run.

The time of a search over 10,000 configurations is printed beside it, as processor seconds of one core.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
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
SLACK = 1.1
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
        print(
            f"within {GOAL:.0%} of the best measured: {good / len(choices):.0%}; bound broken: {broken / len(choices):.0%}"
        )
    if regrets:
        print(f"regret: median {regrets[len(regrets) // 2]:.1%}, P90 {regrets[len(regrets) * 9 // 10]:.1%}")
    number, seconds = timed()
    print(f"{number:,} configurations in {seconds:.1f} s: {10_000 / number * seconds:.1f} s for 10,000")


def frontiers(cases: Iterator[Case]) -> dict[tuple[object, ...], list[Run]]:
    found: dict[tuple[object, ...], list[Run]] = defaultdict(list)
    laws: dict[tuple[object, ...], RooflineLaw] = {}
    for case in cases:
        if case.kind not in ("closed", "steady") or case.flags or not case.tpot or not case.output_throughput:
            continue
        deployment = case.deployment
        key = (case.model.name, case.precision, case.accelerator.name, deployment.digest)
        if key not in laws:
            laws[key] = roofline_of(deployment, case.model, case.accelerator)
        state = steady(laws[key], input_len=case.input_len, output_len=case.output_len, concurrency=case.concurrency)
        run = Run(
            case.tpot,
            case.output_throughput / case.devices,
            state.tpot,
            state.output_throughput / case.devices,
            key,
        )
        found[case.family, case.accelerator.name, case.input_len, case.output_len].append(run)
    return {
        name: runs
        for name, runs in found.items()
        if len(runs) >= LEAST_RUNS and len({run.deployment for run in runs}) >= LEAST_DEPLOYMENTS
    }


def chosen(name: tuple[object, ...], runs: Sequence[Run]) -> Iterator[Choice]:
    times = sorted(run.tpot for run in runs)
    for quantile in BOUNDS:
        bound = times[int(quantile * (len(times) - 1))]
        best = max(run.throughput for run in runs if run.tpot <= bound)
        able = [run for run in runs if run.predicted_tpot <= bound]
        choice = max(able, key=lambda run: run.predicted_throughput, default=None)
        if choice is None or choice.tpot > SLACK * bound:
            yield Choice(name, bound, None)
        else:
            yield Choice(name, bound, max(0.0, 1 - choice.throughput / best))


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
