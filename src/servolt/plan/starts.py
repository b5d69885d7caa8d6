"""Which logged starts hold for a deployment, and what several of them say together.

Starts of its own version come before those of a like one, and both before those that don't say their version. Terms of
one kind are never put beside those of another: pools are what is left of one start, not of two.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from servolt.plan.known import Conditions, KnownMemory, alike_version, same_model, same_parallelism
from servolt.plan.memory import Budget, Term, TermName
from servolt.plan.memory.profiles import version_key
from servolt.units import format_bytes

__all__ = ["LOGGED_SPREAD_BYTES", "Starts", "agree", "is_same", "is_same_deployment", "starts_of"]

# Logs say hundredths of a GiB, and the same start twice differs by as much; llama.cpp's say hundredths of a MiB, and
# what it takes is arithmetic.
LOGGED_SPREAD_BYTES = 0.01 * 2**30
PRINTED_MIB_BYTES = 0.005 * 2**20
POOLING = ("vllm", "sglang", "tensorrt_llm")  # whose pool has one size whatever the length of a request
PRINTED_REQUESTS = 0.005  # of max_concurrency, in hundredths


class Starts(NamedTuple):
    """`first` is the one whose terms count; the others tell how far starts differ. `sure` where their version is known
    to be the asked one."""

    first: KnownMemory
    all: tuple[KnownMemory, ...]
    sure: bool

    def term(self, name: TermName, asked: Conditions, raw: Term | None) -> Term | None:
        """As logged, from the least to the most of all starts. None where none of them tells it.

        Of starts that don't say their version the interval is as wide as the formula's; None without one.
        """
        told = [row for row in self.all if name in row.terms and is_same(name, row.conditions, asked)]
        if not told or (not self.sure and raw is None):
            return None
        chosen = self.first if self.first in told else told[-1]
        sizes = [row.terms[name].bytes for row in told]
        size, spread = chosen.terms[name].bytes, _printed(asked)
        less, more = spread, spread
        if raw is not None and not self.sure:
            less, more = max(less, raw.bytes - raw.low), max(more, raw.high - raw.bytes)
        return Term(
            bytes=size,
            low=max(0, round(min(sizes) - less)),
            high=round(max(sizes) + more),
            basis="measured" if self.sure else "calibrated",
            formula=self._said(chosen, len(told), name),
        )

    def _said(self, chosen: KnownMemory, starts: int, name: TermName) -> str:
        many = f"; {starts} starts differ as low and high say" if starts > 1 else ""
        took = chosen.graphs_taken_bytes if name == "graph" else None
        graphs = f"; reckoned by the engine before, the graphs took {format_bytes(took)}" if took is not None else ""
        unsure = "" if self.sure else "; its log doesn't say which version it is of"
        return f"logged by it, learnt {chosen.date[:10]}{graphs}{many}{unsure}"

    def room(self, budget: Budget, asked: Conditions) -> Mapping[str, float]:
        """Tokens, blocks and requests as logged at this length of a request; empty where no start tells them."""
        here = [
            row
            for row in self.all
            if row.conditions.max_model_len == asked.max_model_len and is_same("kv_cache", row.conditions, asked)
        ]
        if not here:
            return {}
        chosen = self.first if self.first in here else here[-1]
        found: dict[str, float] = {}
        if chosen.num_gpu_blocks is not None:
            found["num_gpu_blocks"] = chosen.num_gpu_blocks
        less, more = self._widths(budget, asked)
        for name, printed in (("kv_cache_tokens", 0.0), ("max_concurrency", PRINTED_REQUESTS)):
            told = [float(value) for row in here if (value := getattr(row, name)) is not None]
            value = getattr(chosen, name)
            if value is None or not told:
                continue
            low, high = min(told) * (1 - less) - printed, max(told) * (1 + more) + printed
            whole = name == "kv_cache_tokens"
            found[name] = value
            found[f"{name}_low"] = max(0, int(low) if whole else low)
            found[f"{name}_high"] = -int(-high // 1) if whole else high
        return found

    def _widths(self, budget: Budget, asked: Conditions) -> tuple[float, float]:
        """Shares of the tokens that the next start may have less or more. llama.cpp makes what it is asked for."""
        tokens = budget.kv_cache_tokens
        if asked.engine not in POOLING or not tokens:
            return 0.0, 0.0
        if not self.sure:
            return 1 - budget.kv_cache_tokens_low / tokens, budget.kv_cache_tokens_high / tokens - 1
        pool = budget.per_rank[0].kv_cache_bytes
        share = LOGGED_SPREAD_BYTES / pool if pool else 0.0
        return share, share


def starts_of(rows: Sequence[KnownMemory], asked: Conditions) -> Starts | None:
    """Of the verified starts of this deployment, those of the nearest version. None where there is none."""
    own = [row for row in rows if row.verified and is_same_deployment(row.conditions, asked)]
    if not own:
        return None
    best = max(_nearness(row.conditions.engine_version, asked) for row in own)
    near = sorted(
        (row for row in own if _nearness(row.conditions.engine_version, asked) == best), key=lambda row: row.date
    )
    sure = asked.engine_version is None or any(row.conditions.engine_version is not None for row in near)
    return Starts(_first(near, asked), tuple(near), sure)


def is_same_deployment(one: Conditions, asked: Conditions) -> bool:
    """Whether both are of one deployment, as far as the weights and what the engine keeps beside them go."""
    return (
        one.engine == asked.engine
        and alike_version(one.engine_version, asked.engine_version, asked.engine)
        and one.accelerator == asked.accelerator
        and one.dtype in (asked.dtype, None)
        and same_parallelism(one, asked)
        and same_model(one, asked)
        and agree(one, asked)
        and one.lenient.get("generation") in (None, *_generations(asked))
    )


def is_same(name: TermName, one: Conditions, asked: Conditions) -> bool:
    """Whether what was logged of a term is what the asked deployment would log."""
    same = is_same_deployment(one, asked)
    if name in ("activation", "graph", "state", "kv_cache"):
        same = same and _batches(one) == _batches(asked)
    if name in ("state", "kv_cache"):
        same = same and (one.kv_cache_dtype, one.utilization) == (asked.kv_cache_dtype, asked.utilization)
        same = same and (asked.engine in POOLING or one.max_model_len == asked.max_model_len)
    return same


def _nearness(version: str | None, asked: Conditions) -> tuple[int, tuple[int, ...]]:
    """The asked version itself, then the newest of those that are alike, then those without a version. Where none is
    asked, those without come first too."""
    if version == asked.engine_version:
        return 3, ()
    own = version_key(version or "")
    if own is not None and own == version_key(asked.engine_version or ""):
        return 3, ()
    if version is None:
        return 1, ()
    return 2, own or ()


def _first(near: Sequence[KnownMemory], asked: Conditions) -> KnownMemory:
    """The middle one by its pool: one start whose terms go together. Without a pool the latest."""
    pools = [row for row in near if _pool(row) is not None and is_same("kv_cache", row.conditions, asked)]
    if not pools:
        return near[-1]
    fullest = max(len(row.terms) for row in pools)
    ordered = sorted((row for row in pools if len(row.terms) == fullest), key=lambda row: _pool(row) or 0)
    return ordered[(len(ordered) - 1) // 2]


def _pool(row: KnownMemory) -> int | None:
    pool = row.terms.get("kv_cache")
    return row.kv_cache_tokens if pool is None else pool.bytes


def _printed(asked: Conditions) -> float:
    return PRINTED_MIB_BYTES if asked.engine == "llamacpp" else LOGGED_SPREAD_BYTES


def _generations(asked: Conditions) -> tuple[str, ...]:
    """Of vLLM: its first engine was the only one up to 0.7 and is gone since 0.11."""
    version = version_key(asked.engine_version or "")
    if asked.engine != "vllm" or version is None or (0, 8) <= version < (0, 11):
        return ("V0", "V1")
    return ("V0",) if version < (0, 8) else ("V1",)


def agree(one: Conditions, asked: Conditions) -> bool:
    """Settings whose absence means off have to be the same; of the others, those that both sides tell."""
    lenient = all(asked.lenient.get(name, value) == value for name, value in one.lenient.items())
    return one.strict == asked.strict and lenient


def _batches(conditions: Conditions) -> tuple[int | None, int | None]:
    return conditions.max_num_seqs, conditions.max_num_batched_tokens
