"""The layers of a GGUF file: what each tensor's name and shape and the header's settings say of them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from servolt.model.fields import MOST_LAYERS
from servolt.model.headers import Piece, active_params, counted, parts_from
from servolt.model.layers import Experts, LayerKind, Mixer, Part
from servolt.model.naming import in_gguf
from servolt.model.tensors import Tensor

__all__ = ["GgufLayers", "layers_of_gguf"]

# Layers with a window, where the file names none: how many to one that sees all, and whether that comes first.
# github.com/ggml-org/llama.cpp, src/llama-model.cpp, `set_swa_pattern`, 2026-10.
_WINDOWS: Mapping[str, tuple[int, bool]] = {
    "gemma2": (2, False),
    "gemma3": (6, False),
    "gemma3n": (5, False),
    "gemma4": (6, False),
    "gemma-embedding": (6, False),
    "cohere2": (4, False),
    "olmo2": (4, False),
    "exaone4": (4, False),
    "exaone-moe": (4, False),
    "gpt-oss": (2, False),
    "smallthinker": (4, True),
    "llama4": (4, False),
    "afmoe": (4, False),
    "plamo3": (8, False),
}
_CHUNK = 8192  # of Llama 4, whose files don't name it
_DELTA = ("qwen3next", "qwen35", "qwen35moe", "kimi-linear")


class GgufLayers(NamedTuple):
    kinds: tuple[LayerKind, ...]
    order: tuple[int, ...]
    parts: tuple[Part, ...]
    active_params: int | None


class _File(NamedTuple):
    architecture: str
    values: Mapping[str, Any]  # without the architecture's prefix; arrays as tuples

    def size(self, key: str, otherwise: int = 0, layer: int = 0) -> int:
        value = self.values.get(key, otherwise)
        if isinstance(value, tuple):
            value = value[layer] if layer < len(value) else otherwise
        return value if type(value) is int and value >= 0 else otherwise


def layers_of_gguf(architecture: str, values: Mapping[str, Any], tensors: Sequence[Tensor]) -> GgufLayers:
    """Blocks behind the last layer, which guess further tokens, are parts of the model and no layers."""
    prefix = architecture + "."
    own = {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
    file = _File(architecture, own)
    by_layer: dict[int, dict[str, Tensor]] = {}
    pieces: list[Piece] = []
    count = file.size("block_count") - file.size("nextn_predict_layers")
    if not 0 < count <= MOST_LAYERS:
        return GgufLayers((), (), (), None)
    for tensor in tensors:
        at = in_gguf(tensor.name)
        layer, component = at.layer, at.component
        if layer is not None and layer >= count:
            layer, component = None, "mtp"
        if layer is not None and component == "mtp":
            layer = None
        pieces += _split(
            tensor, Piece(layer, component, tensor.dtype, at.sharding, tensor.elements, tensor.bytes), file
        )
        if layer is not None:
            stem = tensor.name.split(".", 2)[2]
            by_layer.setdefault(layer, {})[stem] = tensor
    own_pieces: dict[int, list[Piece]] = {}
    for piece in pieces:
        if piece.layer is not None:
            own_pieces.setdefault(piece.layer, []).append(piece)
    layers: list[tuple[LayerKind, tuple[Part, ...]]] = []
    for number in range(count):
        kinds = _kinds(file, by_layer.get(number, {}), number)
        held = own_pieces.get(number, [])
        if len(kinds) == 2:  # Mamba and attention side by side
            layers.append((kinds[0], ()))
        layers.append((kinds[-1], parts_from(held)))
    kinds_found, order = counted(layers)
    parts = parts_from(piece for piece in pieces if piece.layer is None)
    return GgufLayers(kinds_found, order, parts, active_params(kinds_found, parts))


def _split(tensor: Tensor, piece: Piece, file: _File) -> list[Piece]:
    """Queries, keys and values in one tensor: the keys' and values' share goes with their heads."""
    if piece.layer is None or not in_gguf(tensor.name).is_fused:
        return [piece]
    queries, keys, width_k, width_v = _heads(file, piece.layer)
    share = keys * (width_k + width_v) / max(queries * width_k + keys * (width_k + width_v), 1)
    held = round(piece.parameters * share)
    rest = piece._replace(parameters=piece.parameters - held, bytes=piece.bytes * (1 - share))
    return [rest, piece._replace(parameters=held, bytes=piece.bytes * share, sharding="kv_heads")]


def _heads(file: _File, layer: int) -> tuple[int, int, int, int]:
    queries = file.size("attention.head_count", 0, layer)
    keys = file.size("attention.head_count_kv", queries, layer)
    width = file.size("embedding_length") // queries if queries else 0
    return queries, keys, file.size("attention.key_length", width), file.size("attention.value_length", width)


def _kinds(file: _File, tensors: Mapping[str, Tensor], number: int) -> list[LayerKind]:
    experts = _experts(file, tensors)
    common: dict[str, Any] = {"count": 1, "intermediate_size": _width(tensors), "experts": experts}
    is_recurrent = any(name.startswith(("ssm_", "shortconv")) for name in tensors)
    attends = any(name.startswith(("attn_q", "attn_kv")) for name in tensors) and "attn_gate.weight" not in tensors
    attends = attends and not (is_recurrent and file.architecture in _DELTA)
    if is_recurrent and attends:
        return [_recurrent(file, tensors, {"count": 1}), _attention(file, tensors, number, common)]
    if is_recurrent:
        return [_recurrent(file, tensors, common)]
    return [_attention(file, tensors, number, common) if attends else LayerKind(mixer="none", **common)]


def _width(tensors: Mapping[str, Tensor]) -> int:
    up = tensors.get("ffn_up.weight")
    if up is None:
        return 0
    # Where gate and up are one tensor, as in Phi-3, it is twice as wide as what the last matrix takes.
    down = tensors.get("ffn_down.weight")
    return down.shape[0] if down is not None else up.shape[-1]


def _experts(file: _File, tensors: Mapping[str, Tensor]) -> Experts | None:
    down = tensors.get("ffn_down_exps.weight")
    if down is None or len(down.shape) < 3:
        return None
    shared = file.size("expert_shared_count") or int(any("_shexp" in name for name in tensors))
    return Experts(
        num_experts=down.shape[2],
        experts_per_token=max(1, file.size("expert_used_count", 1)),
        intermediate_size=down.shape[0],
        shared=shared,
    )


def _attention(file: _File, tensors: Mapping[str, Tensor], number: int, common: dict[str, Any]) -> LayerKind:
    queries, keys, width_k, width_v = _heads(file, number)
    if "attn_kv_a_mqa.weight" in tensors:
        topk = file.size("attention.indexer.top_k")
        rank = file.size("attention.kv_lora_rank")
        return LayerKind(
            mixer="dsa" if topk else "mla",
            num_heads=queries,
            num_kv_heads=queries,
            head_dim_k=file.size("attention.key_length_mla", width_k),
            head_dim_v=file.size("attention.value_length_mla", width_v),
            kv_lora_rank=rank,
            rope_head_dim=file.size("rope.dimension_count"),
            index_head_dim=file.size("attention.indexer.key_length") if topk else 0,
            index_topk=topk,
            **common,
        )
    mixer, window = _window(file, number)
    if mixer == "sliding":
        width_k = file.size("attention.key_length_swa", width_k)
        width_v = file.size("attention.value_length_swa", width_v)
    return LayerKind(
        mixer=mixer,
        num_heads=queries,
        num_kv_heads=keys,
        head_dim_k=width_k,
        head_dim_v=width_v,
        window=window,
        shares_kv=_shares(file, number),
        **common,
    )


def _shares(file: _File, number: int) -> bool:
    return number >= file.size("block_count") - file.size("attention.shared_kv_layers")


def _window(file: _File, number: int) -> tuple[Mixer, int | None]:
    if file.architecture == "llama4":
        return ("full", None) if number % 4 == 3 else ("chunked", _CHUNK)
    window = file.size("attention.sliding_window")
    if not window:
        return "full", None
    listed = file.values.get("attention.sliding_window_pattern")
    if isinstance(listed, tuple):
        return ("sliding", window) if number < len(listed) and listed[number] else ("full", None)
    every, full_first = _WINDOWS.get(file.architecture, (0, False))
    every = listed if isinstance(listed, int) and listed > 0 else every
    if not every:  # other architectures name a window that llama.cpp doesn't use
        return "full", None
    sees_all = number % every == 0 if full_first else number % every == every - 1
    return ("full", None) if sees_all else ("sliding", window)


def _recurrent(file: _File, tensors: Mapping[str, Tensor], common: dict[str, Any]) -> LayerKind:
    conv = next((tensor for name, tensor in tensors.items() if "conv1d" in name or "shortconv.conv" in name), None)
    kernel = conv.shape[0] if conv is not None and len(conv.shape) > 1 else file.size("ssm.conv_kernel")
    channels = conv.shape[1] if conv is not None and len(conv.shape) > 1 else 0
    if any(name.startswith("shortconv") for name in tensors):
        kernel = file.size("shortconv.l_cache", kernel)
        return LayerKind(mixer="shortconv", conv_elements=channels, conv_kernel=kernel, **common)
    inner, state = file.size("ssm.inner_size"), file.size("ssm.state_size")
    mixer: Mixer = "mamba1" if "ssm_x.weight" in tensors else "mamba2"
    heads = 0 if mixer == "mamba1" else file.size("ssm.time_step_rank")
    if file.architecture in _DELTA or "ssm_ba.weight" in tensors or "ssm_beta.weight" in tensors:
        mixer = "kda" if file.architecture == "kimi-linear" else "gdn"
    if mixer == "kda":
        heads, state = file.size("attention.head_count"), file.size("kda.head_dim", state)
        inner, channels = heads * state, 3 * heads * state
    return LayerKind(
        mixer=mixer,
        num_heads=heads,
        head_dim_k=state if heads else 0,
        head_dim_v=inner // heads if heads else 0,
        conv_elements=channels,
        conv_kernel=kernel,
        state_elements=inner * state,
        **common,
    )
