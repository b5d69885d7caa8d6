"""How good one configuration is under one load: fast enough for tens of thousands of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from servolt.deployment import Deployment
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.plan.adjustment import Adjustment, At, Interval, at
from servolt.plan.cost import Economy, costs_of
from servolt.plan.idle import busy_share, draw_of
from servolt.plan.memory.budget import Budget
from servolt.plan.power import power_w
from servolt.plan.roofline import RooflineLaw, roofline_of
from servolt.plan.search_chance import chance_of, has_chances
from servolt.plan.search_learnt import Learnt
from servolt.plan.search_limits import Constraints, Miss, Objective, fixed_misses, misses_of
from servolt.plan.search_space import Candidate, bits_of, cache_bits
from servolt.plan.spreads import factors_of
from servolt.plan.steady import Steady, saturation, steady, times_of
from servolt.plan.verdict import Verdict, verdict_of
from servolt.plan.work import SPILLING
from servolt.workload import LoadPoint, Workload

__all__ = ["Outcome", "Room", "Scorer"]

BudgetOf = Callable[[Deployment, Model, Accelerator], Budget]

GAINED = 1.03  # of the throughput, what more streams must give where some of them wait
NEAR = 1e-3  # of the streams at a request rate
TRIES = 30
# Where a bound on times breaks between two loads that are tried, the load at which it does is found to a tenth, and
# so much less is tried too: it keeps the bound more surely.
STEP, SAFER = 1.1, (0.9, 0.8, 0.7)


class Room(NamedTuple):
    """What of a budget a search needs."""

    verdict: Verdict
    tokens: int
    max_num_seqs: int
    max_concurrency: float
    needed_bytes: int  # of the fullest device, at most
    available_bytes: int | None

    @classmethod
    def of(cls, budget: Budget) -> "Room":
        verdict = verdict_of(budget)
        tight = budget.max_concurrency_low if verdict != "no" else budget.max_concurrency
        return cls(
            verdict, budget.kv_cache_tokens, budget.max_num_seqs, tight, budget.high_bytes, budget.available_bytes
        )


class Outcome(NamedTuple):
    """`misses` are the bounds that are not kept; without any it may be chosen. Without a state it has no speed."""

    place: int  # of the candidate
    candidate: Candidate
    room: Room | None
    load: LoadPoint
    state: Steady | None
    power_w: float | None
    usd_per_hour: float | None
    usd_per_million: float | None
    misses: tuple[Miss, ...] = ()
    strain: float = 0.0  # times over their bounds, the worst one: above 1 one is broken, at 0 there is no bound
    chance: float = 1.0  # that the bounds on times are kept, by the intervals of the predictions
    learnt: tuple[Adjustment, At] | None = None  # where measurements say something about it

    @property
    def devices(self) -> int:
        return self.candidate.accelerator.count

    @property
    def throughput_per_device(self) -> float:
        return 0.0 if self.state is None else self.state.output_throughput / self.devices

    @property
    def joules_per_token(self) -> float | None:
        return None if self.state is None or self.power_w is None else self.power_w / self.state.output_throughput

    def interval(self, metric: str) -> Interval:
        """P10 and P90 as factors on its value."""
        if self.learnt is not None:
            return self.learnt[0].interval(metric, self.learnt[1])
        one = self.candidate
        return Interval(*factors_of(metric, one.deployment, one.model, one.accelerator), "formula", 0)

    def expected_loss(self, objective: Objective) -> float | None:
        """What is minimised: the loss for each chance to keep the bounds on times. One that breaks them is worth
        nothing."""
        loss = self.loss(objective)
        return None if loss is None else loss / max(self.chance, 1e-9)

    def loss(self, objective: Objective) -> float | None:
        """As predicted, the lower the better; None where it is not known."""
        if self.state is None:
            return None
        if objective == "cost":
            return self.usd_per_million
        if objective == "latency":
            return self.state.e2el
        if objective == "energy":
            return self.joules_per_token
        return self.devices / self.state.output_throughput

    @property
    def axes(self) -> tuple[float, float, float, float, float]:
        """What no other may beat in all at the same time, the lower the better: a request's seconds, seconds of a
        device per token, USD and joules per token, and the chance to break a bound on times."""
        usd, joules = self.usd_per_million, self.joules_per_token
        assert self.state is not None
        unknown = float("inf")
        return (
            self.state.e2el,
            1.0 / self.throughput_per_device,
            unknown if usd is None else usd,
            unknown if joules is None else joules,
            1.0 - self.chance,
        )


class Scorer:
    """Remembers memory and law of configurations that have them in common."""

    def __init__(
        self,
        workload: Workload,
        limits: Constraints,
        economies: Mapping[str, Economy],
        budget_of: BudgetOf,
        *,
        loads: Sequence[int] = (),
        learnt: Learnt | None = None,
    ) -> None:
        self._workload, self._limits, self._economies, self._budget_of = workload, limits, economies, budget_of
        self._learnt = learnt
        # A search is for one load: the first that the workload names, else each that is tried.
        self._loads = tuple(LoadPoint(load, None) for load in sorted(loads)) or workload.points[:1]
        self._rooms: dict[tuple[object, ...], Room] = {}
        self._laws: dict[tuple[object, ...], RooflineLaw] = {}

    def outcomes(self, place: int, candidate: Candidate) -> Iterator[Outcome]:
        """One for each load; further loads are left out where more streams gain nothing. Without room a single one."""
        fixed = tuple(self._fixed(candidate))
        room = None if fixed else self._room(candidate)
        short = fixed if room is None else tuple(_shortage(room))
        if room is None or short:
            yield Outcome(place, candidate, room, self._loads[0], None, None, None, None, short)
            return
        law = self._law(candidate)
        learnt = None
        if self._learnt is not None:
            learnt = self._learnt.adjustment(candidate, law, float(room.tokens) or None, float(room.max_num_seqs))
        kept = None
        for load in self._loads:
            outcome = self._outcome(place, candidate, room, law, learnt, load)
            if kept is not None and _only_waits(outcome, kept):
                break
            yield outcome
            if outcome.state is None or outcome.state.waiting_s > 0 or _breaks(outcome):
                break
            kept = outcome
        if kept is not None and kept is not outcome and _breaks(outcome):
            yield from self._between(kept, outcome, law, learnt)

    def _between(
        self, kept: Outcome, broken: Outcome, law: RooflineLaw, learnt: Adjustment | None
    ) -> Iterator[Outcome]:
        """Loads up to the one at which a bound on times breaks: else those that lie well would be judged at up to twice
        the streams of those that don't."""
        place, candidate, room = kept.place, kept.candidate, kept.room
        assert room is not None
        low, high = kept.load.concurrency or 1, broken.load.concurrency or 1
        tried = {low, high}
        while high > low * STEP and high - low > 1:
            middle = min(high - 1, max(low + 1, round((low * high) ** 0.5)))
            outcome = self._outcome(place, candidate, room, law, learnt, LoadPoint(middle, None))
            yield outcome
            low, high = (low, middle) if outcome.misses else (middle, high)
            tried.add(middle)
        for load in dict.fromkeys(round(low * share) for share in SAFER):
            if load > (kept.load.concurrency or 1) and load not in tried:
                yield self._outcome(place, candidate, room, law, learnt, LoadPoint(load, None))

    def room(self, candidate: Candidate) -> Room:
        return self._room(candidate)

    def _fixed(self, candidate: Candidate) -> Iterator[Miss]:
        bits = bits_of(candidate.model)
        if candidate.deployment.kv_cache_dtype is not None:
            bits = min(bits, cache_bits(candidate.deployment.kv_cache_dtype))
        yield from fixed_misses(self._limits, devices=candidate.accelerator.count, bits=bits)
        yield from _too_large(candidate)

    def _outcome(
        self,
        place: int,
        candidate: Candidate,
        room: Room,
        law: RooflineLaw,
        learnt: Adjustment | None,
        load: LoadPoint,
    ) -> Outcome:
        state = self._state(law, room, load)
        if isinstance(state, Miss):
            return Outcome(place, candidate, room, load, None, None, None, None, (state,), state.excess)
        accelerator = candidate.accelerator
        busy_w = None if accelerator.tdp_w is None else power_w(law, state, accelerator)
        share = busy_share(law, self._workload, state.concurrency, state.running)
        told = None
        if learnt is not None:
            told = learnt, at(law, state, self._workload, load.request_rate)
            busy_w = None if busy_w is None else busy_w * learnt.factor("power", told[1])
            state = learnt.state(told[1])
        watts = None if busy_w is None else draw_of(law, accelerator, busy_w, share).mean_w
        hourly = per_million = None
        if (economy := self._economies.get(accelerator.name)) is not None:
            costs = costs_of(economy, watts, state.output_throughput, accelerator.count)
            hourly, per_million = costs["cost_per_hour"], costs["cost_per_million_output_tokens"]
        misses = tuple(
            misses_of(
                self._limits,
                ttft=state.ttft,
                tpot=state.tpot,
                e2el=state.e2el,
                output_throughput=state.output_throughput,
                usd_per_hour=hourly,
                power_w=watts,
            )
        )
        strain = _strain(self._limits, state)
        found = Outcome(place, candidate, room, load, state, watts, hourly, per_million, misses, strain, 1.0, told)
        return self._with_chance(found, state) if has_chances(self._limits) else found

    def _with_chance(self, one: Outcome, state: Steady) -> Outcome:
        def factors(metric: str) -> tuple[float, float]:
            return one.interval(metric)[:2]

        chance = chance_of(self._limits, state, factors)
        least = self._limits.min_chance
        if least is None or chance >= least or one.misses:
            return one._replace(chance=chance)
        return one._replace(chance=chance, misses=(Miss("min_chance", chance, least, "", grows=True),))

    def _state(self, law: RooflineLaw, room: Room, load: LoadPoint) -> Steady | Miss:
        tokens, most = float(room.tokens) or None, float(room.max_num_seqs)
        streams = float(load.concurrency or 1)
        if load.request_rate is not None:
            found = _streams_at(law, self._workload, load.request_rate, tokens, most)
            if isinstance(found, Miss):
                return found
            streams = found
        state = steady(
            law,
            input_len=float(self._workload.input_len),
            output_len=float(self._workload.output_len),
            concurrency=streams,
            kv_cache_tokens=tokens,
            max_num_seqs=most,
        )
        return state if load.request_rate is None else _at_rate(state, load.request_rate, self._workload)

    def _room(self, candidate: Candidate) -> Room:
        deployment, layout = candidate.deployment, candidate.layout
        key = (*_same(candidate), deployment.max_num_seqs, _copies(candidate), layout.ep)
        if key not in self._rooms:
            self._rooms[key] = Room.of(self._budget_of(deployment, candidate.model, candidate.accelerator))
        return self._rooms[key]

    def _law(self, candidate: Candidate) -> RooflineLaw:
        key = (*_same(candidate), candidate.layout)
        if key not in self._laws:
            self._laws[key] = roofline_of(candidate.deployment, candidate.model, candidate.accelerator)
        return self._laws[key]


def _same(candidate: Candidate) -> tuple[object, ...]:
    deployment, layout = candidate.deployment, candidate.layout
    quantization, cache = deployment.quantization, deployment.kv_cache_dtype
    count = candidate.accelerator.count if deployment.engine in SPILLING else 0
    drafted = deployment.speculative_config
    return deployment.engine, candidate.accelerator.name, count, quantization, cache, layout.tp, layout.pp, drafted


def _copies(candidate: Candidate) -> int:
    """Copies of a dense model take as much each, however many there are: only a device alone differs. Experts are
    shared among them."""
    has_experts = any(kind.experts is not None for kind in candidate.model.layers)
    return candidate.layout.dp if has_experts else min(candidate.layout.devices, 2)


def _too_large(candidate: Candidate) -> Iterator[Miss]:
    """Weights that no device can hold even when they are spread evenly: then no budget needs to be computed."""
    deployment, accelerator = candidate.deployment, candidate.accelerator
    if deployment.engine in SPILLING or accelerator.kind == "cpu" or deployment.cpu_offload_gb:
        return
    memory = accelerator.visible_memory_bytes or accelerator.memory_bytes
    if deployment.hardware is not None and deployment.hardware.memory_bytes:
        memory = deployment.hardware.memory_bytes
    least = candidate.model.weights_bytes / candidate.layout.devices
    if memory and least > memory:
        yield Miss("memory", least, float(memory), "bytes")


def _shortage(room: Room) -> Iterator[Miss]:
    if room.verdict == "fits":
        return
    if room.available_bytes is None:
        yield Miss("memory", None, 0.0, "bytes")
    elif room.needed_bytes > room.available_bytes:
        yield Miss("memory", float(room.needed_bytes), float(room.available_bytes), "bytes")
    else:
        yield Miss("pool", room.max_concurrency, 1.0, "requests of the longest context")


def _strain(limits: Constraints, state: Steady) -> float:
    slo, least = limits.slo, limits.min_output_throughput
    found = 0.0 if least is None else least / state.output_throughput
    if slo is None:
        return found
    for value, bound in ((state.ttft, slo.ttft), (state.tpot, slo.tpot), (state.e2el, slo.e2el)):
        found = max(found, value / bound) if bound is not None else found
    return found


def _only_waits(outcome: Outcome, fewer: Outcome) -> bool:
    """Whether what more streams add stands in a queue: answers take longer, and no more of them come."""
    if outcome.state is None or not outcome.state.waiting_s:
        return False
    return outcome.throughput_per_device < GAINED * fewer.throughput_per_device


def _breaks(outcome: Outcome) -> bool:
    """More streams make a time longer, so a bound on times stays broken."""
    return any(miss.name in ("ttft", "tpot", "e2el", "min_chance", "power_w") for miss in outcome.misses)


def _at_rate(state: Steady, request_rate: float, workload: Workload) -> Steady:
    """What comes is what leaves: the streams are found to a thousandth only."""
    return state._replace(
        request_throughput=request_rate,
        output_throughput=request_rate * workload.output_len,
        total_throughput=request_rate * (workload.input_len + workload.output_len),
    )


def _streams_at(
    law: RooflineLaw, workload: Workload, request_rate: float, tokens: float | None, max_num_seqs: float
) -> float | Miss:
    """Where as many requests leave as come, by Little's law: streams = rate x seconds of a request."""
    input_len, output_len = float(workload.input_len), float(workload.output_len)
    most = saturation(
        law, input_len=input_len, output_len=output_len, kv_cache_tokens=tokens, max_num_seqs=max_num_seqs
    ).concurrency

    def requests_per_s(streams: float) -> float:
        times = times_of(law, input_len, output_len, streams, tokens, max_num_seqs)
        return streams / (times.ttft + (output_len - 1) * times.tpot)

    fastest = requests_per_s(most)
    if fastest < request_rate:
        return Miss("request_rate", fastest, request_rate, "requests/s", grows=True)
    low, high, below, above = 0.0, most, -request_rate, fastest - request_rate
    for _ in range(TRIES):
        middle = low + (high - low) * below / (below - above)
        over = requests_per_s(middle) - request_rate
        if abs(over) <= NEAR * request_rate:
            return middle
        if over < 0:
            low, below, above = middle, over, above / 2  # Illinois: else one end may never move
        else:
            high, above, below = middle, over, below / 2
    return high
