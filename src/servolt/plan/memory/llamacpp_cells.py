"""What llama.cpp keeps of the sequences it has seen: cells of keys and values, and states of recurrent layers."""

from collections import Counter
from typing import NamedTuple

from servolt.model import RECURRENT_KINDS, LayerKind
from servolt.model.ggml import dtype_bytes
from servolt.plan.memory.llamacpp_builds import Build
from servolt.plan.memory.llamacpp_options import CELL_STEP, Options
from servolt.plan.memory.llamacpp_placement import HOST, Device, Layers, Placement

__all__ = ["Kept", "cell_bytes", "kept_by_device", "state_bytes", "window_cells"]

# States are kept as f32, whatever the type of the keys and values (llama_memory_recurrent).
STATE_ELEMENT_BYTES = 4


class Kept(NamedTuple):
    """Bytes by device. `per_token` is of one token on the device that keeps the most, without windows."""

    keys_and_values: dict[Device, float]
    states: dict[Device, float]
    per_token: float
    windows: bool


def kept_by_device(options: Options, layers: Layers, placement: Placement, build: Build) -> Kept:
    values: dict[Device, float] = dict.fromkeys((HOST, *range(options.devices)), 0.0)
    states, per_token = dict(values), dict(values)
    windows = False
    per_kind = [(cell_bytes(kind, options, build), state_bytes(kind, options)) for kind in layers.kinds]
    for (index, place), copies in placement.counted(layers).items():
        kind, (of_cell, of_state) = layers.kinds[index], per_kind[index]
        cells = window_cells(kind, options) if kind.mixer in ("sliding", "chunked") else options.cells
        windows |= cells < options.cells
        for device, share in _holders(options, place):
            values[device] += copies * share * of_cell * cells * options.streams
            per_token[device] += copies * share * of_cell
            states[device] += copies * share * of_state
    _add_draft(options, layers, placement, build, values)
    return Kept(values, states, max(per_token.values()), windows)


def cell_bytes(kind: LayerKind, options: Options, build: Build) -> float:
    """One layer, one token. A row of each type is whole blocks."""
    if kind.shares_kv or kind.mixer in (*RECURRENT_KINDS, "none"):
        return 0.0
    keys, values = dtype_bytes(options.key_dtype), dtype_bytes(options.value_dtype)
    assert keys is not None
    assert values is not None
    if kind.mixer not in ("mla", "dsa"):
        return kind.num_kv_heads * (kind.head_dim_k * keys + kind.head_dim_v * values)
    latent = _latent(options, build)
    if latent == "expanded":
        return kind.num_heads * (kind.head_dim_k * keys + kind.head_dim_v * values)
    beside = kind.kv_lora_rank * values if latent == "keys_and_values" else 0.0
    return (kind.kv_lora_rank + kind.rope_head_dim + kind.index_head_dim) * keys + beside


def state_bytes(kind: LayerKind, options: Options) -> float:
    """One layer, all slots: the last positions of the convolution and the state; again for each guessed token."""
    if kind.mixer not in RECURRENT_KINDS:
        return 0.0
    elements = max(0, kind.conv_kernel - 1) * kind.conv_elements + kind.state_elements
    return elements * STATE_ELEMENT_BYTES * options.slots * (1 + options.snapshots)


def window_cells(kind: LayerKind, options: Options) -> int:
    """Of one stream: the window of each sequence in it and one pass of tokens (llama_kv_cache_iswa)."""
    if options.full_windows or kind.window is None:
        return options.cells
    sequences = options.slots if options.streams == 1 else 1
    wanted = min(options.cells, kind.window * sequences + options.ubatch)
    return -(-wanted // CELL_STEP) * CELL_STEP


def _latent(options: Options, build: Build) -> str:
    """ik_llama.cpp: -mla 0 keeps keys and values of all heads, 1 without flash attention a transposed copy too."""
    if options.mla is None:
        return build.latent
    if options.mla == 0:
        return "expanded"
    return "keys_and_values" if options.mla == 1 and not options.flash else "keys"


def _holders(options: Options, place: Device) -> list[tuple[Device, float]]:
    if place is HOST or options.keeps_kv_on_host:
        return [(HOST, 1.0)]
    if options.split_mode == "tensor":
        return [(device, share / sum(options.shares)) for device, share in enumerate(options.shares)]
    return [(place, 1.0)]


def _add_draft(
    options: Options, layers: Layers, placement: Placement, build: Build, values: dict[Device, float]
) -> None:
    """A model that guesses by itself does so in one more layer of its commonest kind, with its own context."""
    if not options.drafts_itself:
        return
    of_kind = Counter(layers.order)
    own = [(of_kind[index], cell_bytes(kind, options, build)) for index, kind in enumerate(layers.kinds)]
    keeping = [pair for pair in own if pair[1]]
    if keeping:
        place = HOST if options.keeps_kv_on_host else placement.output
        values[place] += max(keeping)[1] * options.tokens
