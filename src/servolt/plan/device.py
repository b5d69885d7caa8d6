"""The plan of a deployment on accelerators: memory by its engine's arithmetic, speed by a roofline, power, cost."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from servolt.command import Command
from servolt.deployment import Deployment
from servolt.document import Problem
from servolt.gpu import Accelerator
from servolt.metrics import METRICS, Basis, Estimate
from servolt.model import Model
from servolt.plan.adjustment import Adjustment, At, adjustment, at
from servolt.plan.correction import KnownPoint, Shift
from servolt.plan.cost import Economy, costs_of
from servolt.plan.known import KnownDeployments
from servolt.plan.learning import drifts
from servolt.plan.memory import Budget
from servolt.plan.memory.settings import stated_context
from servolt.plan.plan import Plan, StepTerm, figures_of
from servolt.plan.power import power_w
from servolt.plan.recall import known_budget, known_points, shifts_of
from servolt.plan.remedies import (
    binding_of,
    default_problem,
    fixes_of,
    reasons_of,
    verdict_of,
)
from servolt.plan.roofline import roofline_of
from servolt.plan.spreads import factors_of
from servolt.plan.steady import Steady, at_request_rate, load_time_s, saturation, steady
from servolt.plan.validation import problems_of
from servolt.plan.verdict import Verdict
from servolt.workload import LoadPoint, Slo, Workload

__all__ = ["make_device_plan"]

LEVEL = 0.8  # of all intervals: from P10 to P90
FORMULA = "a roofline whose constants were fitted on published measurements"
TOO_FAST = "requests come faster than they can leave"
METHOD = "P10 and P90 of the errors of such deployments that were left out of the fit, rounded"
# Of these no errors were measured.
BY_HAND = frozenset({"load_time", "energy_per_output_token", "energy_per_request", "saturation_concurrency"})
BY_HAND_METHOD = "a width set by hand: no errors of this figure were measured"


class _Figure(NamedTuple):
    metric: str
    value: float | None
    reason: str | None = None


def make_device_plan(
    deployment: Deployment,
    model: Model,
    accelerator: Accelerator,
    workload: Workload,
    *,
    known: KnownDeployments | None = None,
    points: Sequence[KnownPoint] = (),
    tool_version: str = "",
    economy: Economy | None = None,
    slo: Slo | None = None,
    command: Command | None = None,
    problems: Sequence[Problem] = (),
) -> Plan:
    """Arithmetic only, for `accelerator.count` devices.

    `known` is what start-up logs and measurements have taught, `points` are further measured values of this deployment,
    and `economy` has prices. A deployment that can't be has an error among its problems. Raises InvalidInputError for a
    data type whose size is not known.
    """
    facts = known or KnownDeployments()
    faults = problems_of(deployment, model, accelerator, workload)
    memory = known_budget(facts, deployment, model, accelerator)
    verdict, of_context = _verdict(facts, deployment, model, accelerator, workload, memory)
    planner = _Planner(deployment, model, accelerator, workload, memory, economy, slo)
    shifts = shifts_of(facts, deployment, model, accelerator, tool_version=tool_version)
    learnt = planner.adjustment((*known_points(facts, deployment, model, accelerator), *points), shifts)
    estimates = tuple(one for point in workload.points for one in planner.estimates(point, learnt))
    first = planner.load(workload, workload.points[0])
    drift = drifts(facts, deployment, model, accelerator)
    return Plan(
        deployment=deployment,
        deployment_digest=deployment.digest,
        engine_version=deployment.engine_version,
        model=model,
        accelerator=accelerator,
        workload=workload,
        workload_digest=workload.digest,
        memory=memory,
        verdict=verdict,
        binding=binding_of(memory),
        reasons=reasons_of(memory),
        fixes=fixes_of(deployment, model, accelerator, memory),
        predictions=figures_of(estimates),
        estimates=estimates,
        step=planner.step(first),
        bottleneck=first.state.bottleneck if first else "request_rate",
        calibration=_in_words(learnt, shifts),
        basis=_weakest(estimates),
        command=command,
        problems=(
            *problems,
            *faults,
            *of_context,
            *learnt.problems,
            *drift,
            *_notes(memory),
        ),
    )


def _verdict(
    facts: KnownDeployments,
    deployment: Deployment,
    model: Model,
    accelerator: Accelerator,
    workload: Workload,
    memory: Budget,
) -> tuple[Verdict, tuple[Problem, ...]]:
    """Where only what nobody asked for is too much, the model's whole context or idle slots, it may run without it."""
    verdict = verdict_of(memory)
    needed = _needed(deployment, workload, memory)
    if verdict != "no" or not needed:
        return verdict, ()
    smaller = known_budget(facts, deployment.model_copy(update=needed), model, accelerator)
    if verdict_of(smaller) == "no":
        return verdict, ()
    return "tight", (default_problem(deployment, memory, needed),)


def _needed(deployment: Deployment, workload: Workload, memory: Budget) -> dict[str, int]:
    """What the workload needs of the settings that are left to the engine, as far as it is less."""
    found: dict[str, int] = {}
    length = workload.input_len + workload.output_len
    if stated_context(deployment) is None and length < memory.max_model_len:
        found["max_model_len"] = length
    streams = max((point.concurrency or 0 for point in workload.points), default=0)
    if not memory.pooled and deployment.max_num_seqs is None and 0 < streams < memory.max_num_seqs:
        found["max_num_seqs"] = streams
    return found


class _Planner:
    """What all load points of one plan share."""

    def __init__(
        self,
        deployment: Deployment,
        model: Model,
        accelerator: Accelerator,
        workload: Workload,
        memory: Budget,
        economy: Economy | None,
        slo: Slo | None,
    ) -> None:
        self._deployment, self._model, self._accelerator = deployment, model, accelerator
        self._workload, self._memory, self._economy, self._slo = workload, memory, economy, slo
        self._law = roofline_of(deployment, model, accelerator)
        self._tokens = float(memory.kv_cache_tokens) if memory.kv_cache_tokens else None

    def load(self, workload: Workload, point: LoadPoint) -> At | None:
        """The uncorrected state; None where requests come faster than they can leave."""
        lengths = float(workload.input_len), float(workload.output_len)
        limits = self._tokens, float(self._memory.max_num_seqs)
        if point.request_rate is None:
            return at(self._law, self._closed(lengths, float(point.concurrency or 1), limits), workload)
        state = at_request_rate(
            self._law,
            input_len=lengths[0],
            output_len=lengths[1],
            request_rate=point.request_rate,
            kv_cache_tokens=limits[0],
            max_num_seqs=limits[1],
        )
        return None if state is None else at(self._law, state, workload, point.request_rate)

    def _closed(self, lengths: tuple[float, float], concurrency: float, limits: tuple[float | None, float]) -> Steady:
        return steady(
            self._law,
            input_len=lengths[0],
            output_len=lengths[1],
            concurrency=concurrency,
            kv_cache_tokens=limits[0],
            max_num_seqs=limits[1],
        )

    def adjustment(self, points: Sequence[KnownPoint], shifts: Mapping[str, Shift] | None) -> Adjustment:
        return adjustment(
            points,
            lambda workload: self.load(workload, workload.points[0]),
            self._factors,
            power_w=lambda state: power_w(self._law, state, self._accelerator),
            shifts=shifts,
        )

    def estimates(self, point: LoadPoint, learnt: Adjustment) -> Iterator[Estimate]:
        load = self.load(self._workload, point)
        if load is None:
            names = ("ttft", "tpot", "e2el", "output_throughput")
            yield from (self._estimate(_Figure(name, None, TOO_FAST), point, None, learnt) for name in names)
            return
        for one in self._figures(load, learnt):
            yield self._estimate(one, point, load, learnt)

    def step(self, load: At | None) -> tuple[StepTerm, ...]:
        """Where a decode step spends its time."""
        if load is None:
            return ()
        sequences = load.state.running / self._law.work.replicas
        terms = list(self._law.decode_terms(sequences, load.input_len + load.output_len / 2))
        total = sum(term.seconds for term in terms) or 1.0
        return tuple(
            StepTerm(name=term.name, seconds=term.seconds, share=term.seconds / total, formula=term.formula)
            for term in terms
            if term.seconds > 0
        )

    def _figures(self, load: At, learnt: Adjustment) -> Iterator[_Figure]:
        state = learnt.state(load)
        for metric in ("ttft", "ttft_cold", "e2el", "output_throughput", "request_throughput", "total_throughput"):
            yield _Figure(metric, getattr(state, metric))
        if load.output_len > 1:
            yield _Figure("tpot", state.tpot)
            yield _Figure("itl", state.itl)
            yield _Figure("decode_throughput", state.running / state.tpot)
        yield _Figure("prefill_throughput", state.prefill_throughput)
        most = saturation(
            self._law,
            input_len=load.input_len,
            output_len=load.output_len,
            kv_cache_tokens=self._tokens,
            max_num_seqs=float(self._memory.max_num_seqs),
            slo=self._slo,
        )
        yield _Figure("saturation_concurrency", most.concurrency, f"bound by {most.limit.replace('_', ' ')}")
        rank = self._memory.fullest
        yield _Figure("load_time", load_time_s(self._deployment.engine, float(rank.weights_bytes * rank.ranks)))
        yield from self._power(load, state.output_throughput, learnt)

    def _power(self, load: At, output_throughput: float, learnt: Adjustment) -> Iterator[_Figure]:
        watts = None
        if self._accelerator.tdp_w is None:
            yield _Figure("power", None, f"the power limit of {self._accelerator.name} is not known")
        else:
            watts = power_w(self._law, load.state, self._accelerator) * learnt.factor("power", load)
            yield _Figure("power", watts)
            yield _Figure("energy_per_output_token", watts / output_throughput)
            yield _Figure("energy_per_request", watts / output_throughput * load.output_len)
        if self._economy is not None:
            for metric, value in costs_of(self._economy, watts, output_throughput, self._accelerator.count).items():
                yield _Figure(metric, value, self._economy.source)

    def _estimate(self, one: _Figure, point: LoadPoint, load: At | None, learnt: Adjustment) -> Estimate:
        basis: Basis = "formula"
        low = high = None
        if one.metric == "cost_per_hour":
            basis, low, high = "exact", one.value, one.value  # a price is what it is
        elif one.value is not None and load is not None:
            found = learnt.interval(one.metric, load)
            basis, low, high = found.basis, one.value * found.low, one.value * found.high
        return Estimate(
            metric=one.metric,
            value=one.value,
            low=low,
            high=high,
            unit=METRICS[one.metric].unit,
            basis=basis,
            concurrency=point.concurrency,
            request_rate=point.request_rate,
            level=LEVEL,
            method=BY_HAND_METHOD if one.metric in BY_HAND else METHOD,
            reason=one.reason,
        )

    def _factors(self, metric: str) -> tuple[float, float]:
        return factors_of(metric, self._deployment, self._model, self._accelerator)


def _weakest(estimates: Sequence[Estimate]) -> Basis:
    order: tuple[Basis, ...] = ("formula", "calibrated", "measured")
    return min((one.basis for one in estimates if one.basis in order), key=order.index, default="formula")


def _in_words(learnt: Adjustment, shifts: Mapping[str, Shift] | None) -> str:
    said = FORMULA
    if shifts:
        most = max(shift.deployments for shift in shifts.values())
        said += f"; shifted by {most} other deployments like it"
    if learnt.points:
        said += f"; corrected by {learnt.points} measured values of this deployment"
    return said


def _notes(memory: Budget) -> list[Problem]:
    remedy = "The intervals are wider for it. A start-up log or a measurement of this deployment narrows them."
    return [Problem(code="planned_wider", severity="note", message=note, remedy=remedy) for note in memory.notes]
