"""Where a device's memory goes, rank by rank, and what room it leaves for keys and values."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from servolt.document import Value

__all__ = ["TERMS", "Budget", "RankMemory", "Term", "TermName"]

TermName = Literal["weights", "kv_cache", "state", "activation", "graph", "overhead"]
TERMS: tuple[TermName, ...] = ("weights", "kv_cache", "state", "activation", "graph", "overhead")
TermBasis = Literal["exact", "formula", "calibrated", "measured"]


class Term(Value):
    """Bytes of one term on one rank; low and high (P10 and P90) are equal where it is exact."""

    bytes: int = Field(ge=0)
    low: int = Field(ge=0)
    high: int = Field(ge=0)
    basis: TermBasis
    formula: str = Field(description="how it came about, with its values")

    @classmethod
    def exact(cls, number: float, formula: str) -> "Term":
        return cls(bytes=round(number), low=round(number), high=round(number), basis="exact", formula=formula)

    @classmethod
    def soft(cls, number: float, tolerance: float, formula: str) -> "Term":
        """A formula that was seen off by a share of `tolerance` either way."""
        low, high = round(number / (1 + tolerance)), round(number * (1 + tolerance))
        return cls(bytes=round(number), low=low, high=high, basis="formula", formula=formula)


class RankMemory(Value):
    """One device of one pipeline stage. Ranks that are alike stand here once. Made by `of`."""

    rank: str = Field(description="such as pp0, or gpu0; host where weights are kept off the devices")
    ranks: int = Field(1, ge=1, description="devices that look like this")
    total_bytes: int = Field(ge=0)
    low_bytes: int = Field(ge=0, description="of the total, P10")
    high_bytes: int = Field(ge=0, description="of the total, P90")
    weights_bytes: int = Field(ge=0)
    kv_cache_bytes: int = Field(ge=0, description="the pool, or what the sequences take where there is none")
    state_bytes: int = Field(ge=0, description="of recurrent layers")
    activation_bytes: int = Field(ge=0, description="the peak of a step: activations, logits, work spaces")
    graph_bytes: int = Field(ge=0, description="captured CUDA graphs")
    overhead_bytes: int = Field(ge=0, description="context, libraries, communication buffers, the process")
    available_bytes: int | None = Field(None, description="that this engine may take of the device; None: not known")
    terms: Mapping[TermName, Term] = Field(description="the same with low, high and formula")

    @classmethod
    def of(
        cls,
        rank: str,
        terms: Mapping[TermName, Term],
        *,
        ranks: int = 1,
        available_bytes: int | None,
        low_bytes: int | None = None,
        high_bytes: int | None = None,
    ) -> "RankMemory":
        """Totals are sums; those of errors too, which move together, unless the caller knows better."""
        full = {name: terms.get(name) or Term.exact(0, "none") for name in TERMS}
        return cls(
            rank=rank,
            ranks=ranks,
            total_bytes=sum(term.bytes for term in full.values()),
            low_bytes=sum(term.low for term in full.values()) if low_bytes is None else low_bytes,
            high_bytes=sum(term.high for term in full.values()) if high_bytes is None else high_bytes,
            weights_bytes=full["weights"].bytes,
            kv_cache_bytes=full["kv_cache"].bytes,
            state_bytes=full["state"].bytes,
            activation_bytes=full["activation"].bytes,
            graph_bytes=full["graph"].bytes,
            overhead_bytes=full["overhead"].bytes,
            available_bytes=available_bytes,
            terms=full,
        )


class Budget(Value):
    """The memory of a deployment. For engines that fill a pool, kv_cache is the pool, so total is near available."""

    per_rank: tuple[RankMemory, ...]
    pooled: bool = Field(description="the engine gives all that is left to keys and values")
    kv_bytes_per_token: int = Field(description="of one rank that keeps the most, all layers, without windows")
    kv_cache_tokens: int = Field(description="that fit the pool, as the engine's log says it")
    kv_cache_tokens_low: int
    kv_cache_tokens_high: int
    num_gpu_blocks: int | None = None
    max_concurrency: float = Field(description="requests of max_model_len that fit at the same time")
    max_concurrency_low: float
    max_concurrency_high: float
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    binding: str = Field(description="the rank and term that leaves no more room")
    notes: tuple[str, ...] = Field((), description="what makes this wider: an unknown version, kind or device")

    @property
    def fullest(self) -> RankMemory:
        """The device on which the least is left."""
        devices = [rank for rank in self.per_rank if rank.available_bytes is not None] or list(self.per_rank)
        return max(devices, key=lambda rank: rank.total_bytes - (rank.available_bytes or 0))

    @property
    def total_bytes(self) -> int:
        """Of the fullest device."""
        return self.fullest.total_bytes

    @property
    def low_bytes(self) -> int:
        return self.fullest.low_bytes

    @property
    def high_bytes(self) -> int:
        return self.fullest.high_bytes

    @property
    def weights_bytes(self) -> int:
        return self.fullest.weights_bytes

    @property
    def kv_cache_bytes(self) -> int:
        return self.fullest.kv_cache_bytes

    @property
    def available_bytes(self) -> int | None:
        return self.fullest.available_bytes
