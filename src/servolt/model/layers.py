"""What a model's layers are made of: kinds, not names of models. All that is planned reads these."""

from typing import Literal

from pydantic import Field

from servolt.document import Value

__all__ = ["ATTENTION_KINDS", "RECURRENT_KINDS", "Component", "Experts", "LayerKind", "Mixer", "Part", "Sharding"]

Mixer = Literal["full", "sliding", "chunked", "mla", "dsa", "gdn", "kda", "mamba1", "mamba2", "shortconv", "none"]
ATTENTION_KINDS: frozenset[Mixer] = frozenset({"full", "sliding", "chunked", "mla", "dsa"})
RECURRENT_KINDS: frozenset[Mixer] = frozenset({"gdn", "kda", "mamba1", "mamba2", "shortconv"})

# How engines split a part over the ranks of tensor parallelism. `kv_heads`: divided until one head is left, then each
# rank holds a copy. `vocab`: padded, then divided. `expert`: by whole experts under expert parallelism, else by width.
Sharding = Literal["none", "tensor", "kv_heads", "vocab", "expert"]


Component = Literal[
    "embedding", "output", "attention", "mlp", "expert", "shared_expert", "router", "norm", "vision", "mtp", "other"
]


class Part(Value):
    """Weights of one component: of one layer inside a LayerKind, of the whole model elsewhere."""

    component: Component
    parameters: int = Field(ge=0)
    bytes: float = Field(ge=0, description="as stored, scales and zero points included")
    dtype: str = Field(description="bfloat16, fp8, q4_k ...: the type of most of it")
    sharding: Sharding = "tensor"


class Experts(Value):
    """Of one mixture-of-experts layer."""

    num_experts: int = Field(ge=1, description="routed ones")
    experts_per_token: int = Field(ge=1)
    intermediate_size: int = Field(ge=0, description="width of one expert")
    shared: int = Field(0, ge=0, description="experts that every token passes")


class LayerKind(Value):
    """Layers that are alike. Sizes that a kind has no use for are 0."""

    count: int = Field(ge=1, description="layers of this kind")
    mixer: Mixer
    num_heads: int = Field(0, ge=0, description="query heads")
    num_kv_heads: int = Field(0, ge=0)
    head_dim_k: int = Field(0, ge=0)
    head_dim_v: int = Field(0, ge=0)
    window: int | None = Field(None, description="tokens that a sliding layer sees, or the chunk of a chunked one")
    kv_lora_rank: int = Field(0, ge=0, description="mla, dsa: width of the latent")
    rope_head_dim: int = Field(0, ge=0, description="mla, dsa: part of a key that carries the position")
    kv_compression: int = Field(
        1, ge=1, description="tokens that share one entry of the cache; the window's have one each"
    )
    index_head_dim: int = Field(0, ge=0, description="width of the indexer's key; 0 where a layer keeps none")
    index_topk: int = Field(0, ge=0, description="tokens that are attended to")
    conv_elements: int = Field(0, ge=0, description="recurrent: what one position of the convolution keeps")
    conv_kernel: int = Field(0, ge=0, description="recurrent: width of the convolution; it keeps one position less")
    state_elements: int = Field(0, ge=0, description="recurrent: the state of one sequence")
    shares_kv: bool = Field(False, description="reads the keys and values of an earlier layer and keeps none")
    intermediate_size: int = Field(0, ge=0, description="width of a dense MLP")
    experts: Experts | None = None
    parts: tuple[Part, ...] = Field((), description="weights of one layer of this kind")

    @property
    def parameters(self) -> int:
        """Of one layer."""
        return sum(part.parameters for part in self.parts)
