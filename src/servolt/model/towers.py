"""The weights of what sees and hears: a transformer over patches or over sound, and what leads into the text model.

Layouts by the type of the tower's config: github.com/huggingface/transformers 5.23, modelling files, read 2026-11.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from servolt.model.fields import Fields
from servolt.model.weights import Weight, vector

__all__ = ["Towers", "towers_of"]

# What leads from the tower's width D to the text's h; m x m patches are merged first where it says so.
Bridge = Literal["linear", "two", "merger", "shuffled", "pixtral", "gemma", "glm", "kimi", "llama4", "minimax", "none"]


class Tower(NamedTuple):
    bridge: Bridge
    gated: bool = False
    biased: bool = True
    mlp_biased: bool = True
    qkv_biased: bool = True
    norm_vectors: int = 2
    norms: int = 2
    qk_norm: bool = False
    layer_scale: bool = False
    positions: Literal["grid", "class", "count", "none"] = "none"
    patch_biased: bool = True
    outer_norms: int = 1  # before the first and after the last layer
    pools: bool = False  # SigLIP's head, unless the config leaves it out


_QWEN = Tower("merger", positions="count", outer_norms=0)
_QWEN2 = Tower("merger", patch_biased=False, outer_norms=0)
_QWEN25 = Tower("merger", gated=True, norm_vectors=1, patch_biased=False, outer_norms=0)
_SIGLIP = Tower("two", positions="grid", pools=True)
_CLIP = Tower("two", positions="class", patch_biased=False, outer_norms=2)
_KIMI = Tower("kimi", positions="grid")
_PIXTRAL = Tower(
    "pixtral", gated=True, biased=False, mlp_biased=False, qkv_biased=False, norm_vectors=1, patch_biased=False
)
_GLM = Tower(
    "glm",
    gated=True,
    biased=False,
    mlp_biased=False,
    qkv_biased=False,
    norm_vectors=1,
    positions="grid",
    outer_norms=2,
)
_INTERN = Tower("shuffled", layer_scale=True, positions="class", outer_norms=0)

TOWERS: Mapping[str, Tower] = {
    "qwen3_vl": _QWEN,
    "qwen3_vl_moe": _QWEN,
    "qwen3_omni_moe_vision_encoder": _QWEN,
    "qwen3_5": _QWEN,
    "qwen3_5_moe": _QWEN,
    "qwen3_omni_moe": _QWEN,
    "qwen2_vl": _QWEN2,
    "qwen2_5_vl": _QWEN25,
    "qwen2_5_omni": _QWEN25,
    "exaone4_5": _QWEN25,
    "ernie4_5_vl_moe": Tower("merger", patch_biased=False),
    "siglip_vision_model": _SIGLIP,
    "siglip2_vision_model": _SIGLIP,
    "idefics3": _SIGLIP._replace(bridge="linear", pools=False),
    "smolvlm": _SIGLIP._replace(bridge="linear", pools=False),
    "clip_vision_model": _CLIP,
    "pixtral": _PIXTRAL,
    "glm4v": _GLM,
    "glm4v_moe": _GLM,
    "internvl": _INTERN,
    "intern_vit_6b": _INTERN,
    "kimi_k25": _KIMI,
    "moonvit": _KIMI,
    "gemma4": Tower(
        "linear",
        gated=True,
        biased=False,
        mlp_biased=False,
        qkv_biased=False,
        norm_vectors=1,
        norms=4,
        qk_norm=True,
        patch_biased=False,
        outer_norms=0,
    ),
    "llama4_vision_model": Tower("llama4", positions="class", patch_biased=False, outer_norms=2),
    "mllama_vision_model": Tower("linear", positions="class", patch_biased=False, outer_norms=2),
    "minimax_m3_vl": Tower("minimax", patch_biased=False),
    "step3p7": Tower("linear", layer_scale=True, positions="grid", patch_biased=False),
}
# The bridge belongs to the whole, where several use one tower.
BRIDGES: Mapping[str, Bridge] = {
    "gemma3": "gemma",
    "paligemma": "linear",
    "mistral3": "pixtral",
    "llava": "two",
    "lfm2_vl": "shuffled",
    "internvl": "shuffled",
    "internvl_chat": "shuffled",
    "kimi_vl": "kimi",
}
GEMMA3N_VISION = 300_000_000  # MobileNet-V5-300M, by its name; its layers stand in no config


class Towers(NamedTuple):
    weights: list[Weight]
    guessed: tuple[str, ...] = ()  # configs of a type that isn't known, taken as a usual one


def towers_of(config: Mapping[str, Any], text: Fields) -> Towers:
    outer = next((config[key] for key in ("thinker_config",) if isinstance(config.get(key), Mapping)), config)
    weights: list[Weight] = []
    guessed: list[str] = []
    for key, build in (("vision_config", _vision), ("audio_config", _audio)):
        inner = outer.get(key)
        if isinstance(inner, Mapping) and inner:
            found, known = build(Fields(inner, f"{text.name}: {key}"), Fields(outer, text.name), text)
            weights += found
            guessed += [] if known else [key]
    return Towers(weights, tuple(guessed))


def _vision(fields: Fields, outer: Fields, text: Fields) -> tuple[list[Weight], bool]:
    kind = fields.text("model_type").removesuffix("_vision")
    whole = outer.text("model_type")
    if whole == "gemma3n":
        return [_weights("vision", GEMMA3N_VISION)], False
    tower = TOWERS.get(kind) or TOWERS.get(whole)
    known = tower is not None
    tower = tower or (_KIMI if fields.has("vt_hidden_size") else _SIGLIP._replace(pools=False))
    tower = tower._replace(bridge=BRIDGES.get(whole, tower.bridge))
    width = _width(fields)
    depth = fields.size("vt_num_hidden_layers", fields.size("depth", fields.size("num_hidden_layers", 24)))
    elements = depth * _layer(fields, tower, width) + _ends(fields, tower, width)
    if tower.pools and fields.flag("vision_use_head", otherwise=True):
        elements += _pooling(fields, width)
    if kind == "step3p7":
        elements += 9 * width * 2 * width + 2 * width + 9 * 2 * width * 4 * width + 4 * width
    depth_global = fields.size("num_global_layers", 0)
    elements += depth_global * _layer(fields, tower, width)
    bridge = _bridge(fields, outer, tower, width, text.least("hidden_size"))
    return [_weights("vision", elements), _weights("projector", bridge)], known


def _weights(module: str, elements: int) -> Weight:
    return vector(module, elements, "vision")


def _width(fields: Fields) -> int:
    """Qwen2-VL's `hidden_size` is the text's."""
    for key in ("vt_hidden_size", "embed_dim", "hidden_size"):
        if fields.has(key):
            return fields.least(key)
    raise fields.fault("hidden_size", "a whole number above 0")


def _inner(fields: Fields, width: int) -> int:
    for key in ("vt_intermediate_size", "intermediate_size"):
        if fields.has(key):
            return fields.least(key)
    return int(fields.number("mlp_ratio", 4) * width)


def _layer(fields: Fields, tower: Tower, width: int) -> int:
    inner = fields.size("out_hidden_size") if tower.bridge == "glm" else _inner(fields, width)
    heads = fields.size("num_heads", fields.size("vt_num_attention_heads", 16)) or 16
    keys = fields.size("num_key_value_heads", heads) or heads
    attention = fields.size("qkv_hidden_size", width)
    kv = attention * keys // heads if keys < heads else attention
    matrices = 2 * width * attention + 2 * width * kv + (3 if tower.gated else 2) * width * inner
    biases = (attention + 2 * kv) * tower.qkv_biased + width * tower.biased
    biases += ((2 if tower.gated else 1) * inner + width) * tower.mlp_biased
    vectors = tower.norms * tower.norm_vectors * width + 2 * width * tower.layer_scale
    if tower.qk_norm:
        vectors += 2 * (width // heads)
    return matrices + biases + vectors


def _ends(fields: Fields, tower: Tower, width: int) -> int:
    """Patches become vectors; positions; norms before and after."""
    patch = _first(fields.get("patch_size"), 14)
    frames = fields.size("temporal_patch_size", 1)
    elements = fields.size("in_channels", fields.size("num_channels", 3)) * patch * patch * frames * width
    elements += width if tower.patch_biased else 0
    side = _first(
        fields.get("image_size"), fields.size("init_pos_emb_height", fields.size("pos_emb_height", 64)) * patch
    )
    cells = (side // patch) ** 2
    elements += {
        "grid": fields.size("num_patches", cells) * width,
        "class": (cells + 2) * width,
        "count": fields.size("num_position_embeddings", 0) * width,
        "none": 0,
    }[tower.positions]
    if fields.has("position_embedding_size"):
        elements += 2 * fields.size("position_embedding_size") * width
    return elements + tower.outer_norms * tower.norm_vectors * width


def _first(value: Any, otherwise: int) -> int:
    value = value[0] if isinstance(value, list) and value else value
    return value if type(value) is int and value > 0 else otherwise


def _pooling(fields: Fields, width: int) -> int:
    inner = _inner(fields, width)
    return 4 * width * width + 4 * width + 2 * width * inner + inner + width + 3 * width


def _bridge(fields: Fields, outer: Fields, tower: Tower, width: int, hidden: int) -> int:
    merge = _first(fields.get("spatial_merge_size"), _first(fields.get("merge_kernel_size"), 2))
    wide = merge * merge * width
    # Qwen2-VL's tower names its own width apart, and by `hidden_size` the width that it hands over.
    out = fields.size("out_hidden_size", fields.size("hidden_size") if fields.has("embed_dim") else hidden) or hidden
    if tower.bridge == "merger":
        one = wide * wide + wide + wide * out + out
        deep = fields.sizes("deepstack_visual_indexes") or ()
        return one + tower.norm_vectors * width + len(deep) * (one + tower.norm_vectors * wide)
    if tower.bridge == "glm":
        inner = _inner(fields, width)
        return wide * out + out + out * out + 2 * out + 3 * out * inner
    if tower.bridge == "llama4":
        given, inner = fields.size("projector_input_dim", 4096), fields.size("projector_output_dim", 4096)
        return fields.least("intermediate_size") * given + given * inner + inner * hidden
    if tower.bridge == "pixtral":
        norm = width if outer.has("spatial_merge_size") else 0
        merged = wide * width if norm else 0
        biases = 2 * hidden if outer.flag("multimodal_projector_bias") else 0
        return norm + merged + width * hidden + hidden * hidden + biases
    if tower.bridge == "minimax":
        middle = outer.size("projector_hidden_size", hidden)
        merged = outer.size("merged_hidden_size", merge * merge * hidden)
        return sum(given * middle + middle + middle * hidden + hidden for given in (width, merged))
    if outer.has("alignment_intermediate_size"):  # Cohere's: half of the middle gates the other
        factor, middle = _first(outer.get("downsample_factor"), 2), outer.size("alignment_intermediate_size")
        return factor * factor * width * middle + middle + middle // 2 * hidden + hidden
    factor = _first(outer.get("scale_factor"), _first(outer.get("downsample_factor"), 2))
    shuffled = factor * factor * width
    return {
        "gemma": width * hidden + width,
        "kimi": 2 * width + wide * wide + wide + wide * hidden + hidden,
        "shuffled": 2 * shuffled + shuffled * hidden + hidden + hidden * hidden + hidden,
        "two": width * hidden + hidden + hidden * hidden + hidden,
        "linear": _linear(fields, outer, width, shuffled, hidden),
        "none": 0,
    }[tower.bridge]


def _linear(fields: Fields, outer: Fields, width: int, shuffled: int, hidden: int) -> int:
    whole = outer.text("model_type")
    if whole in ("idefics3", "smolvlm"):
        return shuffled * hidden
    if whole == "step3p7":
        return 4 * width * hidden
    given = fields.size("vision_output_dim", width)
    return given * hidden + (hidden if whole in ("paligemma", "mllama") else 0)


def _audio(fields: Fields, outer: Fields, text: Fields) -> tuple[list[Weight], bool]:
    """Whisper's encoder; others are taken as conformers, which have two MLPs and a convolution in a layer."""
    hidden = text.least("hidden_size")
    width = fields.size("d_model", fields.size("hidden_size", 1024)) or 1024
    if fields.has("encoder_layers"):
        inner, depth = fields.size("encoder_ffn_dim", 4 * width), fields.size("encoder_layers")
        layer = 4 * width * width + 3 * width + 2 * width * inner + inner + width + 4 * width
        ends = 3 * fields.size("num_mel_bins", 128) * width + 3 * width * width + 2 * width
        ends += fields.size("max_source_positions", 1500) * width + 2 * width
        return [_weights("audio", depth * layer + ends), _weights("audio_projector", width * hidden + hidden)], True
    if fields.text("model_type") == "gemma4_audio":  # two MLPs of four widths, attention with positions, a convolution
        outer_width = fields.size("output_proj_dims", 1536)
        size = fields.least("num_hidden_layers", 12) * 24 * width * width + width * width + width * outer_width
        return [_weights("audio", size), _weights("audio_projector", outer_width * hidden)], True
    depth = fields.size("num_blocks", fields.size("conf_num_hidden_layers", fields.size("num_hidden_layers", 24)))
    inner = fields.size("intermediate_size", 4 * width)
    layer = 4 * width * width + 4 * width * inner + 3 * width * width
    return [_weights("audio", depth * layer), _weights("audio_projector", width * hidden + hidden * hidden)], False
