"""Layers to plan with, also where a model's file says little: flat sizes, or only a number of parameters."""

from collections.abc import Sequence
from typing import NamedTuple

from servolt.model import Model
from servolt.model.layers import LayerKind

__all__ = ["Shape", "expert_input", "shape_of"]

# A decoder with grouped queries by its parameters: layers and KV heads of the open models of 0.5 to 400 billion grow
# about so. Only where nothing else is known; the interval is as wide.
GUESSED_LAYERS_AT_8B = 32
GUESSED_EXPONENT = 0.42
GUESSED_KV_HEADS, GUESSED_HEAD_DIM = 8, 128
GUESSED_TOLERANCE = 0.6
FLAT_TOLERANCE = 0.1
UNKNOWN_FIELD_TOLERANCE = 0.02
# Of fields that say what a layer is: layers taken for full attention may keep much less than that, and hardly more.
LAYER_FIELDS, LAYER_FIELD_TOLERANCE = frozenset({"layer_types", "model_type"}), 0.3


class Shape(NamedTuple):
    """`tolerance`: how far a token's bytes may be off, as a share, since the layers aren't certain."""

    kinds: Sequence[LayerKind]
    order: Sequence[int]
    tolerance: float = 0.0
    notes: tuple[str, ...] = ()


def shape_of(model: Model) -> Shape:
    if model.layers:
        order = model.layer_order or tuple(index for index, kind in enumerate(model.layers) for _ in range(kind.count))
        if not model.unknown_fields:
            return Shape(model.layers, order)
        why = (
            "Not known, and taken as usual"
            if model.basis in ("card", "stated")
            else "Not understood in the model's config"
        )
        note = f"{why}: {', '.join(model.unknown_fields[:5])}."
        is_layer = not LAYER_FIELDS.isdisjoint(model.unknown_fields)
        return Shape(model.layers, order, LAYER_FIELD_TOLERANCE if is_layer else UNKNOWN_FIELD_TOLERANCE, (note,))
    if model.num_layers and model.num_kv_heads:
        kind = LayerKind(
            count=model.num_layers,
            mixer="sliding" if model.sliding_window and not model.varied else "full",
            num_heads=model.num_heads,
            num_kv_heads=model.num_kv_heads,
            head_dim_k=model.head_dim_k,
            head_dim_v=model.head_dim_v,
            window=model.sliding_window,
            intermediate_size=model.intermediate_size,
        )
        return Shape((kind,), (0,) * model.num_layers, FLAT_TOLERANCE, ("Taken as a model whose layers are alike.",))
    return _guessed(model)


def expert_input(kind: LayerKind, model: Model) -> int:
    """Width of what an expert reads: the model's own, or that of a latent before the experts (Nemotron 3, Kimi K3).

    Told by the experts' weights: three matrices of width x input each, or two without a gate.
    """
    part = next((part for part in kind.parts if part.component == "expert"), None)
    if part is None or kind.experts is None or not kind.experts.intermediate_size:
        return model.hidden_size
    single = part.parameters / (kind.experts.num_experts * kind.experts.intermediate_size)
    if any(abs(single / matrices - model.hidden_size) < 0.02 * model.hidden_size for matrices in (2, 3)):
        return model.hidden_size
    return round(single / 3)


def _guessed(model: Model) -> Shape:
    billions = max(model.total_params or model.weights_bytes / 2, 1e8) / 8e9
    layers = max(4, round(GUESSED_LAYERS_AT_8B * billions**GUESSED_EXPONENT))
    kind = LayerKind(
        count=layers,
        mixer="full",
        num_heads=4 * GUESSED_KV_HEADS,
        num_kv_heads=GUESSED_KV_HEADS,
        head_dim_k=GUESSED_HEAD_DIM,
        head_dim_v=GUESSED_HEAD_DIM,
    )
    note = f"The model's layers are not known: {layers} with grouped queries are assumed from its size."
    return Shape((kind,), (0,) * layers, GUESSED_TOLERANCE, (note,))
