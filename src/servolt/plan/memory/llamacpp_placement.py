"""Where llama.cpp puts weights: on which device each layer, and on the host what doesn't go to one."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

from servolt.model import LayerKind, Model, Part, TensorGroup
from servolt.plan.memory.llamacpp_builds import Build
from servolt.plan.memory.llamacpp_options import Options, Override

__all__ = ["HOST", "Device", "Layers", "Placement", "Weights", "layers_of", "placement_of", "weights_by_device"]

# The number of a device, or the host.
Device = int | None
HOST: Device = None

# Of a header's groups, those that are in no layer.
OUTSIDE = ("embedding", "output")


class Layers(NamedTuple):
    """Kinds of layers, and for each layer, in order, which kind it is."""

    kinds: tuple[LayerKind, ...]
    order: tuple[int, ...]


class Placement(NamedTuple):
    layers: tuple[Device, ...]
    output: Device

    def counted(self, layers: Layers) -> Counter[tuple[int, Device]]:
        """How many layers of a kind each device has."""
        return Counter(zip(layers.order, self.layers, strict=True))


class Weights(NamedTuple):
    by_device: dict[Device, float]
    largest_on_host: float  # of one matrix that a device would multiply long batches with


def layers_of(model: Model) -> Layers:
    """Where only sizes are known, all layers are alike."""
    if not model.layers:
        return Layers((_plain_layer(model),), (0,) * model.num_layers)
    if model.layer_order:
        return Layers(model.layers, model.layer_order)
    return Layers(model.layers, tuple(index for index, kind in enumerate(model.layers) for _ in range(kind.count)))


def placement_of(options: Options, layers: int, build: Build) -> Placement:
    """Layers in a row are given out by the devices' shares; the output layer comes last."""
    asked = layers + 1 if options.gpu_layers is None else min(options.gpu_layers, layers + 1)
    if not options.devices or not asked:
        return Placement((HOST,) * layers, HOST)
    first = max(0, layers + 1 - asked) if build.counts_output else max(0, layers - asked)
    places = [_device(options, layer - first, asked) if layer >= first else HOST for layer in range(layers)]
    if build.counts_output:
        return Placement(tuple(places), _device(options, layers - first, asked))
    return Placement(tuple(places), _device(options, asked - 1, asked) if asked > layers else HOST)


def weights_by_device(options: Options, model: Model, layers: Layers, placement: Placement) -> Weights:
    found: dict[Device, float] = dict.fromkeys((HOST, *range(options.devices)), 0.0)
    largest = 0.0
    for tensor in _tensors(options, model, layers, placement):
        rule = _rule_for(options.overrides, tensor.name) if options.overrides else None
        target = tensor.place if rule is None else rule.device
        if target is HOST and tensor.is_matrix:
            largest = max(largest, tensor.bytes)
        if target is not HOST and tensor.is_matrix and options.split_mode in ("row", "tensor"):
            for device, share in enumerate(options.shares):
                found[device] += tensor.bytes * tensor.copies * share / sum(options.shares)
        else:
            found[target] += tensor.bytes * tensor.copies
    return Weights(found, largest)


@lru_cache(maxsize=2**14)  # fixes are computed again for the same tensors
def _rule_for(rules: tuple[Override, ...], name: str) -> Override | None:
    return next((rule for rule in rules if rule.pattern.search(name)), None)


def _device(options: Options, position: int, asked: int) -> int:
    """The device on whose share of the layers this position falls."""
    if options.split_mode in ("none", "row"):
        return options.main_gpu
    ends = _ends(options.shares)
    return min(bisect_right(ends, position / asked * ends[-1]), options.devices - 1)


@lru_cache(maxsize=64)
def _ends(shares: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(accumulate(shares))


class _Tensor(NamedTuple):
    name: str
    bytes: float
    is_matrix: bool
    place: Device
    copies: int = 1


def _tensors(options: Options, model: Model, layers: Layers, placement: Placement) -> Iterator[_Tensor]:
    """Layers that are alike are counted, unless a pattern may tell them apart."""
    named = [_tensors_of(kind) for kind in layers.kinds]
    if options.overrides:
        for layer, (index, place) in enumerate(zip(layers.order, placement.layers, strict=True)):
            for name, size, is_matrix in named[index]:
                at = _home(name, place, layer < options.host_experts)
                yield _Tensor(f"blk.{layer}.{name}", size, is_matrix, at)
    else:
        keeps = [layer < options.host_experts for layer in range(len(layers.order))]
        alike = Counter(zip(layers.order, placement.layers, keeps, strict=True))
        for (index, place, keeps_experts), copies in alike.items():
            for name, size, is_matrix in named[index]:
                yield _Tensor(name, size, is_matrix, _home(name, place, keeps_experts), copies)
    yield from _outer_tensors(options, model, placement)


def _home(name: str, place: Device, keeps_experts: bool) -> Device:
    """-cmoe and -ncmoe are the pattern ffn_(up|down|gate|gate_up)_(ch|)exps (llama.cpp, common/arg.cpp)."""
    return HOST if keeps_experts and "exps" in name else place


def _outer_tensors(options: Options, model: Model, placement: Placement) -> Iterator[_Tensor]:
    main = options.main_gpu if options.devices else HOST
    parts = _outer_parts(model)
    for part in parts:
        match part.component:
            case "embedding":
                # Read once for each token of the input, so it stays on the host (llama_model::load_tensors).
                yield _Tensor("token_embd.weight", part.bytes, False, HOST)
            case "output":
                yield _Tensor("output.weight", part.bytes, True, placement.output)
            case "vision" if options.projector:
                yield _Tensor("mmproj", part.bytes, False, main)
            case "mtp" if options.drafts_itself:
                yield _Tensor("nextn", part.bytes, True, placement.output)
            case "vision" | "mtp":
                pass
            case _:
                yield _Tensor("output_norm.weight", part.bytes, False, placement.output)
    if placement.output is not HOST and not any(part.component == "output" for part in parts):
        # A tied head is the embedding, once more, on the device that multiplies with it.
        embedding = max((part.bytes for part in parts if part.component == "embedding"), default=0.0)
        yield _Tensor("output.weight", embedding, True, placement.output)


def _outer_parts(model: Model) -> tuple[Part, ...]:
    if model.layers:
        return model.parts
    return tuple(_part(group, 1) for group in model.tensors if group.component in OUTSIDE)


def _plain_layer(model: Model) -> LayerKind:
    """From a header's sizes: weights that aren't the embedding's or the head's are spread over the layers."""
    count = max(1, model.num_layers)
    return LayerKind(
        count=count,
        mixer="full",
        num_heads=model.num_heads,
        num_kv_heads=model.num_kv_heads,
        head_dim_k=model.head_dim_k,
        head_dim_v=model.head_dim_v,
        intermediate_size=model.intermediate_size,
        parts=tuple(_part(group, count) for group in model.tensors if group.component not in OUTSIDE),
    )


def _part(group: TensorGroup, shares: int) -> Part:
    size = group.bytes / shares
    return Part(component=group.component, parameters=group.elements // shares, bytes=size, dtype=group.dtype)


def _tensors_of(kind: LayerKind) -> list[tuple[str, float, bool]]:
    """The names of a GGUF file, each with its share of the part, and whether it is a matrix."""
    found = []
    for part in kind.parts:
        names = _names(kind, part)
        whole = sum(weight for _, weight in names)
        is_matrix = part.component not in ("norm", "router", "other")
        found += [(f"{name}.weight", part.bytes * weight / whole, is_matrix) for name, weight in names]
    return found


def _names(kind: LayerKind, part: Part) -> list[tuple[str, int]]:
    match part.component:
        case "attention" if kind.kv_lora_rank:
            return [(f"attn_{name}", 1) for name in ("q_a", "q_b", "kv_a_mqa", "k_b", "v_b", "output")]
        case "attention" if kind.num_kv_heads and not kind.state_elements:
            queries, keys = kind.num_heads * kind.head_dim_k, kind.num_kv_heads * kind.head_dim_k
            values, out = kind.num_kv_heads * kind.head_dim_v, kind.num_heads * kind.head_dim_v
            return [("attn_q", queries), ("attn_k", keys), ("attn_v", values), ("attn_output", out)]
        case "attention":
            return [("ssm_in", 3), ("ssm_out", 1)]
        case "mlp":
            return [("ffn_gate", 1), ("ffn_up", 1), ("ffn_down", 1)]
        case "expert":
            return [("ffn_gate_exps", 1), ("ffn_up_exps", 1), ("ffn_down_exps", 1)]
        case "shared_expert":
            return [("ffn_gate_shexp", 1), ("ffn_up_shexp", 1), ("ffn_down_shexp", 1)]
        case "router":
            return [("ffn_gate_inp", 1)]
        case "norm":
            return [("attn_norm", 1), ("ffn_norm", 1)]
        case _:
            return [("other", 1)]
