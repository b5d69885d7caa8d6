"""The frozen result of a comparison."""

from typing import Any, Literal

from pydantic import Field

from servolt.document import Document, Problem, Value

__all__ = ["Change", "Comparison", "Difference", "PredictedBesideMeasured", "Verdict"]

Verdict = Literal["better", "worse", "same", "undecided"]


class Difference(Value):
    """One fact that is not the same in all measurements; None where it is unset or unknown."""

    field: str
    values: tuple[Any, ...]


class Change(Value):
    """One metric at one load point: another measurement against the baseline."""

    metric: str
    statistic: str | None
    concurrency: int | None
    request_rate: float | None
    unit: str
    other: str = Field(description="id of the measurement that is held against the baseline")
    baseline_value: float | None
    baseline_low: float | None = None
    baseline_high: float | None = None
    value: float | None
    low: float | None = None
    high: float | None = None
    change: float | None = Field(None, description="value / baseline - 1, estimated over blocks")
    change_low: float | None = None
    change_high: float | None = None
    p_value: float | None = Field(None, description="adjusted by Holm over all changes of this comparison")
    blocks: int = 0
    blocks_needed: int | None = Field(
        None, description="in all, that would likely decide it if effect and spread stay; None where it is decided"
    )
    verdict: Verdict
    reason: str


class PredictedBesideMeasured(Value):
    """What the planner said before the run, and what came of it."""

    measurement: str
    label: str
    metric: str
    statistic: str | None
    concurrency: int | None
    request_rate: float | None
    unit: str
    predicted: float | None
    predicted_low: float | None
    predicted_high: float | None
    basis: str
    measured: float | None
    measured_low: float | None = None
    measured_high: float | None = None
    error: float | None = Field(None, description="predicted / measured - 1")
    inside: bool | None = Field(None, description="whether the measured value lies in the predicted interval")


class Comparison(Document):
    """Measurements of one workload, each held against the first."""

    schema_: Literal["servolt.comparison/1"] = Field("servolt.comparison/1", alias="schema")
    tool_version: str
    measurements: tuple[str, ...] = Field(description="ids; the first is the baseline")
    labels: tuple[str, ...]
    workload_digest: str
    interleaved: bool = Field(description="taken block by block, side by side")
    margin: float = Field(description="a change within this share counts as none")
    alpha: float
    differs: tuple[Difference, ...]
    same: tuple[str, ...]
    changes: tuple[Change, ...]
    predictions: tuple[PredictedBesideMeasured, ...]
    warnings: tuple[Problem, ...] = ()
