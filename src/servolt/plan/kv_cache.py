"""Keys and values, and the state that recurrent layers keep in their place: how much, and how surely."""

from typing import Literal, NamedTuple

from servolt.errors import InvalidInputError
from servolt.model import Model
from servolt.model.ggml import dtype_bytes

__all__ = ["Bound", "KvCache", "bounds_of", "kv_cache_bytes_per_token", "kv_cache_of", "recurrent_state_bytes"]

Bound = Literal["sliding_window", "layers_differ", "latent_attention", "recurrent_state"]

# States are kept as f32, whatever the type of the keys and values (llama_memory_recurrent).
STATE_ELEMENT_BYTES = 4
# RWKV's tokens kept for the shift, where the header does not say (llama.cpp's default).
TOKEN_SHIFTS = 2


class KvCache(NamedTuple):
    """`bytes` is exact without `bounds`, else the most it can be; `low` is the least."""

    bytes: int
    low: int
    bytes_per_token: int
    bounds: tuple[Bound, ...]


def kv_cache_of(model: Model, dtype: str | None, *, slots: int, cells: int) -> KvCache:
    """Raises InvalidInputError for a KV data type whose size is not known."""
    per_token, bounds = kv_cache_bytes_per_token(model, dtype), bounds_of(model)
    full = slots * cells * per_token
    state = slots * recurrent_state_bytes(model)
    return KvCache(full + state, _least(model, dtype, bounds, slots, cells), per_token, bounds)


def kv_cache_bytes_per_token(model: Model, dtype: str | None = None) -> int:
    """Keys and values of every layer for one token: L * H_kv * (d_k + d_v) * b bytes. None is f16.

    Llama 3.1 8B: 32 layers, 8 KV heads of 128, f16 are 131,072 bytes. Raises InvalidInputError.
    """
    numbers = model.num_layers * model.num_kv_heads * (model.head_dim_k + model.head_dim_v)
    return round(numbers * _element_bytes(dtype))


def bounds_of(model: Model) -> tuple[Bound, ...]:
    """What keeps the formula from being exact. The header does not say which layers it is true of."""
    own = f"{model.architecture}."
    differing = {own + f"attention.{name}" for name in ("head_count_kv", "key_length", "value_length")}
    found: list[tuple[Bound, bool]] = [
        ("sliding_window", model.sliding_window is not None),
        ("layers_differ", bool(differing & set(model.varied)) or own + "attention.shared_kv_layers" in model.metadata),
        ("latent_attention", own + "attention.kv_lora_rank" in model.metadata),
        ("recurrent_state", recurrent_state_bytes(model) > 0),
    ]
    return tuple(bound for bound, holds in found if holds)


def recurrent_state_bytes(model: Model) -> int:
    """Of one sequence, as if every layer were recurrent: what is rolled (convolution, shift) and the state itself.

    RWKV and Mamba as llama.cpp counts them (llama_hparams::n_embd_r and n_embd_s). 0 without recurrent layers.
    """
    hidden, head = model.hidden_size, _size(model, "wkv.head_size")
    inner, state = _size(model, "ssm.inner_size"), _size(model, "ssm.state_size")
    convolved = max(0, _size(model, "ssm.conv_kernel") - 1) * (inner + 2 * _size(model, "ssm.group_count") * state)
    if head:
        elements = (_size(model, "token_shift_count") or TOKEN_SHIFTS) * hidden + hidden * head
    else:
        elements = convolved + inner * state + max(0, _size(model, "shortconv.l_cache") - 1) * hidden
    return model.num_layers * elements * STATE_ELEMENT_BYTES


def _least(model: Model, dtype: str | None, bounds: tuple[Bound, ...], slots: int, cells: int) -> int:
    """All layers keep the window only; one layer has the most heads; a latent's keys alone; nothing but a state."""
    if "recurrent_state" in bounds:
        return 0
    kept = min(cells, model.sliding_window or cells)
    per_token = kv_cache_bytes_per_token(model, dtype)
    if "layers_differ" in bounds:
        per_token //= max(1, model.num_layers)
    if "latent_attention" in bounds:
        latent = _size(model, "attention.kv_lora_rank") + _size(model, "rope.dimension_count")
        per_token = min(per_token, round(model.num_layers * latent * _element_bytes(dtype)))
    return slots * kept * per_token


def _element_bytes(dtype: str | None) -> float:
    element = dtype_bytes(dtype or "f16")
    if element is None:
        raise InvalidInputError(f"the size of the KV data type {dtype!r} is not known.", "Take f16 or q8_0.")
    return element


def _size(model: Model, name: str) -> int:
    """0 where the header has no such thing."""
    value = model.metadata.get(f"{model.architecture}.{name}")
    return value if isinstance(value, int) else 0
