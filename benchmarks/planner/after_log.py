"""What the pool holds once a start-up log has told the other terms: the arithmetic of blocks alone is left to err."""

from collections.abc import Iterable, Mapping

from benchmarks.planner.cases import Case
from benchmarks.planner.score import Error
from servolt.errors import ServoltError
from servolt.plan import Plan
from servolt.plan.memory.budget import TermName
from servolt.plan.memory.emulate import budget_of

__all__ = ["errors_after_log"]

LOGGED: Mapping[TermName, str] = {
    "weights": "weights_bytes",
    "activation": "activation_bytes",
    "overhead": "overhead_bytes",
}


def errors_after_log(cases: Iterable[Case], plans: Mapping[str, Plan]) -> list[Error]:
    """Of the tokens, where all terms were logged."""
    found: list[Error] = []
    for case in cases:
        made = plans.get(case.id)
        if made is None or "kv_cache_tokens" not in case.seen or not all(name in case.seen for name in LOGGED.values()):
            continue
        known = {term: case.seen[name] for term, name in LOGGED.items()}
        try:
            budget = budget_of(made.deployment, made.model, made.accelerator, known=known)
        except ServoltError:
            continue
        ends = (budget.kv_cache_tokens, budget.kv_cache_tokens_low, budget.kv_cache_tokens_high)
        found.append(Error(case, "kv_cache_tokens", case.seen["kv_cache_tokens"], *map(float, ends)))
    return found
