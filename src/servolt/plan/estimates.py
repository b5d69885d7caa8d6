"""What a workload will show, metric by metric, from the law of one step: values and how sure they are, uncorrected."""

import math
from collections.abc import Iterator
from typing import NamedTuple

from servolt.deployment import Deployment
from servolt.engines.replay_law import read_law
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.plan.memory import Memory, batch_sizes, resident_bytes
from servolt.plan.simulation import Outcome, simulate
from servolt.plan.speed import Constants, Law, law_of, nearest_dtype
from servolt.plan.stated import StatedLaw
from servolt.workload import LoadPoint, Workload

__all__ = ["Z90", "Raw", "law_for", "raw_estimates", "threads_of"]

# Quantile of the normal distribution: 90 % lie within.
Z90 = 1.645

# Beside the spread that the calibration itself saw: shapes that were not probed. The medians of ten runs of each model
# in `benchmarks/plan`, on the machine named in speed.py, lay within a standard deviation of 0.15 of what was predicted
# for decoding; 0.25 leaves room for shapes that are less alike.
FORM_SPREAD = 0.25
# A data type that was not probed takes the constants of its kind; llama.cpp's own types differ by about 1.5 times.
STAND_IN_SPREAD = 0.4
# With as many threads as cores, anything else that runs makes the threads wait for one another.
ALL_CORES_SPREAD = 0.7
# Resident memory repeats to about 1 %; the parts that are formulas have their own tolerance.
MEMORY_SPREAD = 0.01


# Of the way, in logarithms, from streams apart to streams in step. In `benchmarks/plan` at 4 streams it was 0 to 0.33
# on a quiet machine and about 0.5 on a busy one, by the prefill throughput.
TOGETHER_SHARE = 0.25

TOO_LONG = "the load takes more steps than are played; ask for a shorter workload"
ONE_TOKEN = "an answer of one token ends with its prompt: nothing is decoded"
NO_TIME = "it takes no time by the stated law"


class Raw(NamedTuple):
    """One prediction before what was measured corrects it. `spread` is the standard deviation of its logarithm.

    `reason` says why there is no value.
    """

    metric: str
    statistic: str | None
    point: LoadPoint
    value: float | None
    spread: float
    reason: str | None = None


# Metric, statistic, field of the outcome.
_FIELDS = (
    ("ttft", "mean", "ttft_mean"),
    ("ttft", "p50", "ttft_p50"),
    ("tpot", "mean", "tpot_mean"),
    ("tpot", "p50", "tpot_p50"),
    ("e2el", "mean", "e2el_mean"),
    ("e2el", "p50", "e2el_p50"),
    ("output_throughput", None, "output_throughput"),
    ("request_throughput", None, "request_throughput"),
    ("decode_throughput", None, "decode_throughput"),
    ("prefill_throughput", None, "prefill_throughput"),
)


def raw_estimates(
    deployment: Deployment,
    model: Model,
    accelerator: Accelerator,
    workload: Workload,
    constants: Constants,
    memory: Memory,
) -> list[Raw]:
    """One for each metric and load point."""
    law = law_for(deployment, model, accelerator, constants, memory)
    spread = _spread(deployment, model, accelerator, constants)
    batch = batch_sizes(deployment, memory.kv_cache_tokens).batch
    found: list[Raw] = []
    for point in workload.points:
        together, apart = (
            simulate(law, workload, point, slots=memory.max_num_seqs, batch_tokens=batch, apart=apart)
            for apart in (False, True)
        )
        found += _of_point(together, apart, point, spread)
        found.append(_memory(deployment, model, workload, memory, point))
    return found


def law_for(
    deployment: Deployment, model: Model, accelerator: Accelerator, constants: Constants, memory: Memory
) -> Law | StatedLaw:
    if deployment.engine == "replay":
        return StatedLaw(read_law(deployment.model), constants)
    return law_of(
        constants,
        model,
        threads=threads_of(deployment, accelerator),
        kv_bytes_per_token=memory.kv_bytes_per_token,
        ubatch=batch_sizes(deployment, memory.kv_cache_tokens).ubatch,
    )


def threads_of(deployment: Deployment, accelerator: Accelerator) -> int:
    """As the runner takes them: all cores but one, unless the deployment says otherwise."""
    return deployment.threads or max(1, accelerator.count - 1)


def _of_point(together: Outcome | None, apart: Outcome | None, point: LoadPoint, spread: float) -> Iterator[Raw]:
    """Between the two ways in which streams can fall into step; how far they lie apart is part of the doubt."""
    for metric, statistic, field in _FIELDS:
        if together is None or apart is None:
            yield Raw(metric, statistic, point, None, spread, TOO_LONG)
            continue
        one, other = getattr(together, field), getattr(apart, field)
        if not one or not other:
            reason = NO_TIME if metric == "prefill_throughput" else ONE_TOKEN
            yield Raw(metric, statistic, point, None, spread, reason)
            continue
        apart_by = math.log(one / other)
        value = other * math.exp(TOGETHER_SHARE * apart_by)
        # Two standard deviations lie between them.
        yield Raw(metric, statistic, point, value, math.hypot(spread, apart_by / 2))


def _memory(deployment: Deployment, model: Model, workload: Workload, memory: Memory, point: LoadPoint) -> Raw:
    """The engine keeps what it once took, so the heaviest point of the workload counts for all."""
    streams = max(one.concurrency or memory.max_num_seqs for one in workload.points)
    resident = resident_bytes(memory, deployment, model, workload, streams)
    # The parts with a tolerance, of which low and high are the ends of an interval of 90 %.
    furthest = max(memory.high_bytes - memory.total_bytes, memory.total_bytes - memory.low_bytes)
    soft = furthest / memory.total_bytes / Z90
    return Raw("resident_memory", None, point, float(resident), math.hypot(soft, MEMORY_SPREAD))


def _spread(deployment: Deployment, model: Model, accelerator: Accelerator, constants: Constants) -> float:
    if deployment.engine == "replay":
        return constants.spread
    known = nearest_dtype(model.quantization, constants.weights) == model.quantization
    all_cores = accelerator.count > 1 and threads_of(deployment, accelerator) >= accelerator.count
    parts = (constants.spread, FORM_SPREAD, 0.0 if known else STAND_IN_SPREAD, ALL_CORES_SPREAD if all_cores else 0.0)
    return math.hypot(*parts)
