"""A model from its config.json: what each layer is made of, and how many weights that takes."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from servolt.errors import ModelFileError
from servolt.model.families import FAMILIES, NESTED_DEFAULTS, Family, family_of
from servolt.model.fields import Fields, text_fields
from servolt.model.headers import active_params, counted, with_tensors
from servolt.model.layers import ATTENTION_KINDS, LayerKind, Part
from servolt.model.model import Model
from servolt.model.notes import notes_of
from servolt.model.quantization import requantized
from servolt.model.rotary import rotary_elements
from servolt.model.safetensors import tensors_of
from servolt.model.scheme import Scheme, scheme_of
from servolt.model.structure import Layer, is_tied, layers_of, outside_of
from servolt.model.towers import towers_of
from servolt.model.weights import Stored, Weight, matrix, parts_of, vector

__all__ = ["model_from_config"]

# They read text, images or sound, and have another half or none: planned as the decoder that they are not, and said.
_ENCODERS = """
    albert bart bert bigbird_pegasus blenderbot clip convbert deberta deberta-v2 distilbert electra ernie flava
    longformer longt5 m2m_100 marian mbart modernbert mpnet mt5 nomic_bert pegasus roberta siglip speech_to_text t5
    umt5 vit wav2vec2 whisper xlm-roberta"""
ENCODERS = frozenset(_ENCODERS.split())
# Fields of layouts that state widths in their own way.
_WIDTHS = (
    "state_size",
    "mamba_d_state",
    "block_configs",
    "expansion_ratio",
    "ffn_multipliers",
    "moe_intermediate_size",
)


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
    try:
        if headers or (text := _as_text(config)) is None:
            return _model_from(config, name, quantization, dtype, headers)
        return _known(text, name, quantization, dtype)
    except ValidationError as error:
        where = ", ".join(sorted({str(fault["loc"][-1]) for fault in error.errors() if fault["loc"]}))
        raise ModelFileError(
            f"The config of {name} can't be used: its sizes don't go together ({where}).",
            "Correct the config, or give the figures by hand.",
        ) from error


def _as_text(config: Mapping[str, Any]) -> str | None:
    try:
        return json.dumps(config)
    except (TypeError, ValueError, RecursionError):  # no JSON, so from no file: told below what is wrong with it
        return None


@lru_cache(maxsize=128)
def _known(text: str, name: str, quantization: str | None, dtype: str | None) -> Model:
    """Plans of one model in many ways are the rule, and a large config takes longer to read than a plan to make."""
    return _model_from(json.loads(text), name, quantization, dtype, ())


def _model_from(
    config: Mapping[str, Any],
    name: str,
    quantization: str | None,
    dtype: str | None,
    headers: Sequence[Mapping[str, Any]],
) -> Model:
    fields = text_fields(config, name)
    kind, family = family_of(fields)
    if kind in ENCODERS:
        fields.doubted.add("model_type")
    given = {key: value for key, value in fields.values.items() if value is not None}
    nested = NESTED_DEFAULTS.get(kind, {}) if fields.is_nested else {}
    fields.values = {**nested, **family.defaults, **given}
    guessed = _with_usual_widths(fields, kind)
    config = _with_usual_tower(config, fields, family)
    layers = layers_of(fields, family)
    towers = towers_of(config, fields)
    outside = outside_of(fields, family, len(layers)) + towers.weights
    scheme = scheme_of(
        fields,
        quantization=quantization,
        dtype=dtype,
        has_experts=any(layer.kind.experts for layer in layers),
        place=_place(layers, outside),
    )
    kinds, order = counted(zip((layer.kind for layer in layers), _parts_in_layers(layers, scheme), strict=True))
    parts = parts_of(outside, lambda weight: scheme.stored(weight, weight.module))
    parts += _mtp(fields, kinds, scheme)
    model = _model(fields, name, kind, kinds, order, parts, scheme, tied=is_tied(fields, family))
    model = model.model_copy(
        update={
            "metadata": notes_of(config, fields, kinds) | _replaced(scheme),
            "rotary_elements": rotary_elements(fields, kinds) if family.turns else 0,
            "unknown_fields": tuple(sorted({*guessed, *towers.guessed, *fields.left()})),
        }
    )
    if not headers:
        return model
    # What a deployment asks for on top of a checkpoint in 16 bits stands in no header.
    stored = with_tensors(model, tensors_of(headers, name), dtype=scheme.dtype)
    return (
        stored
        if stored.quantization == model.quantization or quantization is None
        else requantized(stored, quantization)
    )


def _replaced(scheme: Scheme) -> dict[str, str]:
    return {} if scheme.replaced is None else {"quantization.replaced": scheme.replaced}


def _with_usual_widths(fields: Fields, kind: str) -> tuple[str, ...]:
    """Heads of 128 and MLPs of four widths where a type that isn't known names neither, as RWKV. Returns what was."""
    if kind in FAMILIES or fields.has(*_WIDTHS):
        return ()
    hidden = fields.least("hidden_size")
    usual = {"num_attention_heads": max(1, hidden // 128), "intermediate_size": 4 * hidden}
    missing = tuple(key for key in usual if not fields.has(key))
    fields.values = {**{key: usual[key] for key in missing}, **fields.values}
    return missing


def _with_usual_tower(config: Mapping[str, Any], fields: Fields, family: Family) -> Mapping[str, Any]:
    """Rebuilt configs, which name no type, hold the text model alone, also of families that always see."""
    least = family.tower_from_hidden_size
    if config.get("model_type") or not least or fields.least("hidden_size") < least:
        return config
    fields.values = {**family.tower, **fields.values}
    return {**family.tower, **config}


def _place(layers: Sequence[Layer], outside: Sequence[Weight]) -> Mapping[str, Any]:
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


def _parts_in_layers(layers: Sequence[Layer], scheme: Scheme) -> Iterator[tuple[Part, ...]]:
    """Equal layers are added up once, unless a list of exclusions or a mix may treat each in its own way."""
    known: dict[tuple[Weight, ...], tuple[Part, ...]] = {}
    for number, layer in enumerate(layers):
        if layer.weights not in known or not scheme.is_uniform:
            known[layer.weights] = _parts_in_layer(layer, number, scheme)
        yield known[layer.weights]


def _parts_in_layer(layer: Layer, number: int, scheme: Scheme) -> tuple[Part, ...]:
    def stored(weight: Weight) -> Stored:
        return scheme.stored(weight, f"model.layers.{number}.{weight.module}", number)

    return parts_of(layer.weights, stored)


def _mtp(fields: Fields, kinds: Sequence[LayerKind], scheme: Scheme) -> tuple[Part, ...]:
    """Heads that guess further tokens: in DeepSeek-V3's form a layer, a projection from two widths to one, norms.

    Where a layer is a mixer or a feed-forward part, as in Nemotron-H, one of each.
    """
    count = fields.size("num_nextn_predict_layers", 0)
    attention = next((kind for kind in reversed(kinds) if kind.mixer in ATTENTION_KINDS), None)
    if not count or attention is None:
        return ()
    hidden = fields.least("hidden_size")
    block = list(attention.parts)
    if not attention.experts and not attention.intermediate_size:
        behind = next((kind for kind in reversed(kinds) if kind.mixer == "none"), None)
        block += behind.parts if behind else ()
    block += parts_of(
        [
            matrix("eh_proj", "mtp", hidden, 2 * hidden)._replace(linear=False),
            vector("norms", 3 * hidden, "mtp", "none"),
        ],
        lambda weight: scheme.stored(weight, f"mtp.{weight.module}"),
    )
    return (
        Part(
            component="mtp",
            parameters=count * sum(part.parameters for part in block),
            bytes=count * sum(part.bytes for part in block),
            dtype=max(block, key=lambda part: part.bytes).dtype,
            sharding="tensor",
        ),
    )


def _model(
    fields: Fields,
    name: str,
    architecture: str,
    kinds: tuple[LayerKind, ...],
    order: tuple[int, ...],
    parts: tuple[Part, ...],
    scheme: Scheme,
    *,
    tied: bool,
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
        tied_embeddings=tied,
    )


def _width(kind: LayerKind) -> int:
    return max(kind.intermediate_size, kind.experts.intermediate_size if kind.experts else 0)
