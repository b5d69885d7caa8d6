"""The steady state of a deployment after what it was seen to do: the parts that were measured are corrected, and what
follows from them follows.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from servolt.document import Problem
from servolt.metrics import Basis
from servolt.plan.correction import (
    BELIEVED,
    FIRST_TOKENS,
    NO_SHIFT,
    REPEAT_SPREAD,
    TIMES,
    Z10,
    Corrected,
    KnownPoint,
    Raw,
    Seen,
    Shift,
    Ties,
    corrected,
)
from servolt.plan.plausibility import Bounds, contradictions, impossible
from servolt.plan.roofline import RooflineLaw
from servolt.plan.steady import Steady
from servolt.workload import Workload

__all__ = ["BASE_METRICS", "Adjustment", "At", "Interval", "adjustment", "at", "ties_of"]

# What is corrected by itself; all else follows from these.
BASE_METRICS = ("tpot", "itl", "ttft", "prefill_throughput", "power")
# How a rate or a whole request tells the time per token, where its first token is as predicted.
REQUEST_METRICS = ("e2el", "output_throughput", "request_throughput", "total_throughput")
ENERGY_METRICS = ("energy_per_output_token", "energy_per_request")
# Figures that don't depend on how fast the deployment is.
APART = ("load_time", "resident_memory", "saturation_concurrency", "cost_per_hour")

Factors = Callable[[str], tuple[float, float]]  # of a metric: P10 and P90, as factors on its value
Power = Callable[[Steady], float]  # of all devices at work


class At(NamedTuple):
    """A steady state, with the load that it is of and the shares of its parts of a token's time."""

    state: Steady
    input_len: float
    output_len: float
    shares: Mapping[str, float]
    request_rate: float | None = None
    busy: float = 1.0  # share of the devices' time with work
    idle_w: float = 0.0  # of all devices, were none at work


class Interval(NamedTuple):
    """P10 and P90 as factors on the corrected value."""

    low: float
    high: float
    basis: Basis
    n: int


def at(law: RooflineLaw, state: Steady, workload: Workload, request_rate: float | None = None) -> At:
    """What `adjustment` needs of one steady state."""
    sequences = state.running / law.work.replicas
    terms = law.decode_terms(sequences, workload.input_len + workload.output_len / 2)
    shares = {term.name: term.seconds / state.tpot for term in terms}
    prefill = max(0.0, 1.0 - state.itl / state.tpot)
    return At(state, workload.input_len, workload.output_len, {**shares, "prefill": prefill}, request_rate)


def adjustment(
    points: Sequence[KnownPoint],
    at_load: Callable[[Workload], At | None],
    factors: Factors,
    *,
    power_w: Power | None = None,
    shifts: Mapping[str, Shift] | None = None,
    bounds: Bounds | None = None,
    ties: Callable[[str], Ties] | None = None,
) -> "Adjustment":
    """What the points of one deployment say about its law.

    `at_load` is the uncorrected state at the load of a point's workload, None where there is none; `factors` are P10
    and P90 of a metric, as factors on its value; `power_w` the uncorrected power of a state; `shifts` what other
    deployments say about a metric; `bounds` what a value can be at most; `ties` how a metric's errors go together.
    First tokens are learnt before the rates that hold them, and both before the energy.
    """
    learnt = Adjustment({}, shifts or {}, factors, power_w, ties or ties_of)
    loads = {id(point): at_load(point.workload) for point in points}
    problems: list[Problem] = []
    used: list[KnownPoint] = []
    for point in sorted(points, key=lambda point: _turn(point.metric)):
        load = loads[id(point)]
        problem = None if bounds is None else impossible(point, bounds(point))
        found = None if load is None or problem is not None else _seen(point, load, learnt)
        if problem is not None:
            problems.append(problem)
        elif found is None:
            problems.append(_unused(point))
        elif abs(found[1].log_ratio) > BELIEVED:
            problems.append(_unbelievable(point, found[1]))
        else:
            assert load is not None
            learnt = learnt.having(*found, _load_key(point.metric, load) if point.verified else None)
            used.append(point)
    problems += contradictions(used, lambda point: _first_s(loads[id(point)]))
    return learnt.with_problems(tuple(problems))


def _turn(metric: str) -> int:
    """Of a metric's points: what is measured by itself, what follows from that with a first token, what from both."""
    if metric in REQUEST_METRICS:
        return 1
    return 2 if metric in ENERGY_METRICS else 0


def _first_s(load: At | None) -> float | None:
    return None if load is None else load.state.ttft


LoadKey = tuple[str, float, float, float, float | None]


def _load_key(metric: str, load: At) -> LoadKey:
    name = "ttft" if metric == "ttft_service" else metric
    return name, round(load.state.concurrency, 6), load.input_len, load.output_len, load.request_rate


class Adjustment:
    """Made by `adjustment`. Without points and shifts it changes nothing."""

    def __init__(
        self,
        seen: Mapping[str, Sequence[Seen]],
        shifts: Mapping[str, Shift],
        factors: Factors,
        power_w: Power | None,
        ties: Callable[[str], Ties],
        told: frozenset[LoadKey] = frozenset(),
        problems: tuple[Problem, ...] = (),
    ) -> None:
        self._seen, self._shifts, self._factors, self._power_w = seen, shifts, factors, power_w
        self._ties, self._told, self.problems = ties, told, problems

    def having(self, metric: str, seen: Seen, told: LoadKey | None) -> "Adjustment":
        """With one more value of a base metric; `told` is the point that it is of."""
        more = {**self._seen, metric: (*self._seen.get(metric, ()), seen)}
        keys = self._told if told is None else self._told | {told}
        return Adjustment(more, self._shifts, self._factors, self._power_w, self._ties, keys, self.problems)

    def with_problems(self, problems: tuple[Problem, ...]) -> "Adjustment":
        return Adjustment(self._seen, self._shifts, self._factors, self._power_w, self._ties, self._told, problems)

    def predicted(self, metric: str, load: At) -> Raw | None:
        """One of BASE_METRICS without any correction. None where the law says nothing of it."""
        value = _predicted(metric, load.state, self._power_w)
        return None if value is None or not value > 0 else _raw(value, self._factors(metric), load)

    def doubt(self, metric: str, load: At) -> float:
        """Standard deviation of the logarithm that is left."""
        one = self._corrected(metric, load)
        return _width(one.low, one.high) / (2 * Z10)

    @property
    def points(self) -> int:
        return sum(len(seen) for seen in self._seen.values())

    def state(self, load: At) -> Steady:
        """The same load, corrected. concurrency = request_throughput * e2el holds as before."""
        old, later = load.state, max(load.output_len - 1, 0.0)
        tpot = old.tpot * self.factor("tpot", load)
        itl = old.itl * (self.factor("itl", load) if "itl" in self._seen else tpot / old.tpot)
        first = old.ttft - old.waiting_s
        turns = old.waiting_s / (old.e2el - old.waiting_s)  # requests that go before, as a share of one
        times = self.factor("ttft", load)
        waiting = turns * (first + later * tpot)
        ttft = (first + waiting) * times
        e2el = ttft + later * tpot
        requests = load.request_rate or old.concurrency / e2el
        rate = requests / old.request_throughput
        prefill = self.factor("prefill_throughput", load)
        return old._replace(
            concurrency=requests * e2el,
            ttft_cold=old.ttft_cold * times,
            ttft=ttft,
            tpot=tpot,
            itl=itl,
            e2el=e2el,
            output_throughput=old.output_throughput * rate,
            request_throughput=requests,
            total_throughput=old.total_throughput * rate,
            prefill_throughput=old.prefill_throughput * prefill,
            waiting_s=waiting * times,
            prefill_share=min(1.0, old.prefill_share * rate / prefill),
        )

    def factor(self, metric: str, load: At) -> float:
        """Of one of BASE_METRICS: corrected over predicted."""
        if not self._is_known(metric):
            return 1.0
        one = self._corrected(metric, load)
        return one.value / one.raw.value

    def interval(self, metric: str, load: At) -> Interval:
        """Of any metric, around the value that follows from the corrected state."""
        low, high = self._factors(metric)
        is_told = _load_key(metric, load) in self._told
        if metric in BASE_METRICS and (metric != "itl" or "itl" in self._seen):
            one = self._corrected(metric, load)
            basis: Basis = one.basis if one.basis != "measured" or is_told else "calibrated"
            return Interval(one.low / one.value, one.high / one.value, basis, one.n)
        ruling = {} if metric in APART else self._ruling(metric, load)
        found = {name: self._corrected(name, load) for name in ruling}
        n = sum(one.n for one in found.values())
        if all(one.basis == "formula" for one in found.values()):
            return Interval(low, high, "formula", 0)
        before = math.hypot(*(weight * _width(*self._factors(name)) for name, weight in ruling.items()))
        after = math.hypot(*(ruling[name] * _width(one.low, one.high) for name, one in found.items()))
        share = max(after / before, REPEAT_SPREAD / _width(low, high))
        return Interval(low**share, high**share, "measured" if is_told else "calibrated", n)

    def _ruling(self, metric: str, load: At) -> Mapping[str, float]:
        """Which of the corrected metrics make this one, and with what weight its logarithm follows theirs."""
        first = load.state.ttft / load.state.e2el
        times = {"tpot": 1.0 - first, "ttft": first}
        if metric in ("itl", "decode_throughput"):
            return {"tpot": 1.0}
        if metric == "ttft_cold":
            return {"ttft": 1.0}
        if metric in ENERGY_METRICS or metric.startswith("carbon"):
            return {"power": 1.0, **times}
        return times

    def _is_known(self, metric: str) -> bool:
        return bool(self._seen.get(metric)) or metric in self._shifts

    def _corrected(self, metric: str, load: At) -> Corrected:
        """Where there is nothing to compare with, of a prediction of 1."""
        value = _predicted(metric, load.state, self._power_w) or 1.0
        raw = _raw(value, self._factors(metric), load)
        if not self._is_known(metric):
            return Corrected(raw, raw.value, raw.low, raw.high, "formula", 0)
        return corrected([raw], self._seen.get(metric, ()), self._shifts.get(metric, NO_SHIFT), self._ties(metric))[0]


def ties_of(metric: str) -> Ties:
    return FIRST_TOKENS if metric == "ttft" else TIMES


def _width(low: float, high: float) -> float:
    return max(math.log(high / low), 1e-6)


def _raw(value: float, factors: tuple[float, float], load: At) -> Raw:
    low, high = factors
    state = load.state
    return Raw(value, value * low, value * high, state.concurrency, load.input_len, load.output_len, load.shares)


def _predicted(metric: str, state: Steady, power_w: Power | None) -> float | None:
    if metric == "power":
        return None if power_w is None else power_w(state)
    return {
        "tpot": state.tpot,
        "itl": state.itl,
        "ttft": state.ttft,
        "prefill_throughput": state.prefill_throughput,
    }.get(metric)


def _seen(point: KnownPoint, load: At, learnt: "Adjustment") -> tuple[str, Seen] | None:
    """The base metric that the point tells, and how sure. None where it tells none."""
    metric, value, noise = {"ttft_service": "ttft"}.get(point.metric, point.metric), point.value, REPEAT_SPREAD
    if metric == "decode_throughput":
        metric, value = "tpot", load.state.running / value
    if metric in REQUEST_METRICS:
        told = _tpot_of(metric, value, load, learnt)
        if told is None:
            return None
        metric, (value, noise) = "tpot", told
    elif metric in ENERGY_METRICS:
        per_token = value / (load.output_len if metric == "energy_per_request" else 1.0)
        metric, value, noise = "power", per_token * learnt.state(load).output_throughput, 2 * REPEAT_SPREAD
    if metric == "power" and load.busy < 1.0:
        value, waiting_w = value / max(load.busy, 1e-9), (1.0 - load.busy) * load.idle_w
        value -= waiting_w / max(load.busy, 1e-9)  # of the mean, what is drawn at work
        if value * load.busy < waiting_w:
            return None  # most of it is drawn while nothing is done
    raw = learnt.predicted(metric, load)
    return None if raw is None else (metric, Seen(raw, value, noise, point.verified))


def _tpot_of(metric: str, value: float, load: At, learnt: "Adjustment") -> tuple[float, float] | None:
    """Time per token and its noise, by Little's law. None where requests come at a rate of their own, or where the
    first token takes so long that nothing is told of the others."""
    if load.output_len <= 1 or (load.request_rate is not None and metric != "e2el"):
        return None
    tokens = {"output_throughput": load.output_len, "total_throughput": load.input_len + load.output_len}.get(
        metric, 1.0
    )
    e2el = value if metric == "e2el" else load.state.concurrency * tokens / value
    first = load.state.ttft * learnt.factor("ttft", load)
    rest = e2el - first
    if rest < e2el / 2:
        return None
    doubt = learnt.doubt("ttft", load) * first / rest
    return rest / (load.output_len - 1), math.hypot(REPEAT_SPREAD, doubt)


def _unused(point: KnownPoint) -> Problem:
    return Problem(
        code="unused_point",
        severity="note",
        message=f"The measured {point.metric} at {point.load} corrects nothing: no speed follows from it at that load.",
        remedy="Give tpot, ttft, prefill_throughput, power, or output_throughput at a concurrency.",
    )


def _unbelievable(point: KnownPoint, seen: Seen) -> Problem:
    times = math.exp(abs(seen.log_ratio))
    side = "above" if seen.log_ratio > 0 else "below"
    return Problem(
        code="unbelievable_point",
        severity="warning",
        message=f"The measured {point.metric} of {point.value:g} at {point.load} is {times:.0f} times {side} what is "
        "possible to expect, so it was left out.",
        remedy="Check its unit (seconds, tokens/s, W), its workload, and that it is of this deployment.",
    )
