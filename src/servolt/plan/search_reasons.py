"""Why a configuration was chosen and others were not, in words; and what to measure before."""

import math
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import NormalDist
from typing import Literal, NamedTuple

from servolt.deployment import Deployment
from servolt.metrics import METRICS
from servolt.plan.correction import Z10
from servolt.plan.information import Contender, chances, worth_most
from servolt.plan.plan import Figure
from servolt.plan.search_limits import Constraints, Miss, Objective
from servolt.plan.search_score import Outcome
from servolt.units import format_bytes, format_duration
from servolt.workload import Workload

__all__ = [
    "Rival",
    "Role",
    "Told",
    "amount",
    "broken",
    "contenders_of",
    "figures_of_outcome",
    "identity_of",
    "in_words",
    "label_of",
    "rivals_of",
    "told_gains",
]

# So many configurations may still turn out to be the best; the rest is far behind.
CONTENDERS = 12
# What makes a choice better by less than this share is no reason to measure.
GAINS_LEAST = 0.005
# What is better by less is not worth its bound.
WORTH = 0.98
# A bound that is so many times what the choice takes was meant in another unit.
FAR = 100
# How far a bound may be missed by a configuration that may keep it in truth.
DOUBTFUL = 1.6
METRIC = {
    "cost": "cost_per_million_output_tokens",
    "latency": "e2el",
    "throughput": "output_throughput",
    "energy": "energy_per_output_token",
}
BEST = {
    "cost": "It is the cheapest of {kept}: {value} per million output tokens.",
    "latency": "It answers fastest of {kept}: {value} for a request.",
    "throughput": "It gives the most per device of {kept}: {value}.",
    "energy": "It takes the least energy of {kept}: {value} per output token.",
}
# Where others would be better and are less sure to keep the bounds.
SAFE = {
    "cost": "For its chance to keep the bounds it is the cheapest of {kept}: {value} per million output tokens.",
    "latency": "For its chance to keep the bounds it is the fastest of {kept}: {value} for a request.",
    "throughput": "For its chance to keep the bounds it gives the most per device of {kept}: {value}.",
    "energy": "For its chance to keep the bounds it takes the least energy of {kept}: {value} per output token.",
}
UNKNOWN = {
    "cost": "No price of these accelerators is known, so none is the cheapest: give --usd-per-hour.",
    "energy": "No power limit of these accelerators is known, so none takes the least energy.",
}
# Fields of a deployment that have a flag on the command line.
FLAGS = frozenset(
    (
        *("engine", "max_model_len", "max_num_seqs", "max_num_batched_tokens", "kv_cache_dtype", "threads", "dtype"),
        *("enable_prefix_caching", "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"),
        *("enable_expert_parallel", "gpu_memory_utilization", "mem_fraction_static", "enforce_eager", "block_size"),
        *("n_gpu_layers", "cpu_offload_gb"),
    )
)
WORSE = {"cost": "costs", "latency": "takes", "throughput": "gives", "energy": "draws"}


# Fields of a deployment that commands take from a file only.
NO_FLAG = frozenset(Deployment.model_fields) - FLAGS


Role = Literal["next", "accelerator", "engine", "broken"]


class Rival(NamedTuple):
    role: Role
    outcome: Outcome
    chance: float | None
    why: str


class Told(NamedTuple):
    outcome: Outcome
    gain: float
    share: float
    command: str
    why: str


def contenders_of(outcomes: Sequence[Outcome], aim: Objective, best: Outcome) -> list[Outcome]:
    """The choice first; then the best of each engine on each device, then the next best. They may miss a bound that
    a faster truth would keep."""
    able = [one for one in outcomes if one.loss(aim) is not None and all(_may_keep(miss) for miss in one.misses)]
    able.sort(key=lambda one: (bool(one.misses), one.expected_loss(aim), one.place))
    found: dict[tuple[object, ...], Outcome] = {identity_of(best): best}
    pairs = {_pair(best)}
    for one in able:
        if _pair(one) not in pairs and len(found) < CONTENDERS:
            pairs.add(_pair(one))
            found.setdefault(identity_of(one), one)
    for one in able:
        if len(found) >= CONTENDERS:
            break
        found.setdefault(identity_of(one), one)
    return list(found.values())


def rivals_of(best: Outcome, outcomes: Sequence[Outcome], contenders: Sequence[Outcome], aim: Objective) -> list[Rival]:
    """The next best, the best of another device and of another engine, and the best that only a bound keeps out."""
    kept = sorted(
        (
            one
            for one in outcomes
            if not one.misses and one.loss(aim) is not None and identity_of(one) != identity_of(best)
        ),
        key=lambda one: (one.expected_loss(aim), one.place),
    )
    tests: tuple[tuple[Role, Callable[[Outcome], bool]], ...] = (
        ("next", lambda one: True),
        ("accelerator", lambda one: _pair(one)[1] != _pair(best)[1]),
        ("engine", lambda one: _pair(one)[0] != _pair(best)[0]),
    )
    shares = dict(zip(map(identity_of, contenders), chances(_as_contenders(contenders, aim), 0), strict=True))
    found: list[Rival] = []
    for role, test in tests:
        one = next((one for one in kept if test(one)), None)
        if one is not None and all(one is not other.outcome for other in found):
            chance = shares.get(identity_of(one))
            found.append(Rival(role, one, chance, _lost(one, best, aim, chance)))
    out = min(
        (one for one in outcomes if one.misses and (one.loss(aim) or math.inf) < WORTH * (best.loss(aim) or 0.0)),
        key=lambda one: (one.loss(aim), one.place),
        default=None,
    )
    if out is not None:
        found.append(Rival("broken", out, shares.get(identity_of(out)), _broke(out, best, aim)))
    return found


def in_words(
    best: Outcome | None,
    outcomes: Sequence[Outcome],
    kept: Sequence[Outcome],
    aim: Objective,
    limits: Constraints,
    workload: Workload,
) -> Iterator[str]:
    """Why this one; or why none."""
    if best is None:
        names: dict[str, set[int]] = {}
        for one in outcomes:
            for miss in one.misses:
                names.setdefault(miss.name, set()).add(one.place)
        if any(one.state is not None and not one.misses for one in outcomes):
            yield UNKNOWN.get(aim, "What the objective needs is not known.")
            return
        said = ", ".join(f"{len(places)} by {_words(name)}" for name, places in sorted(names.items()))
        yield f"Nothing keeps all bounds: {said}." if said else "No configuration can run."
        return
    value = figures_of_outcome(best, workload)[METRIC[aim]]
    number = best.throughput_per_device if aim == "throughput" else value.value
    configurations = len({one.place for one in kept})
    own = best.loss(aim) or 0.0
    is_least = all((one.loss(aim) or math.inf) >= own * WORTH for one in kept)
    many = f"{configurations} configurations that keep all bounds"
    if configurations == 1:
        many = "1 configuration that keeps all bounds"
    yield (BEST if is_least else SAFE)[aim].format(kept=many, value=amount(number or 0.0, value.unit))
    if best.chance < 1:
        yield f"It keeps the bounds on times with a chance of {100 * best.chance:.0f} %."
    yield from _ceiling(best, outcomes)
    yield from _idle_bounds(best, limits)
    yield from _risks(best, limits, workload)
    if limits.slo is None and aim != "latency":
        yield "No latency is bounded, so none counted: --max-ttft and --max-tpot do."
    assert best.state is not None
    yield f"Its limit is {best.state.bottleneck.replace('_', ' ')}, at {best.state.concurrency:.0f} streams."


def _idle_bounds(best: Outcome, limits: Constraints) -> Iterator[str]:
    """Bounds that are far from everything: 40 for 40ms."""
    state, slo = best.state, limits.slo
    if state is None or slo is None:
        return
    for name, value, bound in (("ttft", state.ttft, slo.ttft), ("tpot", state.tpot, slo.tpot)):
        if bound is not None and bound > FAR * value:
            yield f"The bound on {name}, {amount(bound, 's')}, keeps nothing out: was {bound:g}ms meant?"


def _ceiling(best: Outcome, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """The streams at which a bound on times breaks, where more come than it was chosen for."""
    over = [one for one in outcomes if one.place == best.place and any(miss.grows for miss in one.misses)]
    streams = min((one.load.concurrency for one in over if one.load.concurrency), default=None)
    if streams is not None and streams > (best.load.concurrency or 0):
        miss = next(miss for one in over if one.load.concurrency == streams for miss in one.misses)
        cap = best.load.concurrency
        yield f"At {streams} streams {broken(miss)}: let no more than {cap} in at a time (--max-num-seqs)."


def _risks(best: Outcome, limits: Constraints, workload: Workload) -> Iterator[str]:
    """Bounds that it keeps by its value, and not by its interval."""
    slo = limits.slo
    figures = figures_of_outcome(best, workload)
    bounds = {"power": limits.power_w}
    if slo is not None:
        bounds |= {"ttft": slo.ttft, "tpot": slo.tpot, "e2el": slo.e2el}
    for name, bound in bounds.items():
        high = figures[name].high if name in figures else None
        if bound is not None and high is not None and high > bound:
            unit = METRICS[name].unit
            yield f"Its {name} may break the bound: {amount(high, unit)} at P90, of {amount(bound, unit)}."


def figures_of_outcome(outcome: Outcome, workload: Workload) -> dict[str, Figure]:
    """With the intervals that a plan of it would have."""
    state = outcome.state
    if state is None:
        return {}
    values: dict[str, float | None] = {
        "ttft": state.ttft,
        "tpot": state.tpot if workload.output_len > 1 else None,
        "e2el": state.e2el,
        "output_throughput": state.output_throughput,
        "request_throughput": state.request_throughput,
        "power": outcome.power_w,
        "energy_per_output_token": outcome.joules_per_token,
        "cost_per_hour": outcome.usd_per_hour,
        "cost_per_million_output_tokens": outcome.usd_per_million,
    }
    return {name: _figure(outcome, name, value) for name, value in values.items() if value is not None}


def _figure(outcome: Outcome, name: str, value: float) -> Figure:
    if name == "cost_per_hour":
        return Figure(value=value, low=value, high=value, unit=METRICS[name].unit, basis="exact")
    found = outcome.interval(name)
    return Figure(
        value=value, low=value * found.low, high=value * found.high, unit=METRICS[name].unit, basis=found.basis
    )


def told_gains(contenders: Sequence[Outcome], aim: Objective, workload: Workload) -> Iterator[Told]:
    """The one or two measurements that are worth making."""
    if len(contenders) < 2:
        return
    before = 0.0
    devices = [float(one.devices) for one in contenders]
    for gain in worth_most(_as_contenders(contenders, aim), devices):
        added = gain.gain - before
        before = max(before, gain.gain)
        share = added / gain.before if gain.before else 0.0
        if share < GAINS_LEAST:
            return
        outcome = contenders[gain.measured[-1]]
        where = f"on {outcome.devices} x {outcome.candidate.accelerator.name}"
        why = f"{where}: the choice is expected to get {100 * share:.1f} % better by knowing it"
        command = _measuring(outcome, workload)
        if "deployment.json" in command:
            why += "; deployment.json is its deployment, as --json prints it"
        yield Told(outcome, added, share, command, why)


def _as_contenders(outcomes: Iterable[Outcome], aim: Objective) -> list[Contender]:
    return [_contender(one, aim) for one in outcomes]


def _contender(one: Outcome, aim: Objective) -> Contender:
    found = one.interval("tpot")
    engine, device = _pair(one)
    # At a rate of requests the throughput is what is asked, whatever the speed.
    moves = one.load.request_rate is None or aim == "latency"
    spread = math.log(found.high / found.low) / (2 * Z10)
    # How near its times are to their bounds, told by its chance to keep them: bounds of several kinds are one here.
    sure = min(max(one.chance, 1e-6), 1 - 1e-6)
    strain = math.exp(-spread * NormalDist().inv_cdf(sure)) if one.strain else 0.0
    return Contender(engine, device, one.loss(aim) or 0.0, spread, strain, moves)


def _measuring(outcome: Outcome, workload: Workload) -> str:
    """Flags where there are flags for all that is set, else a file to put the deployment in."""
    deployment = outcome.candidate.deployment
    apart = {"schema_", "model", "quantization", "hardware", "engine_version"}
    fields = deployment.model_dump(exclude=apart, exclude_none=True)
    words = ["servolt", "measure"]
    if NO_FLAG.isdisjoint(fields):
        words.append(deployment.label)
        for name, value in fields.items():
            flag = f"--{name.replace('_', '-')}"
            if isinstance(value, bool):
                words.append(flag if value else flag.replace("--", "--no-", 1))
            else:
                words += [flag, str(value)]
    else:
        words.append("deployment.json")
    words += ["--input-len", str(workload.input_len), "--output-len", str(workload.output_len)]
    if outcome.load.request_rate is not None:
        words += ["--request-rate", f"{outcome.load.request_rate:g}"]
    else:
        words += ["--concurrency", str(outcome.load.concurrency or 1)]
    return shlex.join(words)


def _lost(one: Outcome, best: Outcome, aim: Objective, chance: float | None) -> str:
    own, other = best.loss(aim) or 0.0, one.loss(aim) or 0.0
    more = 100 * (other / own - 1) if aim != "throughput" else 100 * (1 - own / other)
    less, much = ("less", "more") if aim == "throughput" else ("more", "less")
    if more <= -0.5:
        better = 100 * (1 - other / own) if aim != "throughput" else 100 * (own / other - 1)
        sure = f"{100 * one.chance:.0f} % in place of {100 * best.chance:.0f} %"
        return f"{WORSE[aim]} {better:.0f} % {much}, but keeps the bounds with a chance of {sure}."
    how = f"{WORSE[aim]} {more:.0f} % {less}" if more >= 0.5 else f"{WORSE[aim]} as much, and comes behind in the rest"
    if chance is None:
        return f"{how}."
    if chance >= 0.1:
        return f"{how}; that is within the errors: in truth it is better with a chance of {100 * chance:.0f} %."
    return f"{how}, which is more than the errors explain."


def _broke(one: Outcome, best: Outcome, aim: Objective) -> str:
    own, other = best.loss(aim) or 0.0, one.loss(aim) or 0.0
    better = 100 * (1 - other / own) if aim != "throughput" else 100 * (own / other - 1)
    reasons = " and ".join(broken(miss) for miss in one.misses)
    return f"{WORSE[aim]} {better:.0f} % {'more' if aim == 'throughput' else 'less'}, but {reasons}."


def broken(miss: Miss) -> str:
    """
    >>> broken(Miss("tpot", 0.062, 0.05, "s"))
    'tpot is 62.0 ms, more than 50.0 ms'
    """
    if miss.value is None:
        return f"its {_words(miss.name)} is not known"
    if miss.name == "pool":
        return f"its pool holds {miss.value:.3g} of a request of the longest context (--max-model-len)"
    side = "less" if miss.is_floor else "more"
    return f"{_words(miss.name)} is {amount(miss.value, miss.unit)}, {side} than {amount(miss.bound, miss.unit)}"


def amount(value: float, unit: str) -> str:
    """In people's units."""
    if unit == "s":
        return format_duration(value)
    if unit == "bytes":
        return format_bytes(value)
    return f"{value:,.0f} {unit}".rstrip() if abs(value) >= 100 else f"{value:.3g} {unit}".rstrip()


def label_of(outcome: Outcome) -> str:
    """What a reader knows it by: 2 x H100, vllm, fp8, tp 2."""
    deployment, layout = outcome.candidate.deployment, outcome.candidate.layout
    parts = [f"{outcome.devices} x {outcome.candidate.accelerator.name}", deployment.engine]
    parts.append(outcome.candidate.model.quantization)
    parts += [f"{name} {size}" for name, size in zip(("tp", "pp", "dp"), layout[:3], strict=True) if size > 1]
    parts += ["ep"] if layout.ep else []
    parts += [f"kv {deployment.kv_cache_dtype}"] if deployment.kv_cache_dtype else []
    parts += [deployment.speculative_config.method] if deployment.speculative_config else []
    return ", ".join(parts)


def _words(name: str) -> str:
    return {
        "usd_per_hour": "price of an hour",
        "power_w": "power",
        "max_devices": "number of devices",
        "min_bits": "precision",
        "min_output_throughput": "output throughput",
        "request_rate": "rate that it can serve",
        "min_chance": "chance to keep the bounds on times",
        "memory": "memory of a device",
        "pool": "room for keys and values",
    }.get(name, name)


def _may_keep(miss: Miss) -> bool:
    return miss.grows and miss.excess < DOUBTFUL


def _pair(outcome: Outcome) -> tuple[str, str]:
    return outcome.candidate.deployment.engine, outcome.candidate.accelerator.name


def identity_of(outcome: Outcome) -> tuple[object, ...]:
    """Copies of a dense model are off alike, so more of them are no other choice."""
    candidate = outcome.candidate
    deployment, layout = candidate.deployment, candidate.layout
    if not any(kind.experts is not None for kind in candidate.model.layers):
        layout = layout._replace(dp=1)
    fields = deployment.quantization, deployment.kv_cache_dtype, deployment.max_num_seqs, deployment.speculative_config
    return (*_pair(outcome), *fields, layout)
