"""Which mixer and which feed-forward part each layer has, from the many ways in which configs say so."""

from typing import Literal

from servolt.model.attention import has_latent
from servolt.model.families import Family
from servolt.model.fields import Fields

__all__ = ["FeedForwardKind", "MixerKind", "Mixers", "feed_forwards", "mixers"]

# Before it is clear which linear attention or which Mamba it is; `parallel` has attention and Mamba side by side.
MixerKind = Literal["full", "sliding", "chunked", "linear", "mamba", "conv", "recurrent", "parallel", "none"]
FeedForwardKind = Literal["dense", "moe", "none"]
Mixers = tuple[MixerKind, ...]

FULL: MixerKind = "full"
MAMBA: MixerKind = "mamba"
PARALLEL: MixerKind = "parallel"
DENSE: FeedForwardKind = "dense"
NONE: FeedForwardKind = "none"

WORDS: dict[str, MixerKind] = {
    "full_attention": "full",
    "attention": "full",
    "full": "full",
    "global": "full",
    "global_attention": "full",
    "sliding_attention": "sliding",
    "sliding_window": "sliding",
    "sliding": "sliding",
    "local": "sliding",
    "local_attention": "sliding",
    "chunked_attention": "chunked",
    "linear_attention": "linear",
    "kda": "linear",
    "mamba": "mamba",
    "mamba2": "mamba",
    "conv": "conv",
    "recurrent": "recurrent",
    "hybrid": "parallel",
    "moe": "none",
    "mlp": "none",
}
BLOCKS: dict[str, tuple[MixerKind, FeedForwardKind]] = {
    "M": ("mamba", "none"),
    "*": ("full", "none"),
    "-": ("none", "dense"),
    "E": ("none", "moe"),
    "mamba": ("mamba", "none"),
    "attention": ("full", "none"),
    "mlp": ("none", "dense"),
    "moe": ("none", "moe"),
    "linear_attention": ("mamba", "none"),
    "full_attention": ("full", "none"),
}


def mixers(fields: Fields, family: Family, layers: int) -> Mixers:
    """One for each layer. The first way that the config uses counts."""
    blocks = _blocks(fields)
    if blocks is not None:
        return tuple(mixer for mixer, _ in blocks)
    named = fields.names("layer_types", "layers_block_type", "layer_type_list", "block_types", "_block_types")
    if named is not None:
        kinds = [WORDS.get(name, "full") for name in named]
        if layers % len(kinds) or not set(named) <= WORDS.keys():
            fields.doubted.add("layer_types")
        if not fields.has("linear_num_value_heads", "linear_conv_kernel_dim") and fields.has(
            "mamba_d_state", "n_mamba_heads"
        ):
            kinds = ["mamba" if kind == "linear" else kind for kind in kinds]
        return tuple(kinds[layer % len(kinds)] for layer in range(layers))
    for way in (_hybrid, _sliding):
        found = way(fields, family, layers)
        if found is not None:
            return found
    return (FULL,) * layers


def feed_forwards(fields: Fields, mixers: Mixers, *, has_experts: bool) -> tuple[FeedForwardKind, ...]:
    layers = len(mixers)
    blocks = _blocks(fields)
    if blocks is not None:
        return tuple(kind for _, kind in blocks)
    if (
        set(mixers) == {"mamba"}
        and not has_experts
        and (fields.has("state_size") or not fields.has("intermediate_size"))
    ):
        return (NONE,) * layers  # Mamba alone
    if fields.has("hybrid_layer_ids"):
        return (NONE,) * layers
    if not has_experts:
        return (DENSE,) * layers
    return tuple("moe" if is_moe else "dense" for is_moe in _with_experts(fields, layers))


def _blocks(fields: Fields) -> list[tuple[MixerKind, FeedForwardKind]] | None:
    """Nemotron-H: a block is a mixer or a feed-forward part."""
    pattern = fields.text("hybrid_override_pattern")
    if pattern and set(pattern) <= set(BLOCKS):
        return [BLOCKS[letter] for letter in pattern]
    named = fields.names("layers_block_type")
    if named is not None and set(named) & {"moe", "mlp"} and set(named) <= set(BLOCKS):
        return [BLOCKS[name] for name in named]
    return None


def _hybrid(fields: Fields, family: Family, layers: int) -> Mixers | None:
    full = fields.sizes("full_attn_layers")
    if full and fields.has("kda_layers"):  # counted from 1
        return tuple("full" if layer + 1 in full else "linear" for layer in range(layers))
    if fields.has("full_attention_interval") and fields.has("linear_num_value_heads"):
        every = fields.least("full_attention_interval")
        return tuple("full" if layer % every == every - 1 else "linear" for layer in range(layers))
    kinds = fields.sizes("attn_type_list")
    if kinds is not None:  # MiniMax-01: 0 is linear, 1 full
        return tuple("full" if kinds[layer % len(kinds)] else "linear" for layer in range(layers))
    if fields.has("attn_layer_period"):
        period, offset = fields.least("attn_layer_period"), fields.size("attn_layer_offset", 0)
        return tuple("full" if layer % period == offset else "mamba" for layer in range(layers))
    at = fields.sizes("full_attn_idxs")
    if at is not None:
        return tuple("full" if layer in at else "conv" for layer in range(layers))
    at = fields.sizes("attn_layer_indices")
    if at is not None:
        return tuple("full" if layer in at else "mamba" for layer in range(layers))
    every = fields.size("layer_group_size", 0)
    if every and has_latent(fields):  # Ling 2.5: the last of each group has attention
        return tuple("full" if (layer + 1) % every == 0 else "linear" for layer in range(layers))
    if family.mixer == "parallel":
        return (PARALLEL,) * layers
    if family.mixer == "mamba":
        return (MAMBA,) * layers
    return None


def _sliding(fields: Fields, family: Family, layers: int) -> Mixers | None:
    listed = fields.sizes("sliding_window_layers", "hybrid_layer_pattern")
    if listed is not None:
        return tuple("sliding" if listed[layer % len(listed)] else "full" for layer in range(layers))
    if fields.has("attention_chunk_size") and not fields.has("hybrid_layer_pattern"):
        no_rope = fields.sizes("no_rope_layers")  # 0 where a layer has no positions, and then sees all
        if no_rope:
            return tuple("chunked" if no_rope[layer % len(no_rope)] else "full" for layer in range(layers))
        every = fields.size("no_rope_layer_interval", 4)
        return tuple("full" if layer % every == every - 1 else "chunked" for layer in range(layers))
    if not fields.get("sliding_window") and "sliding_window" not in family.defaults:
        return None
    pattern = fields.get("sliding_window_pattern", "_sliding_window_pattern", "layer_switch")
    if isinstance(pattern, str) and pattern:  # EXAONE 4: LLLG
        return tuple("sliding" if pattern[layer % len(pattern)] in "LS" else "full" for layer in range(layers))
    pattern = pattern if isinstance(pattern, int) else family.defaults.get("sliding_pattern")
    if isinstance(pattern, int) and pattern > 0:  # the last of so many sees all
        return tuple("full" if layer % pattern == pattern - 1 else "sliding" for layer in range(layers))
    if fields.has("use_sliding_window") and not fields.flag("use_sliding_window"):
        return None
    first = fields.size("max_window_layers", 0)  # Qwen2: the layers from this one on slide
    return tuple("sliding" if layer >= first else "full" for layer in range(layers))


def _with_experts(fields: Fields, layers: int) -> list[bool]:
    kinds = fields.names("mlp_layer_types")
    if kinds is not None:
        return [kinds[layer % len(kinds)] != "dense" for layer in range(layers)]
    listed = fields.sizes("moe_layer_freq")
    if listed is not None:
        return [bool(listed[layer % len(listed)]) for layer in range(layers)]
    if fields.has("moe_layers_enum"):
        at = {int(number) for number in str(fields.get("moe_layers_enum")).split(",") if number.strip().isdigit()}
        return [layer in at for layer in range(layers)]
    at_once = fields.sizes("moe_layers")
    if at_once is not None:
        return [layer in at_once for layer in range(layers)]
    if fields.has("expert_layer_period"):
        period, offset = fields.least("expert_layer_period"), fields.size("expert_layer_offset", 0)
        return [layer % period == offset for layer in range(layers)]
    if fields.has("interleave_moe_layer_step"):
        step = fields.least("interleave_moe_layer_step")
        return [(layer + 1) % step == 0 for layer in range(layers)]
    dense_only = fields.sizes("mlp_only_layers") or ()
    step = fields.size("decoder_sparse_step", fields.size("moe_layer_interval", fields.size("moe_layer_freq", 1))) or 1
    first = fields.size("first_k_dense_replace", 0)
    if fields.has("decoder_sparse_step"):
        return [layer not in dense_only and (layer + 1) % step == 0 for layer in range(layers)]
    return [layer >= first and layer % step == 0 and layer not in dense_only for layer in range(layers)]
