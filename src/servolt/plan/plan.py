"""A plan: does a deployment fit, how fast will it be, what does it draw and cost; each figure with low, high, basis."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from servolt.command import Command
from servolt.deployment import Deployment
from servolt.document import Document, Problem, Value
from servolt.gpu import Accelerator
from servolt.measurement import Prediction
from servolt.metrics import Basis, Estimate
from servolt.model import Model
from servolt.plan.memory import Budget
from servolt.plan.verdict import Fix, Verdict
from servolt.workload import Workload

__all__ = ["CurvePoint", "Figure", "Plan", "StepTerm", "figures_of"]


class StepTerm(Value):
    """One addend of a decode step."""

    name: str
    seconds: float
    share: float
    formula: str


class CurvePoint(Value):
    """What one number of streams gives, and the rate of requests at which so many are in flight."""

    concurrency: float
    request_rate: float
    output_throughput: float
    ttft: float
    tpot: float
    power: float | None = None


class Figure(Value):
    """One prediction at the workload's first load point. Without a value, `reason` says why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    unit: str
    basis: Basis
    reason: str | None = Field(None, description="what it rests on: the formula with its values")


class Plan(Document):
    """What one deployment of one model takes and gives on its hardware."""

    schema_: Literal["servolt.plan/1"] = Field("servolt.plan/1", alias="schema")
    deployment: Deployment
    deployment_digest: str
    engine_version: str | None = None
    model: Model
    accelerator: Accelerator
    workload: Workload
    workload_digest: str
    threads: int | None = Field(None, description="of the processor, where it computes")
    memory: Budget
    verdict: Verdict
    binding: str = Field(description="what leaves no more room")
    reasons: tuple[str, ...]
    fixes: tuple[Fix, ...] = ()
    predictions: Mapping[str, Figure] = Field(description="by metric, at the workload's first load point")
    estimates: tuple[Estimate, ...] = Field(description="all statistics at all load points")
    step: tuple[StepTerm, ...] = Field(description="where a decode step at the first load point spends its time")
    bottleneck: str = Field(description="the largest addend of that step")
    throughput_curve: tuple[CurvePoint, ...] = Field(
        (), description="throughput against concurrency and against request rate, up to saturation"
    )
    calibration: str = Field(description="what the speeds rest on, in words")
    basis: Basis = Field(description="the weakest basis among the speeds")
    command: Command | None = Field(None, description="the very command that serve starts")
    problems: tuple[Problem, ...] = ()

    @property
    def of_plugins(self) -> dict[str, Figure]:
        """Predictions that are none of ours."""
        ours = {one.metric for one in self.estimates}
        return {name: figure for name, figure in self.predictions.items() if name not in ours}

    def prediction(self, tool_version: str) -> Prediction:
        """What is kept beside the measurement that follows."""
        return Prediction(tool_version=tool_version, basis=self.calibration, items=self.estimates)


def figures_of(estimates: tuple[Estimate, ...]) -> dict[str, Figure]:
    """The first load point's estimates by metric: the mean of what has a mean, else the median, else the only one."""
    order = {"mean": 0, None: 1, "p50": 2}
    first = (
        [one for one in estimates if (one.concurrency, one.request_rate) == _load(estimates[0])] if estimates else []
    )
    found: dict[str, Figure] = {}
    for one in sorted(first, key=lambda estimate: order.get(estimate.statistic, 3)):
        if one.metric not in found:
            found[one.metric] = Figure(
                value=one.value, low=one.low, high=one.high, unit=one.unit, basis=one.basis, reason=one.reason
            )
    return found


def _load(estimate: Estimate) -> tuple[int | None, float | None]:
    return estimate.concurrency, estimate.request_rate
