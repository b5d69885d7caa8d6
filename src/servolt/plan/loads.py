"""What a deployment on accelerators shows at each load of a workload: the state, and the figures that follow."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from servolt.deployment import Deployment
from servolt.document import Problem
from servolt.gpu import Accelerator
from servolt.metrics import METRICS, Basis, Estimate
from servolt.model import Model
from servolt.plan.adjustment import Adjustment, At, adjustment, at
from servolt.plan.arrivals import lengths_of, requests_of
from servolt.plan.correction import KnownPoint, Shift
from servolt.plan.cost import Economy, costs_of, costs_said
from servolt.plan.holding import Holding, holding_of
from servolt.plan.idle import Draw, busy_share, draw_of, idle_w
from servolt.plan.memory import Budget
from servolt.plan.plan import CurvePoint, StepTerm
from servolt.plan.plausibility import bounds_of
from servolt.plan.playing import Fitted, Limits, Played, play_closed, play_open
from servolt.plan.power import power_w
from servolt.plan.reckoning import in_step, load_time_said, power_said, prefill_said, tpot_said, ttft_said
from servolt.plan.roofline import DEFAULT_BATCH_TOKENS, roofline_of
from servolt.plan.spreads import factors_of
from servolt.plan.steady import (
    STORAGE_BYTES_PER_S,
    Saturation,
    Steady,
    Times,
    at_request_rate,
    load_time_s,
    saturation,
    steady,
    times_of,
)
from servolt.workload import LoadPoint, Slo, Workload

__all__ = ["Load", "LoadPlanner"]

LEVEL = 0.8  # of all intervals: from P10 to P90
METHOD = "P10 and P90 of the errors of such deployments that were left out of the fit, rounded"
# Of these no errors were measured.
BY_HAND = frozenset(
    {
        *("load_time", "saturation_concurrency", "saturation_request_rate"),
        *("kv_concurrency", "slo_attainment", "request_goodput"),
        *("utilisation", "idle_energy_share"),
    }
)
BY_HAND_METHOD = "a width set by hand: no errors of this figure were measured"
MEASURED_METHOD = "the measured value itself; P10 and P90 of what such a measurement differs by when it is repeated"
CALIBRATED_METHOD = (
    "the formula, moved towards measured values by how far its errors at both loads go together and how much repeats "
    "differ; P10 and P90 of what is left"
)
# Whose power is mostly what waits, no error of a roofline tells how far it is off.
WITH_IDLE = frozenset({"power", "energy_per_output_token", "energy_per_request"})
RATES = frozenset({"request_throughput", "output_throughput", "total_throughput"})
PLAYED_METHOD = "requests played through the law of one step; low and high as of the mean, of left-out deployments"
# Requests that are played: enough for a median in tens of milliseconds, and for a P99 where lengths are spread.
MEASURED, MEASURED_SPREAD, MOST_PLAYED = 400, 1500, 30_000
MOST_WARMUP = 2000
CURVE_STEP = 2.0  # each point of the curve has so many times the streams of the one before


class Load(NamedTuple):
    """The uncorrected state at one load. Where requests come faster than they can leave, `offered` is their rate and
    the state is the fastest there is."""

    at: At
    offered: float | None = None


class _Figure(NamedTuple):
    metric: str
    value: float | None
    reason: str | None = None
    statistic: str | None = None
    method: str | None = None


class LoadPlanner:
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
        self._workload, self._memory, self._economy = workload, memory, economy
        self._slo = slo or workload.slo
        self._law = roofline_of(deployment, model, accelerator)
        self._holding_of: dict[str, Holding] = {}
        self._room = float(memory.kv_cache_tokens) if memory.kv_cache_tokens else None
        self._idle_w = idle_w(accelerator)[0]
        self._loads: dict[LoadPoint, Load] = {}
        self._plays: dict[int, Played | None] = {}
        self._known_factors: dict[str, tuple[float, float]] = {}

    def load(self, point: LoadPoint) -> Load:
        """Of the plan's own workload."""
        if point not in self._loads:
            self._loads[point] = self._load(self._workload, point)
        return self._loads[point]

    def _load(self, workload: Workload, point: LoadPoint) -> Load:
        if point.request_rate is None:
            return Load(self._at(workload, self._closed(workload, float(point.concurrency or 1))))
        state = at_request_rate(
            self._law,
            input_len=float(workload.input_len),
            output_len=float(workload.output_len),
            request_rate=point.request_rate,
            kv_cache_tokens=self._tokens(workload),
            max_num_seqs=float(self._memory.max_num_seqs),
            max_concurrency=workload.max_concurrency,
        )
        if state is not None:
            return Load(self._at(workload, state, point.request_rate))
        most = min(self._most(workload).concurrency, workload.max_concurrency or float("inf"))
        return Load(self._at(workload, self._closed(workload, most)), point.request_rate)

    def _tokens(self, workload: Workload) -> float | None:
        """Of the cache, as for requests that are all of the mean lengths: spread ones hold more on average."""
        if self._room is None or not workload.is_spread:
            return self._room
        context = workload.input_len + workload.output_len / 2
        return self._room * context / self._holds(workload).mean

    def _holds(self, workload: Workload) -> Holding:
        key = workload.shape_digest
        if key not in self._holding_of:
            self._holding_of[key] = holding_of(workload)
        return self._holding_of[key]

    def _at(self, workload: Workload, state: Steady, request_rate: float | None = None) -> At:
        found = at(self._law, state, workload, request_rate)
        return found._replace(busy=self._draw(workload, found, state, 0.0).busy, idle_w=self._idle_w)

    def _draw(self, workload: Workload, load: At, state: Steady, busy_w: float) -> Draw:
        """A closed loop, and an open one that is too fast, are never without requests."""
        if load.request_rate is None and workload.arrival != "closed":
            share = 1.0
        else:
            share = busy_share(self._law, workload, state.concurrency, state.running)
        return draw_of(self._law, self._accelerator, busy_w, share)

    def _closed(self, workload: Workload, concurrency: float) -> Steady:
        return steady(
            self._law,
            input_len=float(workload.input_len),
            output_len=float(workload.output_len),
            concurrency=concurrency,
            kv_cache_tokens=self._tokens(workload),
            max_num_seqs=float(self._memory.max_num_seqs),
        )

    def _most(self, workload: Workload, slo: Slo | None = None) -> Saturation:
        return saturation(
            self._law,
            input_len=float(workload.input_len),
            output_len=float(workload.output_len),
            kv_cache_tokens=self._tokens(workload),
            max_num_seqs=float(self._memory.max_num_seqs),
            slo=slo,
        )

    def adjustment(self, points: Sequence[KnownPoint], shifts: Mapping[str, Shift] | None) -> Adjustment:
        return adjustment(
            points,
            self._holding,
            self.factors,
            power_w=lambda state: power_w(self._law, state, self._accelerator),
            shifts=shifts,
            bounds=bounds_of(self._law, self._deployment, self._model, self._accelerator),
        )

    def _holding(self, workload: Workload) -> At | None:
        """None where requests come faster than they can leave: nothing there repeats."""
        load = self._load(workload, workload.points[0])
        return load.at if load.offered is None else None

    def estimates(self, point: LoadPoint, learnt: Adjustment) -> Iterator[Estimate]:
        load = self.load(point)
        for one in self._figures(load, learnt):
            yield self._estimate(one, point, load.at, learnt)

    def step(self, load: Load) -> tuple[StepTerm, ...]:
        """Where a decode step spends its time."""
        found = load.at
        sequences = found.state.running / self._law.work.replicas
        terms = list(self._law.decode_terms(sequences, found.input_len + found.output_len / 2))
        total = sum(term.seconds for term in terms) or 1.0
        said = in_step(self._law, sequences, found.input_len + found.output_len / 2)
        return tuple(
            StepTerm(
                name=term.name,
                seconds=term.seconds,
                share=term.seconds / total,
                formula=said.get(term.name, term.formula),
            )
            for term in terms
            if term.seconds > 0
        )

    def curve(self, learnt: Adjustment) -> tuple[CurvePoint, ...]:
        """From one stream to where more gain nothing, doubled at each point."""
        most, streams, found = self._most(self._workload).concurrency, 1.0, []
        while True:
            load = self._at(self._workload, self._closed(self._workload, streams))
            state = learnt.state(load)
            watts = power_w(self._law, load.state, self._accelerator) * learnt.factor("power", load)
            drawn = self._draw(self._workload, load, state, watts).mean_w
            found.append(
                CurvePoint(
                    concurrency=streams,
                    request_rate=state.request_throughput,
                    output_throughput=state.output_throughput,
                    ttft=state.ttft,
                    tpot=state.tpot,
                    power=None if self._accelerator.tdp_w is None else drawn,
                )
            )
            if streams >= most:
                return tuple(found)
            streams = min(streams * CURVE_STEP, most)

    def overloads(self) -> list[Problem]:
        """Rates that are more than can be served, each with how much is."""
        found = []
        for point in self._workload.points:
            load = self.load(point)
            if load.offered is not None:
                most = load.at.state.request_throughput
                found.append(_overloaded(load.offered, most, self._limit()))
        return found

    def _limit(self) -> str:
        cap = self._workload.max_concurrency
        most = self._most(self._workload)
        if cap is not None and cap < most.concurrency:
            return f"the client's cap of {cap} requests in flight"
        return most.limit.replace("_", " ")

    def played(self, load: Load, learnt: Adjustment) -> Played | None:
        """The load request by request, where arrivals or lengths are spread. None where the closed form says it all,
        and where the queue grows without end."""
        capped = load.offered is not None and self._workload.max_concurrency is not None
        is_closed = self._workload.arrival == "closed" or (capped and self._workload.trace is None)
        is_even = (is_closed or self._workload.arrival == "constant") and not self._workload.is_spread
        endless = load.offered is not None and self._workload.max_concurrency is None
        if is_even or (endless and self._workload.trace is None):
            return None
        if id(load) not in self._plays:
            self._plays[id(load)] = self._play(load, learnt, is_closed=is_closed)
        return self._plays[id(load)]

    def _play(self, load: Load, learnt: Adjustment, *, is_closed: bool) -> Played | None:
        workload, copies = self._workload, max(1, int(self._law.work.replicas))
        law = Fitted(self._law, learnt.factor("tpot", load.at), learnt.factor("ttft", load.at))
        limits = Limits(
            slots=self._memory.max_num_seqs,
            batch_tokens=self._deployment.max_num_batched_tokens or DEFAULT_BATCH_TOKENS,
            kv_cache_tokens=self._room,
            in_flight=None if workload.max_concurrency is None else -(-workload.max_concurrency // copies),
            longest=self._memory.max_model_len,
        )
        request_s, slo = self._law.constants.request_s, self._slo
        flying = math.ceil(load.at.state.concurrency / copies)
        measured = MEASURED if workload.arrival == "poisson" and not workload.is_spread else MEASURED_SPREAD
        if is_closed:
            return play_closed(
                law,
                lengths_of(workload),
                limits,
                streams=flying,
                request_s=request_s,
                measured=max(measured, 3 * flying),
                slo=slo,
            )
        trace = workload.trace
        warmup = 0 if trace is not None else min(2 * flying, MOST_WARMUP) + MEASURED // 8
        point = LoadPoint(None, load.offered or load.at.request_rate)
        if trace is not None:
            measured = min(len(trace.requests[::copies]), MOST_PLAYED)
        return play_open(
            law,
            requests_of(workload, point, copies),
            limits,
            request_s=request_s,
            warmup=warmup,
            measured=measured,
            slo=slo,
        )

    def _played_figures(self, played: Played, state: Steady) -> Iterator[_Figure]:
        said = f"{played.requests:,} requests played one by one; at most {played.most_running} ran and "
        said += f"{played.most_waiting} waited on one copy"
        for metric in ("ttft", "tpot", "e2el", "queue_time"):
            times = getattr(played, metric)
            for statistic in () if times is None else times._fields:
                yield _Figure(metric, getattr(times, statistic), said, statistic, PLAYED_METHOD)
        yield _Figure("preemptions", played.preemptions, said, None, PLAYED_METHOD)
        if played.slo_attainment is not None:
            yield _Figure("slo_attainment", played.slo_attainment, said, None, PLAYED_METHOD)
            goodput = played.slo_attainment * state.request_throughput
            yield _Figure("request_goodput", goodput, said, None, PLAYED_METHOD)

    def plays(self) -> list[Problem]:
        """What the requests that were played tell."""
        found, limit = [], self._memory.max_model_len
        for played in self._plays.values():
            if played is not None and played.refused:
                found.append(_too_long(played, limit))
            if played is not None and not played.whole:
                found.append(_cut(played))
        return found

    def _figures(self, load: Load, learnt: Adjustment) -> Iterator[_Figure]:
        state = learnt.state(load.at)
        played = self.played(load, learnt)
        if played is None:
            yield from self._times(load, state, learnt)
        else:
            state = _as_played(self._workload, load, state, played, int(self._law.work.replicas))
            yield self._cold(load, state, learnt.factor("ttft", load.at))
            yield from self._played_figures(played, state)
        yield _Figure("output_throughput", state.output_throughput)
        yield _Figure("request_throughput", state.request_throughput, self._rate_said(load, state))
        yield _Figure("total_throughput", state.total_throughput)
        if load.at.output_len > 1:
            if played is None:
                yield _Figure("tpot", state.tpot, tpot_said(self._split(load), learnt.factor("tpot", load.at)))
            yield _Figure("itl", state.itl)
            running = (
                None if self._workload.arrival == "closed" else f"{state.running:.6g} run / tpot {state.tpot:.6g} s"
            )
            yield _Figure("decode_throughput", state.running / state.tpot, running)
        prefill = prefill_said(self._law, load.at.input_len, learnt.factor("prefill_throughput", load.at))
        yield _Figure("prefill_throughput", state.prefill_throughput, prefill)
        yield from self._limits(learnt)
        yield from self._kept()
        rank = self._memory.fullest
        weights, engine = float(rank.weights_bytes * rank.ranks), self._deployment.engine
        said = load_time_said(weights, STORAGE_BYTES_PER_S, load_time_s(engine, 0.0))
        yield _Figure("load_time", load_time_s(engine, weights), said)
        yield from self._power(load, state, learnt)

    def _split(self, load: Load) -> Times:
        """The state's times by their parts."""
        asked, found = self._workload, load.at
        limits = self._tokens(asked), float(self._memory.max_num_seqs)
        return times_of(self._law, found.input_len, found.output_len, found.state.concurrency, *limits)

    def _times(self, load: Load, state: Steady, learnt: Adjustment) -> Iterator[_Figure]:
        """Of an overload, only what does not grow without end."""
        endless = None
        if load.offered is not None and self._workload.max_concurrency is None:
            over = load.offered - state.request_throughput
            endless = (
                f"requests come faster than they can leave, {load.offered:.4g} and {state.request_throughput:.4g} each "
                f"second: the queue grows by {over:.4g} of them, and with it the time to the first token"
            )
        sent = None
        if load.offered is not None and endless is None:
            sent = "from when the client sends it: requests wait in the client as long as the load lasts"
        factor = learnt.factor("ttft", load.at)
        said = ttft_said(self._law, self._split(load), load.at.input_len, factor)
        yield _Figure("ttft", None if endless else state.ttft, endless or (f"{said}; {sent}" if sent else said))
        yield self._cold(load, state, factor)
        yield _Figure("e2el", None if endless else state.e2el, endless or sent)

    def _cold(self, load: Load, state: Steady, factor: float) -> _Figure:
        request_s, alone = self._law.constants.request_s, self._law.prefill_s(load.at.input_len)
        said = f"request {request_s:.5g} s + prompt {alone:.5g} s" + (f" x {factor:.5g}" if factor != 1.0 else "")
        return _Figure("ttft_cold", state.ttft_cold, said)

    def _limits(self, learnt: Adjustment) -> Iterator[_Figure]:
        """Where more streams gain nothing, and the rate that comes to."""
        most = self._most(self._workload, self._slo)
        reason = f"bound by {most.limit.replace('_', ' ')}"
        if most.limit == "kv_capacity" and self._room is not None:
            held = self._workload.input_len + self._workload.output_len / 2
            tokens = self._tokens(self._workload) or self._room
            reason += f": {tokens:,.0f} tokens / {held:,.6g} of a request x {self._law.work.replicas:g} copies"
        yield _Figure("saturation_concurrency", most.concurrency, reason)
        if most.concurrency > 0:
            there = learnt.state(self._at(self._workload, self._closed(self._workload, most.concurrency)))
            yield _Figure("saturation_request_rate", there.request_throughput, reason)

    def _kept(self) -> Iterator[_Figure]:
        """Requests of these lengths that the cache holds."""
        if self._room is None:
            return
        holding, copies = self._holds(self._workload), self._law.work.replicas
        value = holding.requests(self._room) * copies
        said = f"{self._room:,.0f} tokens / {holding.mean:,.0f} that a request holds on average"
        said += f" (deviation {holding.deviation:,.0f})"
        yield _Figure("kv_concurrency", value, said if copies == 1 else f"{said} x {copies:g} copies")

    def _power(self, load: Load, state: Steady, learnt: Adjustment) -> Iterator[_Figure]:
        watts, found = None, load.at
        yield _Figure("utilisation", self._draw(self._workload, found, state, 0.0).busy, self._busy_said(found, state))
        if self._accelerator.tdp_w is None:
            yield _Figure("power", None, f"the power limit of {self._accelerator.name} is not known")
        else:
            busy_w = power_w(self._law, found.state, self._accelerator) * learnt.factor("power", found)
            draw = self._draw(self._workload, found, state, busy_w)
            watts = draw.mean_w
            said = power_said(self._law, found.state, self._accelerator, draw, learnt.factor("power", found))
            yield _Figure("power", watts, f"{said}; {waits}" if (waits := self._waits(draw)) else said)
            yield _Figure("energy_per_output_token", watts / state.output_throughput)
            yield _Figure("energy_per_request", watts / state.request_throughput)
            waits = f"{draw.waiting_w:.5g} W of idle time / {draw.mean_w:.5g} W"
            yield _Figure("idle_energy_share", draw.idle_share, waits)
        if self._economy is not None:
            costs = costs_of(self._economy, watts, state.output_throughput, self._accelerator.count)
            said_of = costs_said(self._economy, watts, state.output_throughput, self._accelerator.count)
            for metric, value in costs.items():
                yield _Figure(metric, value, said_of[metric])

    def _rate_said(self, load: Load, state: Steady) -> str | None:
        """Of an open loop; a closed one's is its streams over the seconds of a request."""
        if self._workload.arrival == "closed":
            return None
        if load.offered is None:
            return f"{load.at.request_rate:g} requests/s come, and as many leave"
        e2el = state.ttft + (load.at.output_len - 1) * state.tpot
        return f"{state.concurrency:.6g} in flight / {e2el:.6g} s from the engine's queue to the end"

    def _busy_said(self, load: At, state: Steady) -> str:
        work, each = self._law.work, state.concurrency / self._law.work.replicas
        used = f"{work.replicas * work.stages * work.devices:g} of {self._accelerator.count} devices are used"
        if load.request_rate is None:
            return f"a load that never ends: {each:.4g} requests for each copy, {used}"
        if self._workload.arrival == "constant":
            return f"{each:.5g} requests in a copy on average, {used}"
        return (
            f"1 - exp(-{each:.5g} requests in a copy / {self._workload.arrives_together:g} that come at once), {used}"
        )

    def _waits(self, draw: Draw) -> str | None:
        if draw.busy == 1.0:
            return None
        idle = f"{draw.idle_share:.1%}".replace("%", " %")
        return f"idle by {idle_w(self._accelerator)[1]}: {idle} of the joules are idle"

    def _estimate(self, one: _Figure, point: LoadPoint, load: At, learnt: Adjustment) -> Estimate:
        basis: Basis = "formula"
        low = high = n = None
        if one.metric == "cost_per_hour":
            basis, low, high = "exact", one.value, one.value  # a price is what it is
        elif one.value is not None:
            found = learnt.interval(one.metric, load)
            factors = found.low, found.high
            if one.metric in WITH_IDLE and load.busy < 1.0:
                factors = Draw(power_w(self._law, load.state, self._accelerator), load.idle_w, load.busy).interval(
                    *factors
                )
            basis, n, low, high = found.basis, found.n or None, one.value * factors[0], one.value * factors[1]
            low, high = self._bounded(one.metric, one.value, load, low, high)
        return Estimate(
            metric=one.metric,
            value=one.value,
            low=low,
            high=high,
            unit=METRICS[one.metric].unit,
            basis=basis,
            statistic=one.statistic,
            concurrency=point.concurrency,
            request_rate=point.request_rate,
            level=LEVEL,
            method=one.method or _method(one.metric, basis),
            n=n,
            reason=one.reason,
        )

    def _bounded(self, metric: str, value: float, load: At, low: float, high: float) -> tuple[float, float]:
        """What comes is what leaves, as long as it can; a share is at most 1, and of a closed loop what it is."""
        if metric == "utilisation" and load.request_rate is None:
            return value, value
        if metric == "kv_concurrency":
            holding, copies = self._holds(self._workload), self._law.work.replicas
            least = holding.requests_surely(float(self._memory.kv_cache_tokens_low)) * copies
            return min(least, value), max(value, holding.requests(float(self._memory.kv_cache_tokens_high)) * copies)
        if METRICS[metric].unit == "share":
            return low, min(high, 1.0)
        if metric in RATES and load.request_rate is not None:
            least = self._most_rate() * low / value
            return value * min(1.0, least / load.request_rate), value
        return low, high

    def _most_rate(self) -> float:
        """Requests/s that can leave."""
        most = self._most(self._workload).concurrency
        most = min(most, self._workload.max_concurrency or most)
        return self._closed(self._workload, most).request_throughput

    def factors(self, metric: str) -> tuple[float, float]:
        if metric not in self._known_factors:
            found = factors_of(metric, self._deployment, self._model, self._accelerator)
            self._known_factors[metric] = found
        return self._known_factors[metric]


def _method(metric: str, basis: Basis) -> str:
    if basis == "measured":
        return MEASURED_METHOD
    if basis == "calibrated":
        return CALIBRATED_METHOD
    return BY_HAND_METHOD if metric in BY_HAND else METHOD


def _as_played(workload: Workload, load: Load, state: Steady, played: Played, copies: int) -> Steady:
    """Rates of a closed loop and of a capped one are what was played; an open loop's are what comes."""
    tpot = state.tpot if played.tpot is None else played.tpot.mean
    state = state._replace(ttft=played.ttft.mean, e2el=played.e2el.mean, tpot=tpot)
    if load.at.request_rate is not None:
        return state
    requests, tokens = played.request_throughput * copies, played.output_throughput * copies
    total = tokens + requests * workload.input_len
    return state._replace(request_throughput=requests, output_throughput=tokens, total_throughput=total)


def _too_long(played: Played, limit: int) -> Problem:
    return Problem(
        code="requests_too_long",
        severity="warning",
        message=f"{played.refused:,} requests of this workload are longer than the {limit:,} tokens of a context or "
        "than the KV cache: an engine refuses them, so they were left out.",
        remedy="Raise max_model_len, or cut the lengths with max.",
    )


def _cut(played: Played) -> Problem:
    return Problem(
        code="played_in_part",
        severity="note",
        message=f"Only {played.requests:,} requests were played: the load takes more steps than that.",
        remedy="Percentiles are of those. Give a shorter trace, or a lower rate.",
    )


def _overloaded(offered: float, most: float, limit: str) -> Problem:
    return Problem(
        code="overload",
        severity="warning",
        message=f"{offered:.4g} requests/s are {offered / most:.3g} times the {most:.4g} that can leave, bound by "
        f"{limit}: throughput, power and energy are the fullest load's, and the queue grows for as long as it lasts.",
        remedy=f"Send at most {most:.4g} requests/s, or serve with more devices.",
    )
