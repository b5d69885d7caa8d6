"""Does it fit, what leaves no more room, and why: read from a budget, whatever engine and device it is of."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from servolt.document import Value
from servolt.plan.memory.budget import Budget
from servolt.units import format_bytes

__all__ = ["Fix", "Verdict", "binding_of", "fits", "reasons_of", "verdict_of"]

Verdict = Literal["fits", "tight", "no", "unknown"]


class Fix(Value):
    """One change, computed again with it."""

    change: Mapping[str, str | int | float | bool] = Field(description="fields of the deployment")
    total_bytes: int
    saved_bytes: int
    verdict: Verdict
    cost: str | None = Field(None, description="what is given up for it")
    max_concurrency: float | None = Field(None, description="requests of the longest context that then fit at a time")

    @property
    def text(self) -> str:
        """For people: --max-model-len 1024 saves 1.5 GiB; then it fits."""
        flags = " ".join(_flag(name, value) for name, value in self.change.items())
        then = {"fits": "then it fits", "tight": "then it may fit", "no": "not enough by itself"}.get(self.verdict, "")
        is_much = self.max_concurrency is None or self.saved_bytes * 100 > self.total_bytes
        saves = f" saves {format_bytes(self.saved_bytes)}" if is_much else ""
        room = "" if self.max_concurrency is None else f" ({self.max_concurrency:.2f} requests of the longest context)"
        return f"{flags}{saves}{then and (f'; {then}' if saves else f': {then}')}{room}."


def _flag(name: str, value: str | int | float | bool) -> str:
    """hardware.count is --count on the command line; a switch has no value."""
    flag = "--" + name.rpartition(".")[2].replace("_", "-")
    return flag if value is True else f"{flag} {value}"


def verdict_of(budget: Budget) -> Verdict:
    """fits: the high end is available, and the low end of the pool holds a request. tight: it may. no: it can't."""
    known = [rank for rank in budget.per_rank if rank.available_bytes is not None]
    if not any(rank.rank != "host" or len(budget.per_rank) == 1 for rank in known):
        # What is free there is not known, so it may; on this machine that can be looked up.
        return "unknown" if all(rank.rank == "host" for rank in budget.per_rank) else "tight"
    if fits(budget):
        return "fits"
    # A pool leaves no gap on purpose, so its total says less than whether the low end of the rest has room.
    least = "low_bytes" if budget.pooled else "total_bytes"
    may = budget.max_concurrency >= 1 and all(getattr(rank, least) <= (rank.available_bytes or 0) for rank in known)
    return "tight" if may else "no"


def binding_of(budget: Budget) -> str:
    """What leaves no more room: the largest term of the fullest device, or a pool that is too small."""
    if budget.pooled and budget.max_concurrency_low < 1:
        return (
            f"the pool: {budget.kv_cache_tokens:,} tokens, {budget.max_concurrency:.2f} requests of "
            f"{budget.max_model_len:,}"
        )
    rank = budget.fullest
    name, term = max(rank.terms.items(), key=lambda pair: pair[1].bytes)
    return f"{name.replace('_', ' ')} on {rank.rank}: {format_bytes(term.bytes)} of {format_bytes(rank.total_bytes)}"


def reasons_of(budget: Budget) -> tuple[str, ...]:
    """The fullest device against what is available there, and its largest terms; a pool against one request."""
    rank = budget.fullest
    total, high = format_bytes(rank.total_bytes), format_bytes(rank.high_bytes)
    if rank.available_bytes is None:
        return (f"It takes {total} on {rank.rank}; how much is free there is not known.",)
    free = format_bytes(rank.available_bytes)
    terms = sorted(rank.terms.items(), key=lambda pair: -pair[1].bytes)[:3]
    largest = ", ".join(f"{name.replace('_', ' ')} {format_bytes(term.bytes)}" for name, term in terms if term.bytes)
    missing = rank.total_bytes - rank.available_bytes
    short = f"; {format_bytes(missing)} are missing" if missing > 0 else ""
    said = [f"It takes {total} of {free} on {rank.rank}, at most {high}{short}: {largest}."]
    if budget.pooled:
        said.append(
            f"The pool holds {budget.kv_cache_tokens:,} tokens ({budget.kv_cache_tokens_low:,} to "
            f"{budget.kv_cache_tokens_high:,}): {budget.max_concurrency:.2f} requests of {budget.max_model_len:,}."
        )
    host = next((one for one in budget.per_rank if one.rank == "host" and one is not rank), None)
    if host is not None and host.available_bytes is None and host.total_bytes > rank.total_bytes / 10:
        said.append(f"The host needs {format_bytes(host.total_bytes)} beside it; what is free there is not known.")
    return tuple(said)


def fits(budget: Budget) -> bool:
    """The high end is available, and the low end of the pool holds a request of the longest context."""
    ranks = [rank for rank in budget.per_rank if rank.available_bytes is not None]
    return budget.max_concurrency_low >= 1 and all(rank.high_bytes <= (rank.available_bytes or 0) for rank in ranks)
