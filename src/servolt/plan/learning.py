"""What a start-up log teaches: its terms beside what was predicted for them, and whether an engine has changed."""

import math
from collections.abc import Iterator, Sequence

from servolt.deployment import Deployment
from servolt.document import Problem
from servolt.engines.logs import StartupLog
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.plan.correction import REPEAT_SPREAD, Z10
from servolt.plan.known import (
    Conditions,
    KnownDeployments,
    KnownMemory,
    KnownSpeed,
    LoggedTerm,
    alike_version,
    conditions_of,
    same_model,
)
from servolt.plan.memory import TERMS, Budget, TermName
from servolt.plan.memory.profiles import profile_of, version_key
from servolt.units import format_bytes

__all__ = ["drifts", "learnt_memory"]

# Formulas' own tolerances are of one version; logs differ by this from start to start.
LEAST_WIDTH_BYTES = 0.03 * 2**30


def learnt_memory(
    log: StartupLog,
    deployment: Deployment,
    model: Model | None,
    accelerator: Accelerator,
    raw: Budget | None,
    *,
    date: str,
    tool_version: str,
    provenance: str = "",
    verified: bool = True,
) -> KnownMemory:
    """`raw` is the budget that is planned without anything known; None where the model isn't."""
    found = {} if log.first is None else dict(_terms(log, raw))
    where = conditions_of(deployment, model, accelerator, raw)
    if log.generation is not None:
        where = where.model_copy(update={"lenient": {**where.lenient, "generation": log.generation}})
    return KnownMemory(
        conditions=where,
        terms=found,
        kv_cache_tokens=log.kv_cache_tokens,
        predicted_tokens=None if raw is None else raw.kv_cache_tokens,
        num_gpu_blocks=log.num_gpu_blocks,
        max_concurrency=log.max_concurrency,
        graphs_taken_bytes=_graphs_taken(log),
        date=date,
        provenance=provenance,
        verified=verified,
        tool_version=tool_version,
    )


def drifts(
    known: KnownDeployments, deployment: Deployment, model: Model, accelerator: Accelerator
) -> tuple[Problem, ...]:
    """Terms and speeds of the asked version on this device that leave the interval of what older versions taught."""
    asked = conditions_of(deployment, model, accelerator)
    if not known or asked.engine_version is None:
        return ()
    return (*_memory_drifts(known.memory, asked), *_speed_drifts(known.speeds, asked))


def _terms(log: StartupLog, raw: Budget | None) -> Iterator[tuple[TermName, LoggedTerm]]:
    """Where a version subtracts its own estimate of the graphs, that estimate is what the pool depends on."""
    said, subtracts = log.first, _subtracts(log)
    assert said is not None
    sizes: dict[TermName, int | None] = {
        "weights": said.weights_bytes,
        "kv_cache": said.kv_cache_bytes,
        "state": said.state_bytes,
        "activation": said.activation_bytes,
        "graph": said.graph_estimate_bytes if subtracts else said.graph_bytes,  # see _graphs_taken
        "overhead": said.overhead_bytes,
    }
    for name in TERMS:
        size = sizes[name]
        if size is None:
            continue
        predicted = None if raw is None or (name == "graph" and subtracts) else raw.per_rank[0].terms[name]
        yield (
            name,
            LoggedTerm(
                bytes=size,
                predicted=predicted.bytes if predicted else None,
                predicted_low=predicted.low if predicted else None,
                predicted_high=predicted.high if predicted else None,
            ),
        )


def _graphs_taken(log: StartupLog) -> int | None:
    """None where the term says it itself."""
    said = log.first
    return None if said is None or not _subtracts(log) else said.graph_bytes


def _subtracts(log: StartupLog) -> bool:
    profile = profile_of(log.engine, log.engine_version)
    return profile is not None and "graphs_subtracted" in profile and profile.flag("graphs_subtracted")


def _memory_drifts(rows: Sequence[KnownMemory], asked: Conditions) -> Iterator[Problem]:
    here = [row for row in rows if row.verified and _on_this(row.conditions, asked)]
    older = [row for row in here if _is_older(row.conditions.engine_version, asked)]
    for name in TERMS:
        told = [(row, term) for row in here if _is_asked(row.conditions, asked) and (term := row.terms.get(name))]
        for row, term in sorted(told, key=lambda pair: not same_model(pair[0].conditions, asked)):
            low, high = _older_interval(name, row, older)
            if name != "kv_cache" and term.ratio is not None and low is not None and not low <= term.bytes <= high:
                yield _memory_drift(name, row, term, low, high, older)
                break


def _older_interval(name: TermName, row: KnownMemory, older: Sequence[KnownMemory]) -> tuple[float | None, float]:
    """What this row's term would be by what older versions logged: of the same model if there are such."""
    term = row.terms[name]
    told = [(one, other) for one in older if (other := one.terms.get(name)) is not None and other.ratio]
    own = [(one, other) for one, other in told if same_model(one.conditions, row.conditions)]
    ratios = [other.ratio for _, other in own or told if other.ratio]
    if not ratios or term.predicted is None:
        return None, math.inf
    shift = math.exp(sum(map(math.log, ratios)) / len(ratios))
    middle = term.predicted * shift
    low, high = term.predicted_low or term.predicted, term.predicted_high or term.predicted
    return (
        middle - max(term.predicted - low, LEAST_WIDTH_BYTES),
        middle + max(high - term.predicted, LEAST_WIDTH_BYTES),
    )


def _speed_drifts(rows: Sequence[KnownSpeed], asked: Conditions) -> Iterator[Problem]:
    """The same deployment at the same load under an older version, where repeats alone don't explain the difference."""
    here = [row for row in rows if row.verified and _on_this(row.conditions, asked)]
    told: set[str] = set()
    for row in here:
        if not _is_asked(row.conditions, asked) or row.metric in told:
            continue
        before = [one for one in here if _is_older(one.conditions.engine_version, asked) and _is_repeat(one, row)]
        if not before:
            continue
        middle = math.exp(sum(math.log(one.value) for one in before) / len(before))
        if abs(math.log(row.value / middle)) > Z10 * math.hypot(REPEAT_SPREAD, REPEAT_SPREAD):
            told.add(row.metric)
            yield _speed_drift(row, middle, before)


def _is_repeat(one: KnownSpeed, row: KnownSpeed) -> bool:
    load = ("metric", "input_len", "output_len", "concurrency", "request_rate")
    conditions = [other.conditions.model_dump(exclude={"engine_version"}) for other in (one, row)]
    return all(getattr(one, name) == getattr(row, name) for name in load) and conditions[0] == conditions[1]


def _on_this(one: Conditions, asked: Conditions) -> bool:
    return (one.engine, one.accelerator) == (asked.engine, asked.accelerator) and one.engine_version is not None


def _is_asked(one: Conditions, asked: Conditions) -> bool:
    return alike_version(one.engine_version, asked.engine_version, asked.engine)


def _is_older(version: str | None, asked: Conditions) -> bool:
    own, other = version_key(version or ""), version_key(asked.engine_version or "")
    return (
        own is not None
        and other is not None
        and own < other
        and not alike_version(version, asked.engine_version, asked.engine)
    )


def _memory_drift(
    name: TermName, row: KnownMemory, term: LoggedTerm, low: float, high: float, older: Sequence[KnownMemory]
) -> Problem:
    where = row.conditions
    expected = f"{format_bytes(max(low, 0))} to {format_bytes(high)}"
    return Problem(
        code="drift",
        severity="warning",
        message=f"{where.engine} {where.engine_version} logged {format_bytes(term.bytes)} of {name} for {where.model}; "
        f"by what {_versions(older)} taught it would be {expected}.",
        remedy="The engine has changed: nothing older is used for this version. `servolt calibrate --log` with a log "
        "of this deployment settles its memory.",
    )


def _speed_drift(row: KnownSpeed, before: float, older: Sequence[KnownSpeed]) -> Problem:
    where = row.conditions
    return Problem(
        code="drift",
        severity="warning",
        message=f"{where.engine} {where.engine_version} has a {row.metric} of {row.value:.4g} for {where.model} where "
        f"{_versions(older)} had {before:.4g}: repeats alone don't differ by that much.",
        remedy="Nothing older is used for this version: measure it again where it matters.",
    )


def _versions(rows: Sequence[KnownMemory | KnownSpeed]) -> str:
    return ", ".join(sorted({row.conditions.engine_version or "" for row in rows}))
