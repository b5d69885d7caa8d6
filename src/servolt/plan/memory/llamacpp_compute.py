"""llama.cpp's compute buffers: what one pass of tokens needs at its fullest moment, device by device.

The graph's allocator gives memory back as soon as nothing needs it, so a buffer is as large as its largest moment. The
moments that count: attention of one layer, its feed-forward network, and the head. Rows are of f32, one for each token.
"""

from typing import NamedTuple

from servolt.model import RECURRENT_KINDS, LayerKind, Model
from servolt.plan.memory.llamacpp_builds import Build
from servolt.plan.memory.llamacpp_cells import window_cells
from servolt.plan.memory.llamacpp_options import Options
from servolt.plan.memory.llamacpp_placement import HOST, Device, Layers, Placement, Weights

__all__ = ["KNOWN_TOLERANCE", "Moment", "compute_by_device"]

MIB = 2**20

# Inputs of the graph for each token of a pass: token, position, KV indices. Read from the engine's log: 0.0176 MiB at
# 512 tokens, for every shape.
INPUT_BYTES_PER_TOKEN = 36

# Rows of the model's width that live beside the largest ones: what a layer adds to, its norm, and inputs. On a host all
# inputs lie in the same buffer. From logs of b11549 for made-up models of several shapes (host), of b2833 and of builds
# of 2025 and 2026 (devices).
DEVICE_ROWS, HOST_ROWS = 3, 5

# Without flash attention, beside the scores: 560.00 MiB for Llama 3 8B at 8,192 cells (b2824) are 512 of scores, 16 of
# mask and 32 of these.
SCORE_ROWS = 2

# Several devices that work one after the other on different batches keep this many copies of their inputs
# (GGML_SCHED_MAX_COPIES).
PIPELINE_COPIES = 4

# From this many tokens on a device multiplies with weights that lie on the host (ggml_backend_cuda offload_op).
LEAST_LARGE_BATCH = 32

# How far it was seen off: where logits or scores rule, and elsewhere. The fork has its own kernels.
KNOWN_TOLERANCE, OTHER_TOLERANCE, FORK_TOLERANCE, UNKNOWN_BUILD_TOLERANCE = 0.02, 0.25, 1.2, 0.5


class Moment(NamedTuple):
    """The fullest one."""

    bytes: float
    tolerance: float
    formula: str


class _Masks(NamedTuple):
    """Bytes for one token of a pass."""

    given: float  # as the host hands it over
    used: float  # as attention reads it


def compute_by_device(
    options: Options, model: Model, layers: Layers, placement: Placement, weights: Weights, build: Build
) -> dict[Device, Moment]:
    masks = _masks(options, layers, build)
    copies = PIPELINE_COPIES if _is_pipeline(options, placement) else 1
    kinds: dict[Device, list[LayerKind]] = {device: [] for device in (HOST, *range(options.devices))}
    for index, device in sorted(set(zip(layers.order, placement.layers, strict=True)), key=str):
        kinds[device].append(layers.kinds[index])
    found: dict[Device, Moment] = {}
    for device in range(options.devices):
        has_head = placement.output == device
        found[device] = _on_device(options, model, kinds[device], has_head, device, masks, copies, build)
    main = options.main_gpu
    if options.devices and weights.largest_on_host and options.ubatch >= LEAST_LARGE_BATCH:
        found[main] = _with_moved(found[main], weights.largest_on_host, build)
    found[HOST] = _on_host(options, model, kinds[HOST], placement, masks, copies, build)
    return found


def _is_pipeline(options: Options, placement: Placement) -> bool:
    return (
        options.devices > 1
        and options.split_mode == "layer"
        and HOST not in (*placement.layers, placement.output)
        and not options.overrides
        and not options.host_experts
        and not options.keeps_kv_on_host
    )


def _masks(options: Options, layers: Layers, build: Build) -> _Masks:
    """One for all layers, and one for those with a window."""
    windows = {window_cells(kind, options) for kind in layers.kinds if kind.mixer in ("sliding", "chunked")}
    attend = any(kind.num_heads and kind.mixer not in RECURRENT_KINDS for kind in layers.kinds)
    cells = options.cells * attend + sum(windows)
    if not options.flash:
        return _Masks(4.0 * cells, 4.0 * cells)
    return _Masks((2.0 if build.half_mask else 4.0) * cells, 2.0 * cells)


def _on_device(
    options: Options,
    model: Model,
    kinds: list[LayerKind],
    has_head: bool,
    device: int,
    masks: _Masks,
    copies: int,
    build: Build,
) -> Moment:
    if not kinds and not has_head:
        return Moment(0.0, 0.0, "no layer is here")
    tokens, hidden = options.ubatch, 4.0 * model.hidden_size
    # The first device turns the mask into what attention reads; the others get it like that.
    mask = masks.given if device == 0 else masks.used
    casts = masks.used if device == 0 and masks.given != masks.used else 0.0
    moments = [_layer_moment(kind, options, model, DEVICE_ROWS, build) for kind in kinds]
    if copies > 1:
        kept = tokens * (copies * (mask + hidden) + casts)
        inside = 0.0
    else:
        kept, inside = 0.0, tokens * (casts or mask)
        moments.append(Moment(tokens * (mask + DEVICE_ROWS * hidden), OTHER_TOLERANCE, "masks") if casts else _NOTHING)
    moments = [moment._replace(bytes=moment.bytes + inside) for moment in moments]
    if has_head:
        moments.append(_head(options, model, build))
    fullest = max(moments)
    beside = f" beside {copies} copies of the inputs" if copies > 1 else ""
    return Moment(
        kept + fullest.bytes, _tolerance(fullest.tolerance, build), f"{fullest.formula}, {tokens} tokens{beside}"
    )


def _on_host(
    options: Options,
    model: Model,
    kinds: list[LayerKind],
    placement: Placement,
    masks: _Masks,
    copies: int,
    build: Build,
) -> Moment:
    """Without devices everything; with them the inputs, and what layers are left here."""
    tokens, hidden = options.ubatch, 4.0 * model.hidden_size
    handed_out = 4.0 * options.slots * model.vocab_size
    moments = [_layer_moment(kind, options, model, HOST_ROWS, build) for kind in kinds]
    if placement.output is HOST:
        moments.append(_head(options, model, build))
    mask = masks.given if masks.given == masks.used else masks.given + masks.used
    if not options.devices:
        inside = tokens * (mask + INPUT_BYTES_PER_TOKEN)
        fullest = max(
            [moment._replace(bytes=moment.bytes + inside * (moment.formula != LOGITS)) for moment in moments],
            default=_NOTHING,
        )
        size = fullest.bytes + handed_out
        return Moment(
            size, _tolerance(fullest.tolerance, build), f"{fullest.formula}, {tokens} tokens; rows handed out"
        )
    inputs = tokens * (copies * masks.given + build.input_rows * hidden + INPUT_BYTES_PER_TOKEN)
    fullest = max(moments, default=_NOTHING)
    tolerance = _tolerance(fullest.tolerance if kinds else KNOWN_TOLERANCE, build)
    return Moment(inputs + fullest.bytes + handed_out, tolerance, "inputs of the devices; rows handed out")


LOGITS = "logits"
_NOTHING = Moment(0.0, KNOWN_TOLERANCE, "nothing")


def _head(options: Options, model: Model, build: Build) -> Moment:
    rows = options.ubatch if build.all_logits else options.slots
    hidden = model.hidden_size * (options.ubatch if build.all_logits else 0)
    return Moment(4.0 * (rows * model.vocab_size + hidden), KNOWN_TOLERANCE, LOGITS)


def _layer_moment(kind: LayerKind, options: Options, model: Model, rows: int, build: Build) -> Moment:
    """Of f32 elements for each token, the most at once."""
    beside = rows * model.hidden_size
    queries = kind.num_heads * kind.head_dim_k
    found = [Moment(beside + _feed_forward(kind, model), OTHER_TOLERANCE, "feed-forward network")]
    if kind.kv_lora_rank:
        found.append(_latent_moment(kind, options, beside))
    elif kind.mixer in RECURRENT_KINDS:
        found.append(Moment(beside + 4.0 * kind.conv_elements, OTHER_TOLERANCE, "recurrence"))
    elif kind.num_heads and options.flash:
        found.append(Moment(beside + 2.0 * queries, OTHER_TOLERANCE, "attention"))
    elif kind.num_heads:
        cells = window_cells(kind, options)
        keys = kind.num_kv_heads * (kind.head_dim_k + kind.head_dim_v)
        more = (beside - SCORE_ROWS * model.hidden_size + keys) if not build.all_logits else 0
        scores = _scores(kind, options, cells) + SCORE_ROWS * (model.hidden_size + queries) + more
        found.append(Moment(scores, KNOWN_TOLERANCE, "attention scores"))
    fullest = max(found)
    return fullest._replace(bytes=4.0 * options.ubatch * fullest.bytes + _expanded(kind, options))


def _latent_moment(kind: LayerKind, options: Options, beside: float) -> Moment:
    """Queries, what they become in the latent, and what comes out of it, for each head."""
    nope = kind.head_dim_k - kind.rope_head_dim
    heads = kind.num_heads * (2 * kind.kv_lora_rank + nope + 2 * kind.rope_head_dim)
    if options.mla is not None and options.mla != 1:
        heads = kind.num_heads * (2 * kind.head_dim_k + kind.head_dim_v)
    scores = 0.0 if options.flash else _scores(kind, options, options.cells)
    return Moment(beside + heads + scores, OTHER_TOLERANCE, "latent attention")


def _scores(kind: LayerKind, options: Options, cells: int) -> float:
    """Of all heads, for each token; ik_llama.cpp's -amb computes them in portions of so many MiB."""
    whole = float(kind.num_heads * cells)
    return min(whole, options.attention_mib * MIB / (4 * options.ubatch)) if options.attention_mib else whole


def _expanded(kind: LayerKind, options: Options) -> float:
    """ik_llama.cpp -mla 2 and 3 with flash attention: all heads' keys and values for the whole context, 16 bits."""
    if not kind.kv_lora_rank or options.mla not in (2, 3) or not options.flash:
        return 0.0
    whole = 2.0 * options.cells * kind.num_heads * (kind.head_dim_k + kind.head_dim_v)
    return whole + MIB * (options.attention_mib or 0)


def _feed_forward(kind: LayerKind, model: Model) -> float:
    """Gate, up and their product; for experts as many as a token passes, and what each of them gives."""
    dense = 3.0 * kind.intermediate_size
    if kind.experts is None:
        return dense
    chosen = kind.experts.experts_per_token
    inner, outer = chosen * kind.experts.intermediate_size, chosen * model.hidden_size
    return max(3.0 * inner, inner + outer, dense if kind.experts.shared else 0.0)


def _with_moved(moment: Moment, size: float, build: Build) -> Moment:
    if build.moves_large_batches:
        return Moment(moment.bytes + size, moment.tolerance, f"{moment.formula}; a copy of weights of the host")
    most = (moment.bytes * (1 + moment.tolerance) + size) / max(1.0, moment.bytes) - 1
    return moment._replace(tolerance=most)


def _tolerance(tolerance: float, build: Build) -> float:
    if build.has_mla_modes:
        return max(tolerance, FORK_TOLERANCE)
    return max(tolerance, UNKNOWN_BUILD_TOLERANCE) if build.number is None else tolerance
