"""What was measured before, kept beside what was predicted then, and how it corrects the next prediction."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import Field

from servolt.deployment import Deployment
from servolt.document import Document, Value
from servolt.gpu import Accelerator
from servolt.measurement import Measurement
from servolt.metrics import Metrics
from servolt.model import Model
from servolt.plan.estimates import Raw, raw_estimates, threads_of
from servolt.plan.memory import memory_of
from servolt.plan.speed import Constants, default_constants
from servolt.plan.stated import stated_constants
from servolt.workload import Workload

__all__ = ["Calibration", "Correction", "Observation", "constants_for", "correction", "recalibrated", "update"]

# A level's own observations count against this many of its parent's opinion. One is the least that keeps a single
# disturbed window from moving everything.
PARENT_WEIGHT = 1.0
# Standard deviation of the logarithm over runs of one deployment minutes apart on a shared two-core machine, by
# `benchmarks/plan`: 0.07 to 0.21 for decoding; 0.12 to 0.48 for prompts, which take a moment only. What an engine
# keeps of its memory depends on the heaviest load it has seen: up to 5 %.
RUN_SPREAD = 0.17
RUN_SPREADS = {"ttft": 0.3, "prefill_throughput": 0.25, "resident_memory": 0.025}
# What a measurement counts that is flagged but not invalid: other programs ran, the load was not steady, or the window
# was short. It is taken to lie twice as far off as a valid one, and weights go with the inverse square. Not nothing: on
# a machine that is never quiet there is no other.
DEGRADED_WEIGHT = 0.25
# Even stated defaults are meant to be within a factor of 3: what is off by more than 10 is a fault of the measurement,
# not a lesson about the machine.
BELIEVED = math.log(10)


class Observation(Value):
    """One metric at one load point: log(measured / predicted without any observation)."""

    measurement: str
    engine: str
    engine_version: str | None = None
    accelerator: str
    threads: int
    architecture: str
    quantization: str
    engine_executable: str | None = None
    deployment_digest: str
    shape_digest: str
    concurrency: int | None = None
    request_rate: float | None = None
    metric: str
    statistic: str | None = None
    log_ratio: float
    weight: float = Field(1.0, gt=0, le=1, description="1 from a valid measurement, less from a degraded one")


class Calibration(Document):
    """What is known of this machine: constants of its engines, and what measurements taught since."""

    schema_: Literal["servolt.calibration/1"] = Field("servolt.calibration/1", alias="schema")
    constants: tuple[Constants, ...] = Field((), description="one set for each engine and accelerator")
    observations: tuple[Observation, ...] = ()

    @property
    def measurements(self) -> int:
        return len({observation.measurement for observation in self.observations})


class Correction(NamedTuple):
    """`log_shift` is added to the logarithm of the prediction, `spread` replaces its standard deviation."""

    log_shift: float
    spread: float
    values: int
    at_this_point: int
    measurements: frozenset[str]  # whose values these are


def constants_for(
    calibration: Calibration, deployment: Deployment, accelerator: Accelerator, engine_version: str | None
) -> Constants:
    """Those measured on this accelerator with this engine, else stated defaults."""
    if deployment.engine == "replay":
        return stated_constants()
    for constants in calibration.constants:
        same_version = engine_version is None or constants.engine_version in (None, engine_version)
        if constants.engine == deployment.engine and constants.accelerator == accelerator.name and same_version:
            return constants
    return default_constants(deployment.engine, accelerator, threads_of(deployment, accelerator))


def recalibrated(calibration: Calibration, constants: Constants) -> Calibration:
    """With new constants of one engine on one accelerator.

    What was observed against the old ones says nothing about these and is dropped: `update` with the same measurements
    teaches it again.
    """
    key = (constants.engine, constants.accelerator)
    others = tuple(old for old in calibration.constants if (old.engine, old.accelerator) != key)
    kept = tuple(one for one in calibration.observations if (one.engine, one.accelerator) != key)
    return Calibration(constants=(*others, constants), observations=kept)


def update(calibration: Calibration, measurement: Measurement, *, overhead_bytes: int | None = None) -> Calibration:
    """With what this measurement teaches: once only, little from a degraded one, and nothing from an invalid one.

    `overhead_bytes` is what the engine's adapter says; without it nothing is learnt of memory.
    """
    known = any(observation.measurement == measurement.id for observation in calibration.observations)
    if known or measurement.validity.verdict == "invalid" or not measurement.accelerators or measurement.model is None:
        return calibration
    accelerator, model = measurement.accelerators[0], measurement.model
    raws = _raws(calibration, measurement, accelerator, model, overhead_bytes)
    results = Metrics(items=measurement.results)
    seen = [_observation(measurement, accelerator, model, raw, results) for raw in raws]
    return calibration.model_copy(
        update={"observations": (*calibration.observations, *(one for one in seen if one is not None))}
    )


def correction(
    calibration: Calibration,
    raw: Raw,
    deployment: Deployment,
    model: Model,
    accelerator: Accelerator,
    workload: Workload,
    engine_version: str | None,
) -> Correction:
    """From the widest level to the narrowest: machine, architecture and data type, deployment, this very load point.

    Each level's shift is (weighted sum of its residuals + parent's shift) / (sum of weights + 1); that sum also takes
    its share of the doubt away, down to what runs differ by themselves.
    """
    about = [one for one in calibration.observations if _comparable(one, raw, deployment, accelerator, engine_version)]
    kinds = ((one, (one.architecture, one.quantization) == (model.architecture, model.quantization)) for one in about)
    family = [one for one, same in kinds if same]
    own = [one for one in family if one.deployment_digest == deployment.digest]
    here = [
        one
        for one in own
        if one.shape_digest == workload.shape_digest
        and (one.concurrency, one.request_rate) == (raw.point.concurrency, raw.point.request_rate)
    ]
    shift, doubt = 0.0, raw.spread**2
    for level in (about, family, own, here):
        weight = sum(one.weight for one in level) + PARENT_WEIGHT
        shift = (sum(one.weight * one.log_ratio for one in level) + PARENT_WEIGHT * shift) / weight
        doubt *= PARENT_WEIGHT / weight
    noise = RUN_SPREADS.get(raw.metric, RUN_SPREAD)
    measurements = frozenset(one.measurement for one in about)
    return Correction(shift, math.sqrt(doubt + noise**2), len(about), len(here), measurements)


def _comparable(
    one: Observation, raw: Raw, deployment: Deployment, accelerator: Accelerator, engine_version: str | None
) -> bool:
    return (
        (one.metric, one.statistic) == (raw.metric, raw.statistic)
        and (one.engine, one.accelerator) == (deployment.engine, accelerator.name)
        and one.engine_executable == deployment.engine_executable
        and one.threads == threads_of(deployment, accelerator)
        and (engine_version is None or one.engine_version in (None, engine_version))
    )


def _raws(
    calibration: Calibration,
    measurement: Measurement,
    accelerator: Accelerator,
    model: Model,
    overhead_bytes: int | None,
) -> Sequence[Raw]:
    deployment = measurement.deployment
    constants = constants_for(calibration, deployment, accelerator, measurement.engine_version)
    memory = memory_of(deployment, model, overhead_bytes=overhead_bytes or 0, available_bytes=None)
    raws = raw_estimates(deployment, model, accelerator, measurement.workload, constants, memory)
    return [raw for raw in raws if overhead_bytes is not None or raw.metric != "resident_memory"]


def _observation(
    measurement: Measurement, accelerator: Accelerator, model: Model, raw: Raw, results: Metrics
) -> Observation | None:
    measured = results.get(
        raw.metric,
        statistic=raw.statistic,
        concurrency=raw.point.concurrency,
        request_rate=raw.point.request_rate,
    )
    if measured is None or not measured.value or measured.value <= 0 or not raw.value:
        return None
    log_ratio = math.log(measured.value / raw.value)
    if abs(log_ratio) > BELIEVED:
        return None
    return Observation(
        measurement=measurement.id,
        engine=measurement.deployment.engine,
        engine_version=measurement.engine_version,
        accelerator=accelerator.name,
        threads=threads_of(measurement.deployment, accelerator),
        architecture=model.architecture,
        quantization=model.quantization,
        engine_executable=measurement.deployment.engine_executable,
        deployment_digest=measurement.deployment_digest,
        shape_digest=measurement.workload.shape_digest,
        concurrency=raw.point.concurrency,
        request_rate=raw.point.request_rate,
        metric=raw.metric,
        statistic=raw.statistic,
        log_ratio=log_ratio,
        weight=DEGRADED_WEIGHT if measurement.validity.verdict == "degraded" else 1.0,
    )
