"""Two plans side by side: what differs in the deployments, by how much in the figures, and which to take for what."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field

from servolt.deployment import Deployment
from servolt.document import Document, Value
from servolt.errors import NotComparableError
from servolt.metrics import METRICS, Basis, Estimate
from servolt.plan.plan import Plan

__all__ = ["Advice", "FieldDifference", "PlanComparison", "PlannedChange", "against"]

Verdict = Literal["better", "worse", "same", "undecided"]
Place = Literal["first", "other"]

SAME = 0.005  # a smaller change is none: plans are not that exact
NOT_A_SETTING = ("schema", "schema_")


class FieldDifference(Value):
    """A field of the deployment, dotted, or a fact of model or hardware that follows from it. None is not set."""

    field: str
    first: str | int | float | bool | None
    other: str | int | float | bool | None


class PlannedChange(Value):
    """One figure in both plans. Without a value in one of them there is no change."""

    metric: str
    statistic: str | None = None
    concurrency: int | None = None
    request_rate: float | None = None
    unit: str
    first: float | None
    first_low: float | None = None
    first_high: float | None = None
    other: float | None
    other_low: float | None = None
    other_high: float | None = None
    change: float | None = Field(None, description="share of the first: 0.1 is a tenth more")
    overlap: bool | None = Field(None, description="whether the two intervals have values in common")
    verdict: Verdict | None = Field(None, description="of the other; undecided where the intervals overlap")
    basis: tuple[Basis, Basis]


class Advice(Value):
    purpose: str
    take: Place | None = Field(description="None: the plans don't tell")
    sure: bool = Field(description="the intervals are apart")
    why: str


class PlanComparison(Document):
    """How the other plan differs from the first."""

    schema_: Literal["servolt.plan_comparison/1"] = Field("servolt.plan_comparison/1", alias="schema")
    labels: tuple[str, str]
    deployment_digests: tuple[str, str]
    workload_digest: str
    verdicts: tuple[str, str]
    differs: tuple[FieldDifference, ...]
    memory: tuple[PlannedChange, ...] = Field(description="of the fullest device of each, and the room for requests")
    changes: tuple[PlannedChange, ...] = Field(description="predictions at all load points")
    advice: tuple[Advice, ...]


def against(first: Plan, other: Plan) -> PlanComparison:
    """Raises NotComparableError for plans of two workloads."""
    if first.workload.shape_digest != other.workload.shape_digest or first.workload.points != other.workload.points:
        raise NotComparableError(
            "the plans are for two workloads, so their figures differ for that alone.",
            "Plan both for one workload: --input-len, --output-len, --concurrency.",
        )
    memory = tuple(_memory(first, other))
    changes = tuple(_changes(first, other))
    return PlanComparison(
        labels=(first.deployment.label, other.deployment.label),
        deployment_digests=(first.deployment_digest, other.deployment_digest),
        workload_digest=first.workload_digest,
        verdicts=(first.verdict, other.verdict),
        differs=tuple(_differs(first, other)),
        memory=memory,
        changes=changes,
        advice=tuple(_advice(first, other, (*memory, *changes))),
    )


def _differs(first: Plan, other: Plan) -> Iterator[FieldDifference]:
    one, two = {**_fields(first.deployment), **_facts(first)}, {**_fields(other.deployment), **_facts(other)}
    for field in dict.fromkeys((*one, *two)):
        if one.get(field) != two.get(field):
            yield FieldDifference(field=field, first=one.get(field), other=two.get(field))


def _fields(deployment: Deployment) -> dict[str, Any]:
    return dict(_flat("", deployment.model_dump(mode="json", exclude_none=True)))


def _flat(above: str, plain: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in plain.items():
        if name in NOT_A_SETTING:
            continue
        if isinstance(value, Mapping):
            yield from _flat(f"{above}{name}.", value)
        else:
            yield f"{above}{name}", ",".join(map(str, value)) if isinstance(value, list) else value


def _facts(plan: Plan) -> dict[str, Any]:
    """What the settings come to."""
    return {
        "model: parameters": plan.model.total_params,
        "model: weights": plan.model.quantization,
        "device": plan.accelerator.name,
        "devices": plan.accelerator.count,
        "context, tokens": plan.memory.max_model_len,
        "sequences at the same time": plan.memory.max_num_seqs,
    }


def _memory(first: Plan, other: Plan) -> Iterator[PlannedChange]:
    one, two = first.memory, other.memory
    for name in one.fullest.terms:
        a, b = one.fullest.terms[name], two.fullest.terms[name]
        if a.high or b.high:
            # Of a pool more is better, of all else less.
            better = "higher" if name == "kv_cache" and one.pooled and two.pooled else "lower"
            yield _bytes(name, (a.low, a.bytes, a.high), (b.low, b.bytes, b.high), better)
    if not (one.pooled or two.pooled):  # a pool is as large as the room for it
        yield _bytes(
            "total",
            (one.low_bytes, one.total_bytes, one.high_bytes),
            (two.low_bytes, two.total_bytes, two.high_bytes),
            "lower",
        )
    yield _change(
        Estimate(
            metric="max_concurrency",
            value=one.max_concurrency,
            low=one.max_concurrency_low,
            high=one.max_concurrency_high,
            unit="requests",
            basis="formula",
        ),
        Estimate(
            metric="max_concurrency",
            value=two.max_concurrency,
            low=two.max_concurrency_low,
            high=two.max_concurrency_high,
            unit="requests",
            basis="formula",
        ),
        "higher",
    )


def _bytes(name: str, first: tuple[int, int, int], other: tuple[int, int, int], better: str) -> PlannedChange:
    pair = [
        Estimate(metric=name, low=low, value=value, high=high, unit="bytes", basis="formula")
        for low, value, high in (first, other)
    ]
    return _change(pair[0], pair[1], better)


def _changes(first: Plan, other: Plan) -> Iterator[PlannedChange]:
    theirs = {_key(one): one for one in other.estimates}
    for one in first.estimates:
        two = theirs.pop(_key(one), None)
        if two is not None:
            yield _change(one, two, METRICS[one.metric].better if one.metric in METRICS else "neither")


def _key(one: Estimate) -> tuple[str, str | None, int | None, float | None]:
    return one.metric, one.statistic, one.concurrency, one.request_rate


def _change(one: Estimate, two: Estimate, better: str) -> PlannedChange:
    change = None
    overlap = None
    if one.value is not None and two.value is not None:
        change = (two.value - one.value) / one.value if one.value else None
        overlap = _low(one) <= _high(two) and _low(two) <= _high(one)
    return PlannedChange(
        metric=one.metric,
        statistic=one.statistic,
        concurrency=one.concurrency,
        request_rate=one.request_rate,
        unit=one.unit,
        first=one.value,
        first_low=one.low,
        first_high=one.high,
        other=two.value,
        other_low=two.low,
        other_high=two.high,
        change=change,
        overlap=overlap,
        verdict=_verdict(change, overlap, better),
        basis=(one.basis, two.basis),
    )


def _verdict(change: float | None, overlap: bool | None, better: str) -> Verdict | None:
    if change is None or better == "neither":
        return None
    if abs(change) < SAME:
        return "same"
    if overlap:
        return "undecided"
    return "better" if (change < 0) == (better == "lower") else "worse"


def _low(one: Estimate) -> float:
    return one.value or 0.0 if one.low is None else one.low


def _high(one: Estimate) -> float:
    return one.value or 0.0 if one.high is None else one.high


# What people choose by, and the metric that tells; the first that both plans have counts.
PURPOSES: Mapping[str, tuple[str, ...]] = {
    "short waits for the first token": ("ttft",),
    "fast answers to one": ("tpot",),
    "most tokens per second": ("output_throughput",),
    "least energy": ("energy_per_output_token",),
    "least cost": ("cost_per_million_output_tokens",),
    "most long requests at the same time": ("max_concurrency",),
}


def _advice(first: Plan, other: Plan, changes: tuple[PlannedChange, ...]) -> Iterator[Advice]:
    fits = {"fits": 2, "tight": 1, "unknown": 1, "no": 0}
    one, two = fits[first.verdict], fits[other.verdict]
    if one != two:
        take: Place = "first" if one > two else "other"
        why = f"the first {_said(first.verdict)}, the other {_said(other.verdict)}"
        yield Advice(purpose="to run at all", take=take, sure=0 in (one, two) and 2 in (one, two), why=f"{why}.")
    elif one == 0:
        yield Advice(purpose="to run at all", take=None, sure=True, why="neither fits; both plans say what would help.")
    last = first.workload.points[-1]
    for purpose, metrics in PURPOSES.items():
        found = next(filter(None, (_telling(metric, changes, last) for metric in metrics)), None)
        if found is not None and found.change is not None:
            yield _for(purpose, found)


def _telling(
    metric: str, changes: tuple[PlannedChange, ...], load: tuple[int | None, float | None]
) -> PlannedChange | None:
    """At the heaviest load; the median where there is one."""
    here = [
        one for one in changes if one.metric == metric and ((one.concurrency, one.request_rate) in (load, (None, None)))
    ]
    return next((one for one in here if one.statistic == "p50"), here[0] if here else None)


def _for(purpose: str, found: PlannedChange) -> Advice:
    assert found.change is not None
    if abs(found.change) < SAME:
        return Advice(purpose=purpose, take=None, sure=not found.overlap, why=f"{found.metric} is the same in both.")
    higher = found.metric == "max_concurrency" or METRICS[found.metric].better == "higher"
    take: Place = "other" if (found.change > 0) == higher else "first"
    size = f"{found.metric} of the other is {found.change * 100:+.0f} %"
    apart = (
        "; the intervals overlap, so measure both before you rely on it."
        if found.overlap
        else "; the intervals are apart."
    )
    return Advice(purpose=purpose, take=take, sure=not found.overlap, why=size + apart)


def _said(verdict: str) -> str:
    return {"fits": "fits", "tight": "may fit", "no": "does not fit", "unknown": "is not known to fit"}[verdict]
