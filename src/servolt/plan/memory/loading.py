"""What loading takes beyond a model's tensors: tables of positions, weights in another order, the allocator's rounding.

Engines on torch only: vLLM and SGLang log these as weights.
"""

from collections.abc import Sequence

from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.model.layers import LayerKind, Part
from servolt.plan.memory.shape import expert_input
from servolt.plan.memory.sharding import Ranks, StageWeights, share_of
from servolt.plan.memory.terms import rotary_bytes

__all__ = ["loaded_extra", "repacked_extra", "rounding_bytes"]

MIB = 2**20

# torch hands out segments of 2 MiB for tensors of 10 MiB and more, and keeps what is left of one, up to 1 MiB, with the
# tensor (c10/cuda/CUDACachingAllocator.cpp: kRoundLarge, kMinLargeAlloc, kSmallSize).
SEGMENT_BYTES, SMALLEST_BYTES, LEFT_BYTES = 2 * MIB, 10 * MIB, MIB

# MXFP4: blocks of 32 with a scale of one byte.
BLOCK = 32

UNQUANTISED = ("float32", "float16", "bfloat16")


def loaded_extra(
    model: Model,
    ranks: Ranks,
    accelerator: Accelerator,
    weights: StageWeights,
    kinds: Sequence[LayerKind],
    dtype: str | None,
    *,
    absorbs: bool,
) -> float:
    """Bytes on one device of a stage; `kinds` are those of its layers, one for each layer.

    `absorbs`: the engine keeps the up-projection of a latent a second time, even where it isn't quantised.
    """
    extra = rotary_bytes(model, dtype)
    counts: dict[int, tuple[LayerKind, int]] = {}
    for kind in kinds:
        counts[id(kind)] = kind, counts.get(id(kind), (kind, 0))[1] + 1
    for kind, count in counts.values():
        extra += count * (
            rounding_bytes(kind, model, ranks)
            + repacked_extra(kind, model, ranks, accelerator)
            + _absorbed(kind, ranks, absorbs)
        )
    for name in ("embedding", "output"):
        extra += _left(weights.components.get(name, 0.0))
    return extra


def rounding_bytes(kind: LayerKind, model: Model, ranks: Ranks) -> float:
    """What the allocator keeps beside the matrices of one layer: QKV and gate with up are one matrix each.

    Qwen2.5-72B on 2 ranks: the down projection is 231 x 1 MiB, so half a segment is left in each of 80 layers.
    """
    left = 0.0
    for part in kind.parts:
        if part.component in ("mlp", "shared_expert") and part.sharding == "tensor":
            left += sum(_left(size) for size in _mlp_sizes(part, kind, model, ranks))
    attention = [
        part for part in kind.parts if part.component == "attention" and part.sharding in ("tensor", "kv_heads")
    ]
    if attention and kind.mixer in ("full", "sliding", "chunked"):
        width = attention[0].bytes / max(attention[0].parameters, 1)
        out = width * model.hidden_size * kind.num_heads * kind.head_dim_v / ranks.attention_tp
        total = sum(part.bytes * share_of(part, kind, model, ranks) for part in attention)
        left += _left(out) + _left(max(total - out, 0.0))
    return left


def repacked_extra(kind: LayerKind, model: Model, ranks: Ranks, accelerator: Accelerator) -> float:
    """MXFP4 experts are padded and put in another order for each kernel. The scales are kept in both orders.

    Hopper: packed weights to multiples of 64 both ways, scales to 256 rows (triton_kernels hopper_value.py and
    hopper_scale.py, vllm 0.19.0 and sglang 0.5.15 quantization/mxfp4.py). Large Blackwell: both widths to 256. Others:
    Marlin's, to 256 and 128.
    """
    part = next((part for part in kind.parts if part.component == "expert" and part.dtype == "mxfp4"), None)
    if part is None or kind.experts is None:
        return 0.0
    stored = part.bytes * share_of(part, kind, model, ranks)
    here = ranks.tp if ranks.ep <= 1 else 1
    experts = kind.experts.num_experts / max(ranks.ep, 1)
    hidden, width = expert_input(kind, model), -(-kind.experts.intermediate_size // here)
    generation = _generation(accelerator)
    if generation != 9:
        sides = (256, 256) if generation == 10 else (256, 128)
        hidden, width = _up(hidden, sides[0]), _up(width, sides[1])
        return max(0.0, experts * 3 * hidden * width * (0.5 + 1 / BLOCK) - stored)
    width = _up(width, 64)
    packed = _up(hidden // 2, 64) * _up(2 * width, 64) + _up(width // 2, 64) * _up(hidden, 64)
    scales = 3 * hidden * width // BLOCK
    ordered = _up(2 * width, 256) * _up(hidden // BLOCK, 2) + _up(hidden, 256) * _up(width // BLOCK, 2)
    return max(0.0, experts * (packed + scales + ordered) - stored)


def _generation(accelerator: Accelerator) -> int | None:
    """NVIDIA's major compute capability: 9 is Hopper, 10 the large Blackwell chips."""
    if accelerator.compute_capability and accelerator.vendor == "NVIDIA":
        return int(accelerator.compute_capability.split(".")[0])
    return {"hopper": 9, "blackwell": 10}.get((accelerator.architecture or "").lower())


def _absorbed(kind: LayerKind, ranks: Ranks, absorbs: bool) -> float:
    """The latent's up-projection in 16 bits, cut into its two halves. DeepSeek-V3 on 4 ranks: 61 x 8 MiB."""
    narrow = any(part.component == "attention" and part.dtype not in UNQUANTISED for part in kind.parts)
    if not kind.kv_lora_rank or not (absorbs or narrow):
        return 0.0
    widths = kind.head_dim_k - kind.rope_head_dim + kind.head_dim_v
    return 2.0 * kind.num_heads / ranks.attention_tp * widths * kind.kv_lora_rank


def _mlp_sizes(part: Part, kind: LayerKind, model: Model, ranks: Ranks) -> tuple[float, float]:
    """Of the matrices into and out of the MLP, on one rank."""
    size = part.bytes / ranks.tp
    gated = kind.intermediate_size and part.parameters > 2.5 * model.hidden_size * kind.intermediate_size
    share = 2 / 3 if gated or part.component == "shared_expert" else 1 / 2
    return size * share, size * (1 - share)


def _left(size: float) -> float:
    """Of the last segment of a tensor of so many bytes, what goes with it."""
    if size < SMALLEST_BYTES:
        return 0.0
    rest = -round(size) % SEGMENT_BYTES
    return float(rest) if rest <= LEFT_BYTES else 0.0


def _up(number: int, step: int) -> int:
    return -(-number // step) * step
