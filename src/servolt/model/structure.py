"""The layers of a model one by one, and what stands outside of them."""

from typing import Any, NamedTuple

from servolt.model.attention import Heads, grouped_query, has_latent, heads_of, latent_attention, latent_of
from servolt.model.extras import compressed_attention, in_each_layer, outside_layers
from servolt.model.families import Family
from servolt.model.feed_forward import FeedForward, dense, dense_width, experts_of, mixture
from servolt.model.fields import Fields
from servolt.model.layers import LayerKind
from servolt.model.patterns import FeedForwardKind, MixerKind, feed_forwards, mixers
from servolt.model.recurrent import Recurrent, delta_rule, mamba1, mamba2, short_convolution, simple_recurrence
from servolt.model.weights import Weight, matrix, vector

__all__ = ["Layer", "is_tied", "layers_of", "outside_of"]

NO_FEED_FORWARD = FeedForward([], 0)


class Layer(NamedTuple):
    """One, before equal ones are counted. `kind` holds no parts yet."""

    kind: LayerKind
    weights: tuple[Weight, ...]


def layers_of(fields: Fields, family: Family) -> list[Layer]:
    """In order. Where attention and Mamba, or two attentions, stand side by side in one layer, each is a layer here."""
    named = fields.names("layers_block_type", "block_configs")
    count = fields.layers(len(named) if named else len(fields.text("hybrid_override_pattern")) or None)
    if fields.has("block_configs"):
        return _of_blocks(fields, family, count)
    experts = experts_of(fields, family)
    mixed = mixers(fields, family, count)
    behind = feed_forwards(fields, mixed, has_experts=experts is not None)
    sharing = fields.size("num_kv_shared_layers", 0)
    layers: list[Layer] = []
    for number, (mixer, kind) in enumerate(zip(mixed, behind, strict=False)):
        shares_kv = number >= count - sharing
        after = _feed_forward(fields, family, kind, number, shares_kv=shares_kv)
        extra = in_each_layer(fields, family)
        if mixer == "parallel" and fields.has("hybrid_layer_ids"):
            layers += _shared_block(fields, family)
        elif mixer == "parallel":
            layers.append(_recurrent(mamba2(fields), NO_FEED_FORWARD, []))
            layers.append(_attention(fields, family, "full", after, number, extra))
        elif fields.has("zero_expert_num"):  # LongCat: two of each, and one mixture that runs beside the second
            layers.append(_attention(fields, family, mixer, dense(fields, family, number), number, extra))
            both = FeedForward([*dense(fields, family, number).weights, *after.weights], 0, after.experts)
            layers.append(_attention(fields, family, mixer, both, number, extra))
        elif mixer in ("linear", "mamba", "conv", "recurrent"):
            layers.append(
                _recurrent(_recurrence(fields, family, mixer), after, [*_norms(fields, family, after), *extra])
            )
        else:
            layers.append(_attention(fields, family, mixer, after, number, extra, shares_kv=shares_kv))
    return layers


def _feed_forward(
    fields: Fields, family: Family, kind: FeedForwardKind, number: int, *, shares_kv: bool
) -> FeedForward:
    experts = experts_of(fields, family)
    if kind == "moe" and experts is not None:
        return mixture(fields, family, experts, number)
    if kind == "none":
        return NO_FEED_FORWARD
    width = dense_width(fields, family, number)
    wide = fields.flag("use_double_wide_mlp") and shares_kv  # Gemma 4
    return dense(fields, family, number, width * (2 if wide else 1))


def _recurrence(fields: Fields, family: Family, mixer: MixerKind) -> Recurrent:
    if mixer == "linear":
        return delta_rule(fields, family)
    if mixer == "conv":
        return short_convolution(fields)
    if mixer == "recurrent":
        return simple_recurrence(fields)
    kind = fields.text("model_type")
    is_first = kind in ("jamba", "mamba", "falcon_mamba") or fields.has("mamba_dt_rank")
    return mamba1(fields, inner_norms=kind == "jamba") if is_first else mamba2(fields)


def _norms(fields: Fields, family: Family, after: FeedForward) -> list[Weight]:
    norms = family.norms if after.weights else 1
    return [vector("norms", norms * family.norm_vectors * fields.least("hidden_size"), "norm", "none")]


def _recurrent(mixer: Recurrent, after: FeedForward, others: list[Weight]) -> Layer:
    kind = LayerKind(
        count=1,
        mixer=mixer.mixer,
        num_heads=mixer.heads,
        head_dim_k=mixer.width,
        head_dim_v=mixer.width_v,
        conv_elements=mixer.conv_elements,
        conv_kernel=mixer.conv_kernel,
        state_elements=mixer.state_elements,
        intermediate_size=after.intermediate_size,
        experts=after.experts,
    )
    return Layer(kind, (*mixer.weights, *others, *after.weights))


def _attention(
    fields: Fields,
    family: Family,
    mixer: MixerKind,
    after: FeedForward,
    number: int,
    extra: list[Weight],
    *,
    shares_kv: bool = False,
) -> Layer:
    others = (*_norms(fields, family, after), *extra, *after.weights)
    common: dict[str, Any] = {"count": 1, "intermediate_size": after.intermediate_size, "experts": after.experts}
    if mixer == "none":
        norm = vector("norms", family.norm_vectors * fields.least("hidden_size"), "norm", "none")
        return Layer(LayerKind(mixer="none", **common), (norm, *extra, *after.weights))
    crossed = fields.sizes("cross_attention_layers")  # Llama 3.2 Vision: they look at images, and keep nothing of text
    if crossed and number in crossed:
        heads = heads_of(fields, "full", number)
        return Layer(LayerKind(mixer="none", **common), (*grouped_query(fields, family, heads, "full"), *others))
    compressed = compressed_attention(fields, number)
    if compressed is not None:
        kind = LayerKind(
            mixer="dsa" if compressed.index_topk else "mla" if compressed.ratio else "sliding",
            num_heads=compressed.heads,
            num_kv_heads=1,
            head_dim_k=compressed.width,
            window=fields.size("sliding_window", 0) or None,
            kv_lora_rank=max(0, compressed.width - compressed.rope) if compressed.ratio else 0,
            rope_head_dim=compressed.rope,
            kv_compression=max(compressed.ratio, 1),
            index_head_dim=compressed.index_width,
            index_topk=compressed.index_topk,
            **common,
        )
        return Layer(kind, (*compressed.weights, *others))
    if has_latent(fields):
        return _with_latent(fields, family, number, common, others)
    heads = heads_of(fields, mixer, number)
    weights = grouped_query(fields, family, heads, mixer)
    return Layer(_grouped(fields, mixer, heads, common, shares_kv=shares_kv), (*weights, *others))


def _grouped(fields: Fields, mixer: MixerKind, heads: Heads, common: dict[str, Any], *, shares_kv: bool) -> LayerKind:
    window = {
        "sliding": fields.size("sliding_window", 0),
        "chunked": fields.size("attention_chunk_size", 0),
    }.get(mixer, 0)
    return LayerKind(
        mixer="sliding" if mixer == "sliding" else "chunked" if mixer == "chunked" else "full",
        num_heads=heads.queries,
        num_kv_heads=heads.keys,
        head_dim_k=heads.width_k,
        head_dim_v=heads.width_v,
        window=window or None,
        index_head_dim=heads.index_width,
        index_topk=heads.index_topk,
        shares_kv=shares_kv,
        **common,
    )


def _with_latent(
    fields: Fields, family: Family, number: int, common: dict[str, Any], others: tuple[Weight, ...]
) -> Layer:
    latent = latent_of(fields)
    has_indexer = latent.index_topk > 0
    types = fields.names("indexer_types")  # GLM-5.2: most layers use the choice of an earlier one
    own = has_indexer and (types is None or types[number % len(types)] == "full")
    kind = LayerKind(
        mixer="dsa" if has_indexer else "mla",
        num_heads=latent.queries,
        num_kv_heads=latent.queries,
        head_dim_k=latent.nope + latent.rope,
        head_dim_v=latent.width_v,
        kv_lora_rank=latent.kv_rank,
        rope_head_dim=latent.rope,
        index_head_dim=latent.index_width if own else 0,
        index_topk=latent.index_topk,
        **common,
    )
    return Layer(kind, (*latent_attention(fields, family, latent, indexer=own), *others))


def _of_blocks(fields: Fields, family: Family, count: int) -> list[Layer]:
    """Nemotron's searched architectures: each layer says how many query heads share keys, and how wide its MLP is."""
    blocks = fields.get("block_configs")
    layers: list[Layer] = []
    for number in range(count):
        block = blocks[number] if number < len(blocks) and isinstance(blocks[number], dict) else {}
        mixer, behind = Fields(block.get("attention") or {}, fields.name), Fields(block.get("ffn") or {}, fields.name)
        after = NO_FEED_FORWARD
        if not behind.flag("no_op"):
            after = dense(fields, family, number, _block_width(fields, behind))
        common: dict[str, Any] = {"count": 1, "intermediate_size": after.intermediate_size}
        norms = [vector("norms", family.norm_vectors * fields.least("hidden_size"), "norm", "none")]
        if mixer.flag("no_op", "replace_with_linear"):
            layers.append(Layer(LayerKind(mixer="none", **common), (*(norms if after.weights else []), *after.weights)))
            continue
        queries = fields.least("num_attention_heads")
        keys = mixer.size("num_key_value_heads", queries // mixer.least("n_heads_in_group", 1))
        width = fields.size("head_dim", fields.least("hidden_size") // queries)
        heads = Heads(queries, keys, width, width)
        weights = grouped_query(fields, family, heads, "full")
        kind = _grouped(fields, "full", heads, common, shares_kv=False)
        layers.append(Layer(kind, (*weights, *norms, *(norms if after.weights else []), *after.weights)))
    return layers


def _block_width(fields: Fields, behind: Fields) -> int:
    """Two thirds of a multiple of the hidden size, to the next multiple of 256."""
    if behind.has("intermediate_size"):
        return behind.size("intermediate_size")
    width = int(2 * behind.number("ffn_mult", 4) * fields.least("hidden_size") / 3)
    return -(-width // 256) * 256


def _shared_block(fields: Fields, family: Family) -> list[Layer]:
    """Zamba2: a Mamba layer behind an attention whose weights all such layers share; each adds a small adapter."""
    hidden, rank = fields.least("hidden_size"), fields.size("adapter_rank", 128)
    wide = fields.size("attention_hidden_size", 2 * hidden)
    queries = fields.least("num_attention_heads")
    width = fields.size("attention_head_dim", wide // queries)
    own = [
        matrix("linear", "other", hidden, hidden)._replace(linear=False),
        vector("adapter", rank * (hidden + 2 * fields.size("intermediate_size"))),
    ]
    if fields.flag("use_shared_attention_adapter"):
        own.append(vector("attention_adapter", 3 * rank * 2 * wide))
    keys = fields.size("num_key_value_heads", queries)
    attention = LayerKind(
        count=1, mixer="full", num_heads=queries, num_kv_heads=keys, head_dim_k=width, head_dim_v=width
    )
    norm = vector("norms", hidden, "norm", "none")
    return [Layer(attention, tuple(own)), _recurrent(mamba2(fields), NO_FEED_FORWARD, [norm])]


def is_tied(fields: Fields, family: Family) -> bool:
    return fields.flag("tie_word_embeddings", otherwise=family.tied)


def outside_of(fields: Fields, family: Family, layers: int) -> list[Weight]:
    hidden, vocabulary = fields.least("hidden_size"), fields.least("vocab_size")
    embedded = fields.size("word_embed_proj_dim", hidden)
    weights = [matrix("embed_tokens", "embedding", vocabulary, embedded, "vocab")._replace(linear=False)]
    if embedded != hidden:
        weights.append(matrix("project", "other", 2 * hidden, embedded)._replace(linear=False))
    if not is_tied(fields, family):
        weights.append(matrix("lm_head", "output", vocabulary, hidden, "vocab"))
    if family.head_bias:
        weights.append(vector("lm_head.bias", vocabulary, "output", "vocab"))
    if family.positions is not None:
        positions = fields.least("max_position_embeddings") + family.positions
        weights.append(vector("positions", positions * hidden, "embedding", "none"))
    if family.embedding_norm:
        weights.append(vector("embedding_norm", family.norm_vectors * hidden, "norm", "none"))
    if fields.has("hybrid_layer_ids"):
        weights += _shared_weights(fields, hidden)
    weights += outside_layers(fields, layers)
    return [*weights, vector("norm", family.norm_vectors * hidden, "norm", "none")]


def _shared_weights(fields: Fields, hidden: int) -> list[Weight]:
    wide, inner = fields.size("attention_hidden_size", 2 * hidden), fields.size("intermediate_size")
    blocks = fields.least("num_mem_blocks", 1)
    return [
        matrix("shared.qkv_proj", "attention", 3 * wide, wide, copies=blocks),
        matrix("shared.o_proj", "attention", hidden, wide, copies=blocks),
        matrix("shared.up_proj", "mlp", 2 * inner, hidden, copies=blocks),
        matrix("shared.down_proj", "mlp", hidden, inner, copies=blocks),
        vector("shared.norms", wide + hidden, "norm", "none", copies=blocks),
    ]
