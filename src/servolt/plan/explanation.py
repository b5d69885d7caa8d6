"""How each figure of a plan came about: its formula with the values that went in."""

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple

from pydantic import Field

from servolt.document import Document, Value
from servolt.metrics import METRICS, Estimate
from servolt.plan.plan import Plan, StepTerm

__all__ = ["Explanation", "Line", "explanation_of"]

AGREES = 0.01  # a relation between two figures is only shown where it holds to this share


class Line(Value):
    """One figure. Bytes of one device, seconds of one decode step, or a prediction at one load point."""

    about: Literal["memory", "step", "prediction"]
    name: str
    place: str = Field(description="the rank, or the load point")
    value: float | None
    low: float | None = None
    high: float | None = None
    unit: str
    share: float | None = Field(None, description="of the device's total, or of the step")
    basis: str
    formula: str = Field(description="with its values; where there is none, what the figure rests on")
    interval: str | None = Field(None, description="how low and high came about")


class Explanation(Document):
    schema_: Literal["servolt.explanation/1"] = Field("servolt.explanation/1", alias="schema")
    deployment_digest: str
    workload_digest: str
    items: tuple[Line, ...]


def explanation_of(plan: Plan) -> Explanation:
    return Explanation(
        deployment_digest=plan.deployment_digest,
        workload_digest=plan.workload_digest,
        items=(*_memory(plan), *_step(plan), *_predictions(plan)),
    )


def _memory(plan: Plan) -> Iterator[Line]:
    for rank in plan.memory.per_rank:
        for name, term in rank.terms.items():
            if term.high:
                yield Line(
                    about="memory",
                    name=name,
                    place=rank.rank,
                    value=term.bytes,
                    low=term.low,
                    high=term.high,
                    unit="bytes",
                    share=term.bytes / rank.total_bytes if rank.total_bytes else None,
                    basis=term.basis,
                    formula=term.formula,
                )


def _step(plan: Plan) -> Iterator[Line]:
    for term in plan.step:
        yield Line(
            about="step",
            name=term.name,
            place=str(plan.workload.points[0]),
            value=term.seconds,
            unit="s",
            share=term.share,
            basis=plan.basis,
            formula=term.formula,
        )


def _predictions(plan: Plan) -> Iterator[Line]:
    for point in plan.workload.points:
        here = [one for one in plan.estimates if (one.concurrency, one.request_rate) == tuple(point)]
        values = {one.metric: one.value for one in here if one.value is not None and one.statistic in (None, "mean")}
        lengths = float(plan.workload.input_len), float(plan.workload.output_len)
        facts = _Facts(*lengths, point.concurrency, plan.step if point == plan.workload.points[0] else (), values)
        for one in here:
            yield Line(
                about="prediction",
                name=one.metric if one.statistic is None else f"{one.metric} {one.statistic}",
                place=str(point),
                value=one.value,
                low=one.low,
                high=one.high,
                unit=one.unit,
                basis=one.basis,
                formula=_relation(one, facts) or one.reason or plan.calibration,
                interval=_interval(one),
            )
    for name, figure in plan.of_plugins.items():
        yield Line(
            about="prediction",
            name=name,
            place=str(plan.workload.points[0]),
            value=figure.value,
            low=figure.low,
            high=figure.high,
            unit=figure.unit,
            basis=figure.basis,
            formula=figure.reason or "a plug-in, which does not say how",
        )


def _interval(one: Estimate) -> str | None:
    if one.low is None or one.level is None:
        return None
    seen = f"; {one.n} values seen" if one.n else ""
    return f"{one.level:.0%}".replace("%", " %") + f": {one.method or 'not said'}{seen}"


class _Facts(NamedTuple):
    input_len: float
    output_len: float
    concurrency: int | None
    terms: tuple[StepTerm, ...]
    values: Mapping[str, float]

    def __getattr__(self, metric: str) -> float:
        """Raises KeyError where the plan has no such figure."""
        return self.values[metric]

    @property
    def streams(self) -> int:
        """Raises KeyError for an open loop."""
        if self.concurrency is None:
            raise KeyError("concurrency")
        return self.concurrency

    @property
    def step(self) -> float:
        """Seconds of one decode step. Raises KeyError where this load point's is not in the plan."""
        if not self.terms:
            raise KeyError("step")
        return sum(term.seconds for term in self.terms)


class _Rule(NamedTuple):
    """What one figure is of others, in words and computed."""

    words: str
    value: Callable[[_Facts], float]


# Definitions only. Each is checked against the plan's own figures before it is shown.
RULES: Mapping[str, _Rule] = {
    "e2el": _Rule("ttft {ttft} + {steps} x tpot {tpot}", lambda it: it.ttft + (it.output_len - 1) * it.tpot),
    "itl": _Rule("one decode step: {terms}", lambda it: it.step),
    "tpot": _Rule("one decode step: {terms}", lambda it: it.step),
    "request_throughput": _Rule("{streams} streams / e2el {e2el}", lambda it: it.streams / it.e2el),
    "decode_throughput": _Rule("{streams} streams / tpot {tpot}", lambda it: it.streams / it.tpot),
    "output_throughput": _Rule(
        "request_throughput {request_throughput} x {output_len:g} tokens",
        lambda it: it.request_throughput * it.output_len,
    ),
    "total_throughput": _Rule(
        "request_throughput {request_throughput} x ({input_len:g} + {output_len:g}) tokens",
        lambda it: it.request_throughput * (it.input_len + it.output_len),
    ),
    "energy_per_output_token": _Rule(
        "power {power} / output_throughput {output_throughput}", lambda it: it.power / it.output_throughput
    ),
    "energy_per_request": _Rule(
        "energy_per_output_token {energy_per_output_token} x {output_len:g} tokens",
        lambda it: it.energy_per_output_token * it.output_len,
    ),
    "cost_per_million_output_tokens": _Rule(
        "cost_per_hour {cost_per_hour} / 3600 s / output_throughput {output_throughput} x 1,000,000",
        lambda it: it.cost_per_hour / 3600 / it.output_throughput * 1e6,
    ),
}


def _relation(one: Estimate, facts: _Facts) -> str | None:
    rule = RULES.get(one.metric)
    if rule is None or one.value is None or one.statistic not in (None, "mean"):
        return None
    try:
        computed = rule.value(facts)
    except (KeyError, ZeroDivisionError):
        return None
    if abs(computed - one.value) > AGREES * abs(one.value):
        return None
    said = {
        metric: f"{value:.5g} {METRICS[metric].unit}" for metric, value in facts.values.items() if metric in METRICS
    }
    terms = " + ".join(f"{term.name} {term.seconds:.4g} s" for term in facts.terms)
    words = rule.words.format(
        **said,
        terms=terms,
        streams=facts.concurrency,
        input_len=facts.input_len,
        output_len=facts.output_len,
        steps=f"{facts.output_len - 1:g}",
    )
    return f"{words}; {one.reason}" if one.reason else words
