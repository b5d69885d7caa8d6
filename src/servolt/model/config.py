"""A model from its config.json: what each layer is made of, and how many weights that takes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from servolt.errors import ModelFileError
from servolt.model.attention import grouped_query, has_latent, heads_of, latent_attention, latent_of
from servolt.model.families import Family, family_of
from servolt.model.feed_forward import FeedForward, dense, experts_of, mixture
from servolt.model.fields import Fields, text_fields
from servolt.model.ignored import IGNORED
from servolt.model.layers import LayerKind, Part
from servolt.model.model import Model
from servolt.model.patterns import FeedForwardKind, MixerKind, feed_forwards, mixers
from servolt.model.recurrent import Recurrent, delta_rule, mamba1, mamba2, short_convolution, simple_recurrence
from servolt.model.scheme import Scheme, scheme_of
from servolt.model.towers import tower_weights
from servolt.model.weights import Stored, Weight, matrix, parts_of, vector

__all__ = ["model_from_config"]


class _Layer(NamedTuple):
    """One layer before equal ones are counted. `kind` holds no parts yet."""

    kind: LayerKind
    weights: tuple[Weight, ...]


def model_from_config(
    config: Mapping[str, Any],
    *,
    name: str,
    quantization: str | None = None,
    dtype: str | None = None,
    headers: Sequence[Mapping[str, Any]] = (),
) -> Model:
    """The model that a config.json describes. Raises ModelFileError naming the field that can't be used.

    `quantization` stands in for a `quantization_config` that is not there; `dtype` replaces the config's own. `headers`
    are those of the safetensors files: where they are given their sizes count, not the closed forms.
    """
    if not isinstance(config, Mapping) or not config:
        raise ModelFileError(f"The config of {name} is empty.", "Give a config.json that holds names with values.")
    fields = text_fields(config, name)
    kind, family = family_of(fields)
    fields.values = {**family.defaults, **{key: value for key, value in fields.values.items() if value is not None}}
    layers = _layers(fields, family)
    outside = _outside(fields, family) + tower_weights(config, fields)
    scheme = scheme_of(
        fields,
        quantization=quantization,
        dtype=dtype,
        has_experts=any(layer.kind.experts for layer in layers),
        place=_place(layers, outside),
    )
    kinds, order = _counted(layers, scheme)
    parts = parts_of(outside, lambda weight: scheme.stored(weight, weight.module))
    parts += _mtp(fields, kinds, scheme)
    return _model(fields, name, kind, kinds, order, parts, scheme)


def _layers(fields: Fields, family: Family) -> list[_Layer]:
    named = fields.names("layers_block_type")
    count = fields.layers(len(named) if named else len(fields.text("hybrid_override_pattern")) or None)
    experts = experts_of(fields)
    mixed = mixers(fields, family, count)
    behind = feed_forwards(fields, mixed, has_experts=experts is not None)
    sharing = fields.size("num_kv_shared_layers", 0)
    layers: list[_Layer] = []
    for layer, (mixer, feed_forward) in enumerate(zip(mixed, behind, strict=True)):
        after = _feed_forward(fields, family, mixer, feed_forward, layer)
        if mixer == "parallel":
            layers.append(_recurrent_layer(mamba2(fields), FeedForward([], 0), []))
            mixer = "full"
        if mixer in ("linear", "mamba", "conv", "recurrent"):
            layers.append(_recurrent_layer(_recurrent(fields, mixer), after, _norms(fields, family, after)))
        else:
            layers.append(_attention_layer(fields, family, mixer, after, layer, shares_kv=layer >= count - sharing))
    return layers


def _place(layers: Sequence[_Layer], outside: Sequence[Weight]) -> Mapping[str, Any]:
    """What llama.cpp's mixes look at."""
    attention = next((layer.kind for layer in layers if layer.kind.num_kv_heads), None)
    experts = next((layer.kind.experts for layer in layers if layer.kind.experts), None)
    return {
        "tied": not any(weight.module == "lm_head" for weight in outside),
        "in_layer": {
            "layers": len(layers),
            "queries_per_key": attention.num_heads // attention.num_kv_heads if attention else 1,
            "experts": experts.num_experts if experts else 0,
            "is_70b": len(layers) == 80 and attention is not None and attention.num_heads != attention.num_kv_heads,
        },
    }


def _feed_forward(fields: Fields, family: Family, mixer: MixerKind, kind: FeedForwardKind, layer: int) -> FeedForward:
    experts = experts_of(fields)
    if kind == "moe" and experts is not None:
        return mixture(fields, family, experts, layer)
    is_pure_mamba = mixer == "mamba" and fields.text("model_type") in ("mamba", "mamba2", "falcon_mamba")
    if kind == "none" or is_pure_mamba:
        return FeedForward([], 0)
    return dense(fields, family, layer)


def _recurrent(fields: Fields, mixer: MixerKind) -> Recurrent:
    if mixer == "linear":
        return delta_rule(fields)
    if mixer == "conv":
        return short_convolution(fields)
    if mixer == "recurrent":
        return simple_recurrence(fields)
    is_first = fields.text("model_type") in ("jamba", "mamba", "falcon_mamba") or fields.has("mamba_dt_rank")
    return mamba1(fields, inner_norms=fields.text("model_type") == "jamba") if is_first else mamba2(fields)


def _norms(fields: Fields, family: Family, after: FeedForward) -> list[Weight]:
    hidden = fields.least("hidden_size")
    norms = family.norms if after.weights else 1
    return [vector("norms", norms * norm_vectors(fields, family) * hidden, "norm", "none")]


def norm_vectors(fields: Fields, family: Family) -> int:
    named = fields.text("model_type_litgpt")
    return 2 if named.endswith("LayerNorm") else family.norm_vectors


def _recurrent_layer(mixer: Recurrent, after: FeedForward, norms: list[Weight]) -> _Layer:
    kind = LayerKind(
        count=1,
        mixer=mixer.mixer,
        num_heads=mixer.heads,
        head_dim_k=mixer.width,
        head_dim_v=mixer.width,
        conv_elements=mixer.conv_elements,
        conv_kernel=mixer.conv_kernel,
        state_elements=mixer.state_elements,
        intermediate_size=after.intermediate_size,
        experts=after.experts,
    )
    return _Layer(kind, (*mixer.weights, *norms, *after.weights))


def _attention_layer(
    fields: Fields, family: Family, mixer: MixerKind, after: FeedForward, layer: int, *, shares_kv: bool
) -> _Layer:
    common: dict[str, Any] = {"count": 1, "intermediate_size": after.intermediate_size, "experts": after.experts}
    norms = _norms(fields, family, after)
    if mixer == "none":
        hidden = fields.least("hidden_size")
        norm = vector("norms", norm_vectors(fields, family) * hidden, "norm", "none")
        return _Layer(LayerKind(mixer="none", **common), (norm, *after.weights))
    if has_latent(fields):
        latent = latent_of(fields)
        has_indexer = latent.index_topk > 0
        types = fields.names("indexer_types")
        own = has_indexer and (types is None or types[layer % len(types)] == "full")
        kind = LayerKind(
            mixer="dsa" if has_indexer else "mla",
            num_heads=latent.queries,
            num_kv_heads=latent.queries,
            head_dim_k=latent.nope + latent.rope,
            head_dim_v=latent.width_v,
            kv_lora_rank=latent.kv_rank,
            rope_head_dim=latent.rope,
            index_head_dim=latent.index_width,
            index_topk=latent.index_topk,
            **common,
        )
        return _Layer(kind, (*latent_attention(fields, latent, indexer=own), *norms, *after.weights))
    heads = heads_of(fields, mixer, layer)
    window = fields.size("sliding_window", 0) if mixer == "sliding" else fields.size("attention_chunk_size", 0)
    kind = LayerKind(
        mixer="sliding" if mixer == "sliding" else "chunked" if mixer == "chunked" else "full",
        num_heads=heads.queries,
        num_kv_heads=heads.keys,
        head_dim_k=heads.width_k,
        head_dim_v=heads.width_v,
        window=window or None if mixer in ("sliding", "chunked") else None,
        shares_kv=shares_kv,
        **common,
    )
    return _Layer(kind, (*grouped_query(fields, family, heads, shares_kv=shares_kv), *norms, *after.weights))


def _outside(fields: Fields, family: Family) -> list[Weight]:
    hidden, vocabulary = fields.least("hidden_size"), fields.least("vocab_size")
    embedded = fields.size("word_embed_proj_dim", hidden)
    weights = [matrix("embed_tokens", "embedding", vocabulary, embedded, "vocab")._replace(linear=False)]
    if embedded != hidden:
        weights += [matrix("project", "other", 2 * hidden, embedded)._replace(linear=False)]
    if not is_tied(fields, family):
        weights.append(matrix("lm_head", "output", vocabulary, hidden, "vocab"))
    if family.head_bias:
        weights.append(vector("lm_head.bias", vocabulary, "output", "vocab"))
    if family.positions is not None:
        positions = fields.least("max_position_embeddings") + family.positions
        weights.append(vector("positions", positions * hidden, "embedding", "none"))
    vectors = norm_vectors(fields, family)
    if family.embedding_norm:
        weights.append(vector("embedding_norm", vectors * hidden, "norm", "none"))
    return [*weights, vector("norm", vectors * hidden, "norm", "none")]


def is_tied(fields: Fields, family: Family) -> bool:
    return fields.flag("tie_word_embeddings", otherwise=family.tied)


def _counted(layers: list[_Layer], scheme: Scheme) -> tuple[tuple[LayerKind, ...], tuple[int, ...]]:
    """Equal layers are one kind; how they are quantised counts too."""
    found: dict[tuple[LayerKind, tuple[Part, ...]], int] = {}
    order = []
    for number, layer in enumerate(layers):
        parts = _parts_in_layer(layer, number, scheme)
        order.append(found.setdefault((layer.kind, parts), len(found)))
    kinds = tuple(
        kind.model_copy(update={"count": order.count(index), "parts": parts}) for (kind, parts), index in found.items()
    )
    return kinds, tuple(order)


def _parts_in_layer(layer: _Layer, number: int, scheme: Scheme) -> tuple[Part, ...]:
    def stored(weight: Weight) -> Stored:
        return scheme.stored(weight, f"model.layers.{number}.{weight.module}", number)

    return parts_of(layer.weights, stored)


def _mtp(fields: Fields, kinds: Sequence[LayerKind], scheme: Scheme) -> tuple[Part, ...]:
    """Heads that guess further tokens: in DeepSeek-V3's form a layer, a projection from two widths to one, norms."""
    count = fields.size("num_nextn_predict_layers", 0)
    if not count or not kinds:
        return ()
    hidden = fields.least("hidden_size")
    last = kinds[-1]
    extra = parts_of(
        [matrix("eh_proj", "mtp", hidden, 2 * hidden), vector("norms", 3 * hidden, "mtp", "none")],
        lambda weight: scheme.stored(weight, f"mtp.{weight.module}"),
    )
    block = (*last.parts, *extra)
    return (
        Part(
            component="mtp",
            parameters=count * sum(part.parameters for part in block),
            bytes=count * sum(part.bytes for part in block),
            dtype=max(block, key=lambda part: part.bytes).dtype,
            sharding="tensor",
        ),
    )


def active_params(kinds: Sequence[LayerKind], parts: Sequence[Part]) -> int:
    """That one token passes: of the routed experts only those that are chosen; embedding and head are counted."""
    active = sum(part.parameters for part in parts if part.component not in ("vision", "mtp"))
    for kind in kinds:
        for part in kind.parts:
            share = 1.0
            if part.component == "expert" and kind.experts is not None:
                share = kind.experts.experts_per_token / kind.experts.num_experts
            active += round(part.parameters * share) * kind.count
    return active


def _model(
    fields: Fields,
    name: str,
    architecture: str,
    kinds: tuple[LayerKind, ...],
    order: tuple[int, ...],
    parts: tuple[Part, ...],
    scheme: Scheme,
) -> Model:
    own = [part for part in parts if part.component != "mtp"]
    total = sum(part.parameters for part in own) + sum(kind.parameters * kind.count for kind in kinds)
    size = sum(part.bytes for part in own) + sum(
        part.bytes for kind in kinds for part in kind.parts for _ in range(kind.count)
    )
    attention = [kind for kind in kinds if kind.num_kv_heads]
    most = max(attention, key=lambda kind: kind.num_kv_heads * kind.head_dim_k, default=None)
    sliding = [kind.window for kind in kinds if kind.mixer == "sliding" and kind.window]
    return Model(
        name=name,
        architecture=architecture or "unknown",
        basis="config",
        format="config",
        file_bytes=round(size + sum(part.bytes for part in parts if part.component == "mtp")),
        total_params=total,
        active_params=active_params(kinds, parts),
        weights_bytes=round(size),
        quantization=scheme.name,
        dtype=scheme.dtype,
        layers=kinds,
        layer_order=order,
        parts=parts,
        unknown_fields=fields.left(IGNORED),
        num_layers=len(order),
        hidden_size=fields.least("hidden_size"),
        intermediate_size=max((_width(kind) for kind in kinds), default=0),
        num_heads=max((kind.num_heads for kind in kinds), default=0),
        num_kv_heads=most.num_kv_heads if most else 0,
        head_dim_k=most.head_dim_k if most else 0,
        head_dim_v=most.head_dim_v if most else 0,
        vocab_size=fields.least("vocab_size"),
        max_position_embeddings=fields.size("max_position_embeddings", 0),
        sliding_window=sliding[0] if sliding else None,
        tied_embeddings=not any(part.component == "output" and part.parameters > 2**20 for part in parts),
    )


def _width(kind: LayerKind) -> int:
    return max(kind.intermediate_size, kind.experts.intermediate_size if kind.experts else 0)
