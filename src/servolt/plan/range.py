"""A plan that stands for several models: the middle one's figures, with intervals that reach to the others'."""

from collections.abc import Sequence
from typing import TypeAlias

from servolt.metrics import Estimate
from servolt.plan.memory import Budget, RankMemory, Term
from servolt.plan.plan import Plan, figures_of
from servolt.plan.verdict import Verdict

__all__ = ["spanned"]

Key: TypeAlias = tuple[str, str | None, int | None, float | None]


def spanned(plan: Plan, ends: Sequence[Plan]) -> Plan:
    """Every low and high covers those of `ends`. It fits where all fit, and doesn't where none does."""
    estimates = tuple(
        _reaching(one, [by[_key(one)] for by in map(_by_key, ends) if _key(one) in by]) for one in plan.estimates
    )
    return plan.model_copy(
        update={
            "memory": _budget(plan.memory, [end.memory for end in ends]),
            "verdict": _verdict([plan.verdict, *(end.verdict for end in ends)]),
            "estimates": estimates,
            "predictions": figures_of(estimates),
        }
    )


def _verdict(verdicts: Sequence[Verdict]) -> Verdict:
    return verdicts[0] if len(set(verdicts)) == 1 else "unknown" if "unknown" in verdicts else "tight"


def _key(one: Estimate) -> Key:
    return one.metric, one.statistic, one.concurrency, one.request_rate


def _by_key(plan: Plan) -> dict[Key, Estimate]:
    return {_key(one): one for one in plan.estimates}


def _reaching(one: Estimate, others: Sequence[Estimate]) -> Estimate:
    if one.low is None or one.high is None:
        return one
    lows = [one.low, *(other.low for other in others if other.low is not None)]
    highs = [one.high, *(other.high for other in others if other.high is not None)]
    return one.model_copy(update={"low": min(lows), "high": max(highs)})


def _budget(budget: Budget, others: Sequence[Budget]) -> Budget:
    every = (budget, *others)
    return budget.model_copy(
        update={
            "per_rank": tuple(
                _rank(rank, [other for one in others for other in one.per_rank if other.rank == rank.rank])
                for rank in budget.per_rank
            ),
            "kv_cache_tokens_low": min(one.kv_cache_tokens_low for one in every),
            "kv_cache_tokens_high": max(one.kv_cache_tokens_high for one in every),
            "max_concurrency_low": min(one.max_concurrency_low for one in every),
            "max_concurrency_high": max(one.max_concurrency_high for one in every),
        }
    )


def _rank(rank: RankMemory, others: Sequence[RankMemory]) -> RankMemory:
    every = (rank, *others)
    return rank.model_copy(
        update={
            "low_bytes": min(one.low_bytes for one in every),
            "high_bytes": max(one.high_bytes for one in every),
            "terms": {name: _term(term, [one.terms[name] for one in others]) for name, term in rank.terms.items()},
        }
    )


def _term(term: Term, others: Sequence[Term]) -> Term:
    every = (term, *others)
    low, high = min(one.low for one in every), max(one.high for one in every)
    return term.model_copy(update={"low": low, "high": high, "basis": "formula" if low < high else term.basis})
