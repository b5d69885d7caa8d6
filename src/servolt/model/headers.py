"""A model whose sizes are those of its files: what the headers say in place of closed forms."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from servolt.model.layers import Component, LayerKind, Part, Sharding
from servolt.model.model import Model, TensorGroup
from servolt.model.naming import Placed, in_checkpoint
from servolt.model.quantization import FORMATS
from servolt.model.safetensors import StoredTensor

__all__ = ["Piece", "counted", "parts_from", "with_tensors"]

# The file's words for types, and ours. Packed integers are told apart by what lies beside them.
_DTYPES = {
    "F64": "float32",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "fp8",
    "F8_E5M2": "fp8",
    "F8_E4M3FNUZ": "fp8",
    "F8_E5M2FNUZ": "fp8",
    "F4": "nvfp4",
    "I8": "int8",
}
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_KEPT_WIDE = re.compile(r"(A_log|dt_bias|e_score_correction_bias|expert_bias|\.D)$")
_PACKED = frozenset({"I32", "U32", "U8", "I64"})


class Piece(NamedTuple):
    """One tensor, or a part of a fused one, in its place."""

    layer: int | None
    component: Component
    dtype: str  # empty for scales
    sharding: Sharding
    parameters: int
    bytes: float


def with_tensors(model: Model, tensors: Sequence[StoredTensor], *, dtype: str | None = None) -> Model:
    """The model with sizes by tensor. Layers keep what the config says of them; floats are as the engine loads them.

    `dtype` is that type; None is the model's own.
    """
    own = dtype or model.dtype or "bfloat16"
    pieces = [piece for tensor in tensors for piece in _pieces(tensor, model, own)]
    if model.tied_embeddings:  # some files hold the embedding again as a head, which engines drop
        pieces = [piece for piece in pieces if piece.component != "output"]
    kinds, order = _with_pieces(model, pieces)
    parts = parts_from(piece for piece in pieces if piece.layer is None)
    inside = sum(part.bytes * kind.count for kind in kinds for part in kind.parts)
    weights = inside + sum(part.bytes for part in parts if part.component != "mtp")
    total = sum(piece.parameters for piece in pieces if piece.component != "mtp")
    return model.model_copy(
        update={
            "basis": "header",
            "format": "safetensors",
            "layers": kinds,
            "layer_order": order,
            "parts": parts,
            "total_params": total,
            "active_params": active_params(kinds, parts),
            "weights_bytes": round(weights),
            "file_bytes": sum(tensor.bytes for tensor in tensors),
            "tensors": _groups(tensors),
            "tied_embeddings": not any(piece.component == "output" for piece in pieces),
            "quantization": _main_dtype(pieces) or model.quantization,
        }
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


def _pieces(tensor: StoredTensor, model: Model, own: str) -> Iterable[Piece]:
    at = in_checkpoint(tensor.name)
    if at is None:
        return
    layer, component = at.layer, at.component
    own_layers = model.num_layers if len(model.layer_order) == model.num_layers else len(model.layer_order)
    if layer is not None and layer >= own_layers:  # DeepSeek's heads stand as layers behind the last
        layer, component = None, "mtp"
    parameters, dtype, size = _stored(tensor, at, model, own)
    share = _share_of_keys(model) if at.is_fused else 0.0
    if not share:
        yield Piece(layer, component, dtype, at.sharding, parameters, size)
        return
    keys = round(parameters * share)
    yield Piece(layer, component, dtype, at.sharding, parameters - keys, size * (1 - share))
    yield Piece(layer, component, dtype, "kv_heads", keys, size * share)


def _share_of_keys(model: Model) -> float:
    keys = model.num_kv_heads * (model.head_dim_k + model.head_dim_v)
    return keys / (model.num_heads * model.head_dim_k + keys) if keys else 0.0


def _stored(tensor: StoredTensor, at: Placed, model: Model, own: str) -> tuple[int, str, float]:
    """How many weights, of which type, in how many bytes."""
    if at.is_scale:
        return 0, "", float(tensor.bytes)
    if tensor.dtype in _FLOATS:
        if _KEPT_WIDE.search(tensor.name):
            return tensor.elements, _DTYPES[tensor.dtype], float(tensor.bytes)
        return tensor.elements, own, tensor.elements * FORMATS[own].bits / 8
    if tensor.dtype in _PACKED:
        return _packed(tensor, model)
    return tensor.elements, _DTYPES.get(tensor.dtype, "int8"), float(tensor.bytes)


def _packed(tensor: StoredTensor, model: Model) -> tuple[int, str, float]:
    """Several weights in one integer: as many as the checkpoint's own format has bits."""
    name = "mxfp4" if tensor.name.endswith("_blocks") else model.quantization
    bits = next((form.bits for form in FORMATS.values() if form.dtype == name), 4)
    found = re.fullmatch(r"int(\d+)", name)
    bits = int(found[1]) if found else bits if bits < 8 else 4
    return round(tensor.bytes * 8 / bits), name if bits < 8 or found else "int4", float(tensor.bytes)


def _with_pieces(model: Model, pieces: Sequence[Piece]) -> tuple[tuple[LayerKind, ...], tuple[int, ...]]:
    """Each of the config's layers with its own tensors. A layer that stands as two has them in the one they are of."""
    by_layer: dict[int, list[Piece]] = {}
    for piece in pieces:
        if piece.layer is not None:
            by_layer.setdefault(piece.layer, []).append(piece)
    numbers = len(by_layer)
    each = len(model.layer_order) // numbers if numbers and len(model.layer_order) % numbers == 0 else 1
    bare = [model.layers[index].model_copy(update={"count": 1, "parts": ()}) for index in model.layer_order]
    own = [parts_from(by_layer.get(number // each, ())) for number in range(len(bare))]
    for number in range(len(bare)):
        if each > 1 and number % each != each - 1:
            own[number] = ()
    return counted(zip(bare, own, strict=True))


def counted(
    layers: Iterable[tuple[LayerKind, tuple[Part, ...]]],
) -> tuple[tuple[LayerKind, ...], tuple[int, ...]]:
    """Equal layers are one kind; how they are stored counts too."""
    found: dict[tuple[LayerKind, tuple[Part, ...]], int] = {}
    order = [found.setdefault(layer, len(found)) for layer in layers]
    kinds = tuple(
        kind.model_copy(update={"count": order.count(index), "parts": parts}) for (kind, parts), index in found.items()
    )
    return kinds, tuple(order)


def parts_from(pieces: Iterable[Piece]) -> tuple[Part, ...]:
    """One for each component, type and sharding. Scales go with the weights of their component and sharding."""
    sums: dict[tuple[Component, str, Sharding], list[float]] = {}
    scales: dict[tuple[Component, Sharding], float] = {}
    for piece in pieces:
        if not piece.dtype:
            key = piece.component, piece.sharding
            scales[key] = scales.get(key, 0.0) + piece.bytes
            continue
        total = sums.setdefault((piece.component, piece.dtype, piece.sharding), [0, 0.0])
        total[0] += piece.parameters
        total[1] += piece.bytes
    for (component, sharding), size in scales.items():
        at = _smallest(sums, component, sharding)
        if at is None:
            sums[component, "float32", sharding] = [0, size]
        else:
            sums[at][1] += size
    return tuple(
        Part(component=component, parameters=int(count), bytes=size, dtype=dtype, sharding=sharding)
        for (component, dtype, sharding), (count, size) in sorted(sums.items())  # files have their tensors in any order
        if count or size
    )


def _smallest(
    sums: Mapping[tuple[Component, str, Sharding], list[float]], component: Component, sharding: Sharding
) -> tuple[Component, str, Sharding] | None:
    """The part of the component with the fewest bits: it is what has scales."""
    fits = [key for key in sums if key[0] == component and key[2] == sharding] or [
        key for key in sums if key[0] == component
    ]
    return min(fits, key=lambda key: sums[key][1] / max(sums[key][0], 1), default=None)


def _main_dtype(pieces: Iterable[Piece]) -> str:
    counts: dict[str, int] = {}
    for piece in pieces:
        if piece.dtype and piece.component not in ("embedding", "output", "vision", "norm", "mtp"):
            counts[piece.dtype] = counts.get(piece.dtype, 0) + piece.parameters
    return max(counts, key=lambda name: counts[name], default="")


_GROUPS: Mapping[Component, str] = {"embedding": "embedding", "attention": "attention", "mlp": "mlp", "norm": "norm"}


def _groups(tensors: Sequence[StoredTensor]) -> tuple[TensorGroup, ...]:
    """By component and type, as the files have them."""
    found: dict[tuple[str, str], list[StoredTensor]] = {}
    for tensor in tensors:
        at = in_checkpoint(tensor.name)
        component = "other" if at is None else _GROUPS.get(at.component, "other")
        component = "mlp" if at is not None and at.component in ("expert", "shared_expert") else component
        component = "output" if at is not None and at.component == "output" else component
        found.setdefault((component, tensor.dtype.lower()), []).append(tensor)
    return tuple(
        TensorGroup.model_validate(
            {
                "component": component,
                "dtype": dtype,
                "tensors": len(group),
                "elements": sum(tensor.elements for tensor in group),
                "bytes": sum(tensor.bytes for tensor in group),
            }
        )
        for (component, dtype), group in found.items()
    )
