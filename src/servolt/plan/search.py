"""The best way to run a model: all that can run is computed, what breaks a bound is left out, and the choice is
explained."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from pydantic import Field

from servolt.deployment import Deployment
from servolt.document import Document, Problem, Value
from servolt.plan.cost import Economy
from servolt.plan.memory.emulate import budget_of as recompute
from servolt.plan.plan import Figure
from servolt.plan.search_front import pareto
from servolt.plan.search_learnt import Learnt
from servolt.plan.search_limits import Constraints, Objective
from servolt.plan.search_reasons import (
    Rival,
    Role,
    amount,
    broken,
    contenders_of,
    figures_of_outcome,
    identity_of,
    in_words,
    label_of,
    rivals_of,
    told_gains,
)
from servolt.plan.search_score import BudgetOf, Outcome, Scorer
from servolt.plan.search_space import Candidate, Space, bits_of, candidates_of
from servolt.plan.validation import problems_of
from servolt.workload import Workload

__all__ = ["Advice", "Considered", "Option", "Search", "search"]

# Of what misses a bound, so many are named where nothing keeps all.
NEAREST = 5


class Option(Value):
    """One configuration under one load."""

    deployment: Deployment
    accelerator: str
    devices: int
    bits: float = Field(description="of a weight")
    concurrency: float = Field(description="streams in flight, all copies together")
    chance: float = Field(1.0, description="that the bounds on times and throughput are kept, by the intervals")
    request_rate: float | None = None
    figures: Mapping[str, Figure] = Field(description="by metric, at this load")
    output_throughput_per_device: float | None = None
    kv_cache_tokens: int | None = Field(None, description="of one copy")
    bottleneck: str | None = None
    breaks: tuple[str, ...] = Field((), description="the bounds that it does not keep, in words")


class Other(Value):
    """What was not chosen, and why."""

    role: Role = Field(
        description="the next best; the best of another accelerator or engine; a better one that breaks a bound"
    )
    option: Option
    chance: float | None = Field(None, description="that it is better all the same, with errors as they are known")
    why: str


class Advice(Value):
    """A measurement, and what the choice is expected to get better by."""

    option: Option
    gain: float = Field(description="in the objective's unit; of the second one beside the first")
    gain_share: float = Field(description="of today's expected objective")
    command: str
    why: str


class Considered(Value):
    configurations: int
    refused: Mapping[str, int] = Field(description="that their engine refuses, by the problem's code")
    too_large: int = Field(description="that do not surely fit the memory")
    broken: int = Field(description="that break a bound at every load")
    kept: int
    loads: int = Field(description="configurations times loads whose speed was computed")


class Search(Document):
    """The best configuration for a workload, within bounds."""

    schema_: Literal["servolt.search/1"] = Field("servolt.search/1", alias="schema")
    model: str
    deployment: Deployment = Field(description="what was fixed")
    workload: Workload
    objective: Objective
    constraints: Constraints
    considered: Considered
    choice: Option | None
    reasons: tuple[str, ...] = Field(description="why it was chosen, or why nothing was")
    others: tuple[Other, ...] = ()
    front: tuple[Option, ...] = Field((), description="that no other beats in latency, throughput, cost and energy")
    nearest: tuple[Option, ...] = Field((), description="where nothing keeps all bounds: what misses them by least")
    helps: tuple[str, ...] = Field((), description="what would make something keep them")
    measure: tuple[Advice, ...] = Field((), description="the measurements that are worth most before choosing")
    problems: tuple[Problem, ...] = ()


def search(
    space: Space,
    workload: Workload,
    constraints: Constraints | None = None,
    economies: Mapping[str, Economy] | None = None,
    *,
    objective: Objective | None = None,
    budget_of: BudgetOf = recompute,
    learnt: Learnt | None = None,
    candidates: Iterable[Candidate] | None = None,
) -> Search:
    """`economies` by accelerator's name. Without an objective it is cost where a price is known, else throughput.

    With loads in the space, each configuration is tried at each of them, and chosen at its best; else the workload's
    first load is what must be served. `learnt` are logs and measurements of these and of like deployments;
    `candidates` are tried in place of all of the space.
    """
    limits, prices = constraints or Constraints(), economies or {}
    aim: Objective = objective or ("cost" if prices else "throughput")
    refused: Counter[str] = Counter()
    outcomes: list[Outcome] = []
    number = 0
    memory = budget_of if learnt is None else learnt.budget
    scorer = Scorer(workload, limits, prices, memory, loads=space.loads, learnt=learnt)
    for number, candidate in enumerate(candidates or candidates_of(space), start=1):
        faults = problems_of(candidate.deployment, candidate.model, candidate.accelerator, workload)
        if faults and faults[0].severity == "error":
            refused[faults[0].code] += 1
        else:
            outcomes.extend(scorer.outcomes(number, candidate))
    return _told(space, workload, limits, aim, outcomes, number, refused)


def _told(
    space: Space,
    workload: Workload,
    limits: Constraints,
    aim: Objective,
    outcomes: Sequence[Outcome],
    number: int,
    refused: Mapping[str, int],
) -> Search:
    kept = [one for one in outcomes if not one.misses and one.loss(aim) is not None]
    best = min(kept, key=lambda one: order_of(one, aim), default=None)
    front = _distinct([kept[place] for place in pareto([one.axes for one in kept])], aim)
    contenders = contenders_of(outcomes, aim, best) if best is not None else []
    nearest = [] if best is not None else nearest_of(outcomes)
    return Search(
        model=space.model.name,
        deployment=space.deployment,
        workload=workload,
        objective=aim,
        constraints=limits,
        considered=_considered(outcomes, kept, number, refused),
        choice=option_of(best, workload) if best is not None else None,
        reasons=tuple(in_words(best, outcomes, kept, aim, limits, workload)),
        others=tuple(_others(rivals_of(best, outcomes, contenders, aim), workload)) if best is not None else (),
        front=tuple(option_of(one, workload) for one in front),
        nearest=tuple(option_of(one, workload) for one in nearest),
        helps=tuple(helps_of(outcomes)) if best is None else (),
        measure=tuple(_advice(contenders, aim, workload)),
    )


def _distinct(outcomes: Sequence[Outcome], aim: Objective) -> list[Outcome]:
    """In the order of choosing; of those that are as good in everything, such as one copy and four, the first."""
    found: dict[tuple[float, ...], Outcome] = {}
    for one in sorted(outcomes, key=lambda one: order_of(one, aim)):
        found.setdefault(tuple(float(f"{value:.6g}") for value in one.axes), one)
    return list(found.values())


def order_of(outcome: Outcome, aim: Objective) -> tuple[float, ...]:
    """The objective; among equals the faster answer, fewer devices, more bits, and the first that was tried."""
    loss = outcome.expected_loss(aim)
    assert loss is not None
    assert outcome.state is not None
    return loss, outcome.state.e2el, outcome.devices, -bits_of(outcome.candidate.model), outcome.place


def nearest_of(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that miss the least: few bounds, and those by little. One for each configuration, copies as one."""
    found: dict[tuple[object, ...], Outcome] = {}
    for one in _by_distance(outcomes):
        found.setdefault(identity_of(one), one)
        if len(found) == NEAREST:
            break
    return list(found.values())


def _by_distance(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Of what has no room, no time and no price was computed, so that it stands behind what runs."""
    missing = [one for one in outcomes if one.misses]
    return sorted(missing, key=lambda one: (one.state is None, _distance(one), one.devices, one.place))


def _distance(outcome: Outcome) -> float:
    product = 1.0
    for miss in outcome.misses:
        product *= miss.excess
    return product


def helps_of(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """What each kind of bound would have to be, for the nearest that misses only that one."""
    said: set[str] = set()
    for outcome in _by_distance(outcomes):
        name = outcome.misses[0].name
        if outcome.state is None and said - {name}:
            return  # more memory is no help where what runs misses something else
        if len(outcome.misses) == 1 and name not in said:
            said.add(name)
            yield HELPS[name].format(**_amounts(outcome))


def _amounts(outcome: Outcome) -> dict[str, str]:
    miss = outcome.misses[0]
    value = "an unknown amount" if miss.value is None else amount(miss.value, miss.unit)
    return {"value": value, "bound": amount(miss.bound, miss.unit), "label": label_of(outcome)}


HELPS = {
    "ttft": "A ttft of {value} in place of {bound} would do: {label}.",
    "tpot": "A tpot of {value} in place of {bound} would do: {label}.",
    "e2el": "An e2el of {value} in place of {bound} would do: {label}.",
    "usd_per_hour": "{value} in place of {bound} would do: {label}. Rarer regions or spot prices may be less.",
    "power_w": "{value} in place of {bound} would do: {label}.",
    "max_devices": "{value} in place of {bound} would do: {label}.",
    "min_bits": "{value} in place of {bound} would do: {label}.",
    "min_output_throughput": "{label} gives {value} of the {bound} asked: more devices, or fewer bits.",
    "min_chance": "A chance of {value} in place of {bound} would do: {label}.",
    "request_rate": "{label} takes {value} of the {bound} asked: more devices, or fewer bits.",
    "memory": "{label} needs {value} of {bound} on a device: more devices (--counts), fewer bits (--min-bits 4), or a "
    "shorter context (--max-model-len).",
    "pool": "The pool of {label} holds {value}: a shorter context (--max-model-len) or more devices (--counts).",
}


def option_of(outcome: Outcome, workload: Workload) -> Option:
    candidate, state = outcome.candidate, outcome.state
    return Option(
        deployment=candidate.deployment,
        accelerator=candidate.accelerator.name,
        devices=outcome.devices,
        bits=bits_of(candidate.model),
        concurrency=state.concurrency if state is not None else float(outcome.load.concurrency or 0),
        chance=outcome.chance,
        request_rate=outcome.load.request_rate,
        figures=figures_of_outcome(outcome, workload),
        output_throughput_per_device=outcome.throughput_per_device or None,
        kv_cache_tokens=outcome.room.tokens if outcome.room is not None else None,
        bottleneck=state.bottleneck if state is not None else None,
        breaks=tuple(broken(miss) for miss in outcome.misses),
    )


def _others(rivals: Sequence[Rival], workload: Workload) -> Iterator[Other]:
    for rival in rivals:
        yield Other(role=rival.role, option=option_of(rival.outcome, workload), chance=rival.chance, why=rival.why)


def _advice(contenders: Sequence[Outcome], aim: Objective, workload: Workload) -> Iterator[Advice]:
    for told in told_gains(contenders, aim, workload):
        yield Advice(
            option=option_of(told.outcome, workload),
            gain=told.gain,
            gain_share=told.share,
            command=told.command,
            why=told.why,
        )


def _considered(
    outcomes: Sequence[Outcome], kept: Sequence[Outcome], number: int, refused: Mapping[str, int]
) -> Considered:
    fine = {one.place for one in kept}
    places = {one.place for one in outcomes}
    large = {one.place for one in outcomes if any(miss.name in ("memory", "pool") for miss in one.misses)}
    return Considered(
        configurations=number,
        refused=dict(sorted(refused.items())),
        too_large=len(large),
        broken=len(places - fine - large),
        kept=len(fine),
        loads=sum(one.state is not None for one in outcomes),
    )
