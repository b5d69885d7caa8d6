"""The most that vLLM's profile run takes beside the weights, and its CUDA graphs.

The run passes max_num_batched_tokens tokens through the layers and then samples for max_num_seqs requests. The peak is
whichever of the two takes more, on top of what stays: buffers of the experts, outputs of the vision encoder.
Source: vllm 0.19.0 vllm/v1/worker/gpu_model_runner.py profile_run and _dummy_sampler_run.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from servolt.model import Model
from servolt.model.layers import LayerKind
from servolt.plan.memory.profiles import Profile
from servolt.plan.memory.shape import expert_input
from servolt.plan.memory.sharding import Ranks

__all__ = ["Peak", "Run", "peak_of"]

# Of towers that say nothing else: 4 patches of 14 x 14 pixels make a token. Those that see films take an image as 2
# frames, of up to 16,384 tokens (Qwen2.5-VL and Qwen3-VL). In a layer of a tower live the MLP twice and two rows more.
MERGED_PATCHES, PATCH_PIXELS = 4.0, 14 * 14
LARGE_IMAGE_TOKENS = 16_384
TOWER_LAYERS, TOWER_RATIO = 27, 3.74

# A layer with a latent is tried with as many cached tokens as its workspace for prefill holds: eight requests of full
# length, or four blocks for each, up to so many (vllm 0.19.0 vllm/model_executor/layers/attention/mla_attention.py
# determine_chunked_prefill_workspace_size).
LATENT_TOKENS, LATENT_LENGTHS, LATENT_BLOCKS = 65_536, 8, 4

# With an indexer nothing is projected up: the chosen entries are gathered in 16 bits, room for five requests of full
# length (flashmla_sparse; DeepSeek-V3.2 at 163,840 tokens: 5 x 163,840 x 576 x 2 B = 900 MiB).
GATHERED_LENGTHS = 5


class Run(NamedTuple):
    """One profile run on one device."""

    tokens: int
    requests: int
    dtype_bytes: int
    has_images: bool
    context: int
    block_size: int


class Peak(NamedTuple):
    """`bytes` is the most at one time, `kept` of it stays; `formula` tells which step rules."""

    bytes: float
    kept: float
    formula: str


def peak_of(
    model: Model,
    kinds: Sequence[LayerKind],
    ranks: Ranks,
    run: Run,
    profile: Profile,
    *,
    first: bool = True,
    last: bool = True,
) -> Peak:
    """Of a stage that holds layers of these kinds."""
    kept = _expert_buffers(kinds, model, ranks, run, profile)
    kept += max((_gathered(kind, run) for kind in kinds), default=0.0)
    encoder = _encoder(model, run) if run.has_images and first else _Encoder(0.0, 0.0)
    kept += encoder.kept
    if last:
        kept += profile.number("penalty_bytes") * run.requests * model.vocab_size
    width = model.hidden_size * run.tokens * run.dtype_bytes
    between = 2 * width * ((not first) + (not last))  # hidden states and residuals that come in or go out
    layer = max((_layer(kind, model, ranks, run) for kind in kinds), default=0.0)
    sampler = _sampler(model, run, profile) + (0 if first else 2 * width) if last else 0.0
    fixed = profile.number("activation_fixed_bytes")
    peak = fixed + max(kept + layer + between, kept + sampler, encoder.peak)
    rules = "sampling" if sampler >= layer + between else "a layer"
    formula = (
        f"{rules} of {run.requests if rules == 'sampling' else run.tokens:,} "
        f"{'requests' if rules == 'sampling' else 'tokens'} rules"
        f"{f', and {kept / 2**30:.2f} GiB of buffers stay' if kept else ''}"
    )
    return Peak(peak, kept, formula)


def _sampler(model: Model, run: Run, profile: Profile) -> float:
    """Logits, their copy in float32 and what sampling adds, while the hidden states are still there."""
    width = run.dtype_bytes
    copy = 4 if width < 4 else 0
    logits = (width + copy + profile.number("sampler_bytes")) * run.requests * model.vocab_size
    rows = 4.0 * min(profile.number("sampler_rows"), run.requests) * model.vocab_size
    hidden = width * model.hidden_size * (run.tokens + run.requests)
    return logits + rows + hidden


def _layer(kind: LayerKind, model: Model, ranks: Ranks, run: Run) -> float:
    """What lives at the widest point of a layer: its input, the residual and the attention's output beside it."""
    hidden = model.hidden_size
    inputs = 2 * hidden + _attention_width(kind, ranks)
    # The gate, the other half, and their product; in float32 the gate's activation is a tensor of its own.
    mlp = (3 if run.dtype_bytes < 4 else 4) * kind.intermediate_size / ranks.tp
    if kind.experts is not None:
        shared = kind.experts.shared * kind.experts.intermediate_size / ranks.tp
        router = 2 * kind.experts.num_experts
        mlp = max(mlp, 3 * shared + hidden + router)
    attention = 2 * _projected_width(kind, ranks)
    heads, latent = kind.num_heads / ranks.attention_tp, 0.0
    if kind.mixer == "mla":
        latent = _latent_tokens(run) * heads * (kind.head_dim_k - kind.rope_head_dim + kind.head_dim_v)
    if kind.mixer == "dsa":  # queries and outputs of all heads in the latent
        latent = run.tokens * heads * (2 * kind.kv_lora_rank + kind.rope_head_dim)
    return float(run.dtype_bytes * (run.tokens * (inputs + max(mlp, attention)) + latent))


def _latent_tokens(run: Run) -> int:
    """
    >>> _latent_tokens(Run(8192, 1024, 2, False, context=8192, block_size=16))
    65536
    >>> _latent_tokens(Run(2048, 64, 2, False, context=4096, block_size=16))
    32768
    """
    wanted = max(LATENT_LENGTHS * run.context, LATENT_BLOCKS * run.requests * run.block_size)
    return max(min(wanted, LATENT_TOKENS), run.requests * run.block_size)


def _gathered(kind: LayerKind, run: Run) -> float:
    if kind.mixer != "dsa":
        return 0.0
    entries = GATHERED_LENGTHS * run.context / max(kind.kv_compression, 1)
    return entries * (kind.kv_lora_rank + kind.rope_head_dim) * 2.0


def _attention_width(kind: LayerKind, ranks: Ranks) -> float:
    return max(kind.num_heads * kind.head_dim_v, kind.conv_elements) / ranks.attention_tp


def _projected_width(kind: LayerKind, ranks: Ranks) -> float:
    heads = kind.num_heads * kind.head_dim_k / ranks.attention_tp
    if kind.mixer in ("mla", "dsa"):
        return heads + kind.num_heads * (kind.head_dim_k + kind.head_dim_v) / ranks.attention_tp
    keys = -(-kind.num_kv_heads // ranks.attention_tp) * (kind.head_dim_k + kind.head_dim_v)
    return heads + keys + kind.conv_elements / ranks.attention_tp


def _expert_buffers(kinds: Sequence[LayerKind], model: Model, ranks: Ranks, run: Run, profile: Profile) -> float:
    """Two buffers for every token and chosen expert, as wide as the widest of what they hold one after another.

    Kernels for 4-bit floats bring their own and free them.
    """
    if not profile.flag("moe_workspace"):
        return 0.0
    largest = 0.0
    for kind in kinds:
        if kind.experts is None or any("fp4" in part.dtype for part in kind.parts if part.component == "expert"):
            continue
        among = 1 if ranks.ep > 1 else ranks.tp * (1 if ranks.dp_attention else ranks.dp)
        width = kind.experts.intermediate_size / among
        tokens = run.tokens * (ranks.dp if ranks.ep > 1 else 1)
        inside = expert_input(kind, model)
        buffers = max(width, inside) + max(2 * width, inside)
        largest = max(largest, tokens * kind.experts.experts_per_token * buffers * run.dtype_bytes)
    return largest


class _Encoder(NamedTuple):
    """A step's budget full of images: what waits for the language model's run, and the most while they are encoded."""

    kept: float
    peak: float


def _encoder(model: Model, run: Run) -> _Encoder:
    """Outputs and pixels of as many images as fit one step, at least one large one where the tower takes any size.

    Gemma 3 at 8,192 tokens: 32 images of 896 x 896 pixels, which is 147 MiB, and their outputs. Towers that feed
    several layers of the model (Qwen3-VL) hand out as many rows more, and as many inputs of a step stay (vllm 0.19.0
    vllm/model_executor/models/qwen3_vl.py deepstack_input_embeds).
    """
    said = model.metadata
    size, patch, each = (
        _number(said.get(f"vision.{name}")) for name in ("image_size", "patch_size", "tokens_per_image")
    )
    merged = _number(said.get("vision.merge_size")) ** 2 or MERGED_PATCHES
    frames = _number(said.get("vision.temporal_patch_size"))
    tokens = max(run.tokens, LARGE_IMAGE_TOKENS if frames > 1 else 0)
    patches = (size / patch) ** 2 / each if size and patch and each else merged
    pixels = 3 * (frames or 1) * (patch**2 or PATCH_PIXELS) * patches
    stacked = _number(said.get("vision.deepstack"))
    kept = tokens * run.dtype_bytes * (model.hidden_size * (1 + stacked) + pixels)
    kept += stacked * run.tokens * run.dtype_bytes * model.hidden_size
    parameters = sum(part.parameters for part in model.parts if part.component == "vision")
    width = _number(said.get("vision.hidden_size")) or math.sqrt(parameters / (12 * TOWER_LAYERS))
    inner = _number(said.get("vision.intermediate_size")) or TOWER_RATIO * width
    return _Encoder(kept, kept + tokens * patches * run.dtype_bytes * 2 * (width + inner))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
