"""The budget of an engine that gives keys and values what is left: how much each pipeline stage's pool then holds."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from servolt.plan.memory.budget import Budget, RankMemory, Term, TermName
from servolt.plan.memory.ranks import binding_of, rank_memory
from servolt.plan.memory.terms import spread

__all__ = ["Asked", "Pool", "Stage", "budget_of_pools", "left_of"]


class Pool(NamedTuple):
    """Bytes for keys and values: what is likely, and between what it lies."""

    bytes: float
    low: float
    high: float


class Stage(NamedTuple):
    """One device of one pipeline stage; `terms` without the pool."""

    terms: Mapping[TermName, Term]
    pool: Pool
    token_bytes: float  # of one token, in all layers of the stage
    request_bytes: float  # of one request of the longest context


class Asked(NamedTuple):
    context: int
    requests: int
    tokens: int  # of one step
    block: int  # tokens of one block of the pool
    available_bytes: float
    ranks: int  # devices of one stage
    tolerance: float = 0.0  # of the bytes of a token, where the layers aren't certain
    measures: bool = False  # the pool is given what a trial run leaves, so it gives way to the other terms


def left_of(room: float, slack: float, share: float, terms: Mapping[TermName, Term]) -> Pool:
    """A share of what the terms leave of a device's room, which may be off by `slack`."""
    left = share * (room - sum(term.bytes for term in terms.values()))
    less = share * spread([*(term.high - term.bytes for term in terms.values()), slack])
    more = share * spread([*(term.bytes - term.low for term in terms.values()), slack])
    return Pool(max(0.0, left), max(0.0, left - less), max(0.0, left + more))


def budget_of_pools(stages: Sequence[Stage], asked: Asked, notes: Sequence[str]) -> Budget:
    """The stage with the least room decides."""
    tokens = [min(_tokens(stage.pool[end], stage.token_bytes, asked.block) for stage in stages) for end in range(3)]
    fitting = [min(_requests(stage.pool[end], stage.request_bytes) for stage in stages) for end in range(3)]
    ranks = tuple(_rank(stage, asked, number) for number, stage in enumerate(stages))
    return Budget(
        per_rank=ranks,
        pooled=True,
        kv_bytes_per_token=round(max(stage.token_bytes for stage in stages)),
        kv_cache_tokens=tokens[0],
        kv_cache_tokens_low=int(tokens[1] / (1 + asked.tolerance)),
        kv_cache_tokens_high=int(tokens[2] * (1 + asked.tolerance)),
        num_gpu_blocks=tokens[0] // asked.block,
        max_concurrency=fitting[0],
        max_concurrency_low=fitting[1] / (1 + asked.tolerance),
        max_concurrency_high=fitting[2] * (1 + asked.tolerance),
        max_model_len=asked.context,
        max_num_seqs=asked.requests,
        max_num_batched_tokens=asked.tokens,
        binding=binding_of(ranks),
        notes=tuple(notes),
    )


def _rank(stage: Stage, asked: Asked, number: int) -> RankMemory:
    """The pool fills what the other terms leave, so it moves against them, and the total less than they do."""
    likely, low, high = (round(size) for size in stage.pool)
    formula = f"what is left, {stage.token_bytes:,.0f} B a token in blocks of {asked.block}"
    pool = Term(bytes=likely, low=low, high=high, basis="formula", formula=formula)
    fixed = pool.model_copy(update={"low": likely, "high": likely})
    found = rank_memory(f"pp{number}", {**stage.terms, "kv_cache": fixed}, asked.available_bytes, ranks=asked.ranks)
    update: dict[str, object] = {"terms": {**found.terms, "kv_cache": pool}}
    if asked.measures:
        total = found.total_bytes
        update["high_bytes"] = max(total, found.high_bytes - (likely - low))
        update["low_bytes"] = min(total, found.low_bytes + high - likely)
    return found.model_copy(update=update)


def _tokens(pool: float, token_bytes: float, block: int) -> int:
    """A stage without keys and values limits nothing."""
    return int(pool // (token_bytes * block)) * block if token_bytes else 2**31


def _requests(pool: float, request_bytes: float) -> float:
    return pool / request_bytes if request_bytes else float(2**20)
