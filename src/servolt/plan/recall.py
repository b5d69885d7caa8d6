"""What is known of a deployment, or of those like it, for the next plan: terms of its memory, points of its speed.

A term that this very deployment logged replaces the formula's. One that only others logged shifts it: from the engine's
version to the device to the model, each level's shift of the logarithm is
(n * the middle one of its n residuals + k * the shift of the level above) / (n + k).
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from servolt.deployment import Deployment
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.plan.correction import BELIEVED, NO_SHIFT, KnownPoint, Shift
from servolt.plan.known import (
    Conditions,
    KnownDeployments,
    KnownMemory,
    KnownSpeed,
    LoggedTerm,
    alike_version,
    conditions_of,
    same_model,
    same_parallelism,
    same_size,
)
from servolt.plan.memory import TERMS, Budget, Term, TermName
from servolt.plan.memory.emulate import budget_of
from servolt.plan.starts import LOGGED_SPREAD_BYTES, agree, is_same, starts_of
from servolt.workload import Workload

__all__ = ["as_logged", "known_budget", "known_points", "known_terms", "shifts_of"]

# Levels of memory, widest first, and what the level above counts against this level's own observations. The formulas'
# constants come from many logs, so that other models say little: on 42 logs of vLLM 0.15 to 0.19 they gain nothing.
# Where a version or a device brings something new, all its logs are off the same way, and a dozen of them show it.
MEMORY_LEVELS = (("version", 12.0), ("accelerator", 12.0), ("model", 0.5))
# So many other models it takes before anything is concluded from them at all.
LEAST_OTHERS = 6
# What is left of a term's variance when the same model logged it in another deployment.
MODEL_REST = 0.25
# Levels of speed. Of 155 deployments (see plan/correction.py) those that share engine and device only are no more alike
# than any two; those that share the model too have a third of the variance.
SPEED_LEVELS = (("accelerator", 32.0), ("engine", 32.0), ("family", 1.0))
FAMILY_REST = 1 / 3
# Terms whose error belongs to the model, not to the engine's version or to the device.
OF_THE_MODEL: tuple[TermName, ...] = ("weights", "state")
# Terms of which only this very deployment's own log tells: pools are what is left.
OWN_ONLY: tuple[TermName, ...] = ("kv_cache",)


def known_budget(known: KnownDeployments, deployment: Deployment, model: Model, accelerator: Accelerator) -> Budget:
    """The budget with all that is known of its terms. Raises InvalidInputError as budget_of does."""
    raw = budget_of(deployment, model, accelerator)
    terms = known_terms(known, deployment, model, accelerator, raw)
    budget = budget_of(deployment, model, accelerator, known=terms) if terms else raw
    return as_logged(budget, known, deployment, model, accelerator)


def known_terms(
    known: KnownDeployments,
    deployment: Deployment,
    model: Model,
    accelerator: Accelerator,
    raw: Budget | None = None,
) -> Mapping[TermName, Term]:
    """For `budget_of(..., known=...)`: terms of the first stage's rank.

    `measured` is what this deployment logged. `calibrated` is the term of `raw`, the budget without anything known,
    shifted by what others logged; one that only unverified logs speak of is wider. Without `raw`: measured ones only.
    """
    if not known.memory:
        return {}
    asked = conditions_of(deployment, model, accelerator, raw)
    starts = starts_of(known.memory, asked)
    found: dict[TermName, Term] = {}
    for name in TERMS:
        formula = None if raw is None else raw.per_rank[0].terms[name]
        term = None if starts is None else starts.term(name, asked, formula)
        if term is None and formula is not None and name not in OWN_ONLY:
            logged = [(row, row.terms[name]) for row in known.memory if name in row.terms]
            term = _shifted(formula, name, _of_known_versions(logged, asked), asked)
        found |= {} if term is None else {name: term}
    return found


def as_logged(
    budget: Budget, known: KnownDeployments, deployment: Deployment, model: Model, accelerator: Accelerator
) -> Budget:
    """With the tokens, blocks and requests that this very deployment logged, where it did."""
    if not known.memory:
        return budget
    asked = conditions_of(deployment, model, accelerator, budget)
    starts = starts_of(known.memory, asked)
    return budget if starts is None else budget.model_copy(update=starts.room(budget, asked))


def known_points(
    known: KnownDeployments, deployment: Deployment, model: Model, accelerator: Accelerator
) -> tuple[KnownPoint, ...]:
    """Measured values of this very deployment, latest last: for `adjustment`. Those that don't say their version count
    only where no other does."""
    if not known.speeds:
        return ()
    asked = conditions_of(deployment, model, accelerator)
    own = [one for one in known.speeds if _same_speed(one.conditions, asked)]
    if asked.engine_version is not None and any(one.conditions.engine_version is not None for one in own):
        own = [one for one in own if one.conditions.engine_version is not None]
    return tuple(
        KnownPoint(metric=one.metric, workload=_workload(one), value=one.value, verified=one.verified)
        for one in sorted(own, key=lambda one: one.date)
    )


def shifts_of(
    known: KnownDeployments, deployment: Deployment, model: Model, accelerator: Accelerator, *, tool_version: str
) -> Mapping[str, Shift]:
    """By metric, what other deployments' values say about this one's law: those that this planner predicted."""
    if not known.speeds:
        return {}
    asked = conditions_of(deployment, model, accelerator)
    rows = [one for one in known.speeds if one.verified and one.tool_version == tool_version]
    others = [one for one in rows if one.predicted and not _same_speed(one.conditions, asked)]
    found = {
        metric: _shift([one for one in others if one.metric == metric], asked) for metric in {o.metric for o in others}
    }
    return {metric: shift for metric, shift in found.items() if shift.deployments}


class _Level(NamedTuple):
    log_shift: float
    doubt: float  # share of the variance that is left
    logs: int


def _of_known_versions(
    logged: Sequence[tuple[KnownMemory, LoggedTerm]], asked: Conditions
) -> list[tuple[KnownMemory, LoggedTerm]]:
    """Logs of this engine; those that don't say their version count only where no other does."""
    here = [(row, term) for row, term in logged if row.conditions.engine == asked.engine]
    known = [(row, term) for row, term in here if row.conditions.engine_version is not None]
    is_told = any(alike_version(row.conditions.engine_version, asked.engine_version, asked.engine) for row, _ in known)
    return known if asked.engine_version is not None and is_told else here


def _shifted(
    raw: Term, name: TermName, logged: Sequence[tuple[KnownMemory, LoggedTerm]], asked: Conditions
) -> Term | None:
    """None where nothing is known that says anything about it."""
    residuals = [(row, math.log(term.ratio)) for row, term in logged if term.ratio]
    believed = [(row, one) for row, one in residuals if abs(one) <= BELIEVED]
    trusted = [(row.conditions, one) for row, one in believed if row.verified]
    level = _level(trusted, _memory_levels(name, asked))
    doubtful = [one for row, one in believed if not row.verified and is_same(name, row.conditions, asked)]
    if (not level.logs and not doubtful) or not raw.bytes:
        return None
    size = raw.bytes * math.exp(level.log_shift)
    low, high = raw.low, raw.high
    if level.logs:
        narrower = math.sqrt(level.doubt)
        low = round(size - max((raw.bytes - raw.low) * narrower, LOGGED_SPREAD_BYTES))
        high = round(size + max((raw.high - raw.bytes) * narrower, LOGGED_SPREAD_BYTES))
    claimed = [raw.bytes * math.exp(one) for one in doubtful]
    return Term(
        bytes=round(size),
        low=max(0, round(min(low, *claimed)) if claimed else low),
        high=round(max(high, *claimed)) if claimed else high,
        basis="calibrated" if level.logs else raw.basis,
        formula=f"{raw.formula}; times {math.exp(level.log_shift):.3f} by {level.logs} log(s)"
        if level.logs
        else raw.formula,
    )


def _memory_levels(name: TermName, asked: Conditions) -> list[tuple[Callable[[Conditions], bool], float]]:
    tests: Mapping[str, Callable[[Conditions], bool]] = {
        "version": lambda one: alike_version(one.engine_version, asked.engine_version, asked.engine),
        "accelerator": lambda one: one.accelerator == asked.accelerator,
        "model": lambda one: same_model(one, asked),
    }
    if name in OF_THE_MODEL:
        return [(tests["model"], 0.5)]
    return [(tests[level], weight) for level, weight in MEMORY_LEVELS]


def _level(
    residuals: Sequence[tuple[Conditions, float]], levels: Sequence[tuple[Callable[[Conditions], bool], float]]
) -> _Level:
    """Each level holds those of the level above that pass its test too. A model counts once in a level of many. Only
    the last level, of the model itself, takes away doubt: how others are off says nothing of how this one is."""
    shift, logs, own, others = 0.0, 0, 0, 0
    for test, weight in levels:
        residuals = [(conditions, one) for conditions, one in residuals if test(conditions)]
        models = _by_model(residuals)
        shift = _level_shift(models, weight, shift)
        logs, own, others = max(logs, len(residuals)), len(residuals), max(others, len(models))
    if not own and others < LEAST_OTHERS:
        return _Level(0.0, 1.0, 0)
    left = MODEL_REST + (1 - MODEL_REST) * levels[-1][1] / (own + levels[-1][1])
    return _Level(shift, left, logs)


def _level_shift(residuals: Sequence[float], weight: float, above: float) -> float:
    """The middle one in place of the mean: a single model that is far off is no lesson for the others."""
    own = statistics.median(residuals) if residuals else 0.0
    return (len(residuals) * own + weight * above) / (len(residuals) + weight)


def _by_model(residuals: Sequence[tuple[Conditions, float]]) -> list[float]:
    by_model: dict[str, list[float]] = {}
    for conditions, one in residuals:
        by_model.setdefault(conditions.shape or conditions.model, []).append(one)
    return [sum(ones) / len(ones) for ones in by_model.values()]


def _same_speed(one: Conditions, asked: Conditions) -> bool:
    """Lengths and batches are the load's matter; the rest has to be the same."""
    return (
        one.engine == asked.engine
        and alike_version(one.engine_version, asked.engine_version, asked.engine)
        and (one.accelerator, one.devices) == (asked.accelerator, asked.devices)
        and same_parallelism(one, asked)
        and same_model(one, asked)
        and one.kv_cache_dtype == asked.kv_cache_dtype
        and agree(one, asked)
    )


def _workload(one: KnownSpeed) -> Workload:
    lengths = {"input_len": one.input_len, "output_len": one.output_len}
    if one.request_rate is not None:
        return Workload(arrival="poisson", concurrency=(), request_rate=(one.request_rate,), **lengths)
    return Workload(concurrency=(one.concurrency or 1,), **lengths)


def _shift(rows: Sequence[KnownSpeed], asked: Conditions) -> Shift:
    """Deployments count once each, whatever their number of points."""
    deployments: dict[str, list[tuple[Conditions, float]]] = {}
    for row in rows:
        residual = math.log(row.value / (row.predicted or row.value))
        if abs(residual) <= BELIEVED:
            deployments.setdefault(row.conditions.model_dump_json(), []).append((row.conditions, residual))
    means = [(pairs[0][0], sum(one for _, one in pairs) / len(pairs)) for pairs in deployments.values()]
    tests: Mapping[str, Callable[[Conditions], bool]] = {
        "accelerator": lambda one: one.accelerator == asked.accelerator,
        "engine": lambda one: one.engine == asked.engine,
        "family": lambda one: _is_kin(one, asked),
    }
    shift, count, family = 0.0, 0, 0
    for level, weight in SPEED_LEVELS:
        means = [(conditions, one) for conditions, one in means if tests[level](conditions)]
        shift = _level_shift([one for _, one in means], weight, shift)
        count, family = max(count, len(means)), len(means)
    if not family and count < LEAST_OTHERS:
        return NO_SHIFT
    left = FAMILY_REST + (1 - FAMILY_REST) * SPEED_LEVELS[-1][1] / (family + SPEED_LEVELS[-1][1])
    return Shift(shift, left, count)


def _is_kin(one: Conditions, asked: Conditions) -> bool:
    """The same model in whatever precision."""
    if one.family is None or one.parameters is None:
        return one.model == asked.model
    return one.family == asked.family and same_size(one, asked)
