"""Ranks of a budget put together, and which of them leaves no more room."""

from collections.abc import Mapping, Sequence

from servolt.plan.memory.budget import RankMemory, Term, TermName
from servolt.plan.memory.terms import spread
from servolt.units import format_bytes

__all__ = ["binding_of", "rank_memory"]


def rank_memory(
    rank: str, terms: Mapping[TermName, Term], available_bytes: float | None, *, ranks: int = 1
) -> RankMemory:
    """Terms are off for different reasons, so their spreads add in quadrature."""
    total = sum(term.bytes for term in terms.values())
    return RankMemory.of(
        rank,
        terms,
        ranks=ranks,
        available_bytes=None if available_bytes is None else max(0, round(available_bytes)),
        low_bytes=max(0, round(total - spread(term.bytes - term.low for term in terms.values()))),
        high_bytes=round(total + spread(term.high - term.bytes for term in terms.values())),
    )


def binding_of(ranks: Sequence[RankMemory]) -> str:
    """The rank with the least room, and its largest term."""
    known = [rank for rank in ranks if rank.available_bytes is not None]
    tightest = min(known or list(ranks), key=_room)
    name, term = max(tightest.terms.items(), key=lambda pair: pair[1].bytes)
    return f"{tightest.rank}: {name} takes {format_bytes(term.bytes)} of {format_bytes(tightest.total_bytes)}"


def _room(rank: RankMemory) -> float:
    return (rank.available_bytes or 0) - rank.high_bytes
