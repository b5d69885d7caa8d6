"""What plans of memory use of a config beside sizes, as a Model's metadata: positions, images, types of states."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from servolt.model.fields import Fields
from servolt.model.layers import LayerKind

__all__ = ["notes_of"]

Note = str | int | float | bool


def notes_of(config: Mapping[str, Any], fields: Fields, kinds: Sequence[LayerKind]) -> dict[str, Note]:
    """Absent where the config doesn't say it."""
    found = _positions(fields, kinds) | _images(config, fields) | _types(fields)
    return {key: value for key, value in found.items() if value is not None}


def _positions(fields: Fields, kinds: Sequence[LayerKind]) -> dict[str, Note | None]:
    given = fields.get("rope_parameters", "rope_scaling")
    given = given if isinstance(given, Mapping) else {}
    nested = [value for value in given.values() if isinstance(value, Mapping)]
    bases = {str(part.get("rope_theta")) for part in nested}
    is_mixed = {kind.mixer for kind in kinds} >= {"sliding", "full"}
    caches = len(bases) if nested else 2 if is_mixed and fields.has("rope_local_base_freq", "swa_rope_theta") else 1
    own = next((value for key, value in given.items() if key == "full_attention" and isinstance(value, Mapping)), given)
    share = own.get("partial_rotary_factor", fields.get("partial_rotary_factor", "rotary_pct"))
    return {
        "rope.type": _text(own.get("rope_type", own.get("type"))),
        "rope.factor": _number(own.get("factor")),
        "rope.original_max_position_embeddings": _number(
            own.get("original_max_position_embeddings", fields.get("original_max_position_embeddings"))
        ),
        "rope.partial_rotary_factor": _number(share),
        "rope.caches": caches,
    }


def _images(config: Mapping[str, Any], fields: Fields) -> dict[str, Note | None]:
    whole = config.get("thinker_config") if isinstance(config.get("thinker_config"), Mapping) else config
    given = whole.get("vision_config") if isinstance(whole, Mapping) else None
    if not isinstance(given, Mapping):
        return {}
    tower = Fields(given, fields.name)
    merge = tower.get("spatial_merge_size", "merge_kernel_size") or fields.get("spatial_merge_size")
    stacked = tower.get("deepstack_visual_indexes")  # layers of the tower that go to layers of the model
    tokens = fields.get("mm_tokens_per_image", "vision_soft_tokens_per_image", "image_seq_length")
    return {
        "vision.image_size": _number(tower.get("image_size")),
        "vision.patch_size": _number(tower.get("patch_size")),
        "vision.merge_size": _number(merge),
        "vision.temporal_patch_size": _number(tower.get("temporal_patch_size")),
        "vision.tokens_per_image": _number(tokens),
        "vision.deepstack": len(stacked) if isinstance(stacked, Sequence) else None,
        "vision.num_hidden_layers": _number(tower.get("vt_num_hidden_layers", "depth", "num_hidden_layers")),
        "vision.hidden_size": _number(tower.get("vt_hidden_size", "embed_dim", "hidden_size")),
        "vision.intermediate_size": _number(tower.get("vt_intermediate_size", "intermediate_size")),
        "max_image_tokens": _number(fields.get("max_image_tokens", "max_num_image_tokens")),
    }


def _types(fields: Fields) -> dict[str, Note | None]:
    return {
        "kv_cache_dtype": _kv_cache_dtype(fields.get("quantization_config", "compression_config")),
        "ssm.dtype": _text(fields.get("mamba_ssm_dtype", "mamba_ssm_cache_dtype")),
    }


def _kv_cache_dtype(stated: Any) -> str | None:
    """Checkpoints with scales for keys and values ask for a cache in 8 bits."""
    if not isinstance(stated, Mapping):
        return None
    scheme, word = stated.get("kv_cache_scheme"), stated.get("kv_cache_quant_algo")
    if isinstance(scheme, Mapping):
        bits, kind = scheme.get("num_bits"), scheme.get("type")
        return {8: "fp8" if kind == "float" else "int8", 4: "nvfp4"}.get(bits) if isinstance(bits, int) else None
    for text in (word, scheme):
        if isinstance(text, str) and text.lower() in ("fp8", "nvfp4", "int8"):
            return text.lower()
    return None


def _number(value: Any) -> int | float | None:
    value = value[0] if isinstance(value, list) and value else value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and math.isfinite(value) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
