"""The tables of sines and cosines that vLLM builds when it loads: one for each way in which positions are turned.

Lengths: vllm/model_executor/layers/rotary_embedding of github.com/vllm-project/vllm 0.19 (Apache-2.0).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from servolt.model.fields import Fields
from servolt.model.layers import ATTENTION_KINDS, LayerKind

__all__ = ["rotary_elements"]

MOST_STRETCHED = 10_000  # a context that is stretched; published models have up to 64


def rotary_elements(fields: Fields, kinds: Sequence[LayerKind]) -> int:
    """Sines and cosines together, for each position as many as are turned of a head.

    Sliding and full layers share a table where they turn alike.
    """
    attention = [kind for kind in kinds if kind.mixer in ATTENTION_KINDS and kind.head_dim_k]
    if fields.flag("alibi") or not attention:
        return 0
    given = fields.get("rope_parameters", "rope_scaling")
    given = given if isinstance(given, Mapping) else {}
    by_kind = {key: value for key, value in given.items() if isinstance(value, Mapping)}
    local_base = fields.get("rope_local_base_freq", "swa_rope_theta")
    tables: set[tuple[int, str, int]] = set()
    for kind in attention:
        is_sliding = kind.mixer == "sliding"
        own = by_kind.get("sliding_attention" if is_sliding else "full_attention", {} if by_kind else given)
        own = {} if is_sliding and local_base is not None and not by_kind else own
        base = str(local_base if is_sliding and local_base is not None else own.get("rope_theta"))
        tables.add((_turned(fields, kind, own), base, _positions(fields, own)))
    return sum(width * positions for width, _, positions in tables)


def _turned(fields: Fields, kind: LayerKind, own: Mapping[str, Any]) -> int:
    if kind.rope_head_dim:
        return kind.rope_head_dim
    for key in ("rotary_dim", "rotary_ndims"):
        if fields.has(key):
            return fields.size(key)
    share = own.get("partial_rotary_factor")
    if not isinstance(share, int | float):
        share = fields.number("partial_rotary_factor", fields.number("rotary_pct", 1))
    return round(kind.head_dim_k * share) if 0 <= share <= 1 else kind.head_dim_k


def _positions(fields: Fields, own: Mapping[str, Any]) -> int:
    """Linear and dynamic scaling lengthen the table, and YaRN stretches the context that came before it."""
    trained = fields.size("max_position_embeddings", 0)
    kind = own.get("rope_type") or own.get("type") or "default"
    factor = own.get("factor")
    factor = factor if isinstance(factor, int | float) and 0 < factor <= MOST_STRETCHED else 1
    before = own.get("original_max_position_embeddings")
    if kind in ("linear", "dynamic"):
        return round(trained * factor)
    if kind == "yarn" and type(before) is int and 0 < before < 2**31:
        return round(before * factor)
    if kind in ("longrope", "su") or fields.has("original_max_position_embeddings"):
        return trained + fields.size("original_max_position_embeddings", 0)
    return 4 * trained if own.get("mrope_section") else trained
