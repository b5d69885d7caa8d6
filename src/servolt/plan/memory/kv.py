"""What a layer keeps of the sequences it has seen: bytes for a token, or for a slot, on one rank."""

from collections.abc import Mapping

from servolt.errors import InvalidInputError
from servolt.model.layers import ATTENTION_KINDS, RECURRENT_KINDS, LayerKind

__all__ = ["dtype_bytes", "element_bytes", "keeps_tokens", "state_bytes", "token_bytes"]

# Bytes of one element of keys and values. The formats with a scale for each block of 16 hold it inside.
ELEMENT_BYTES: Mapping[str, float] = {
    "float32": 4.0,
    "float16": 2.0,
    "half": 2.0,
    "bfloat16": 2.0,
    "fp8": 1.0,
    "fp8_e4m3": 1.0,
    "fp8_e5m2": 1.0,
    "fp8_inc": 1.0,
    "fp8_ds_mla": 1.0,
    "int8": 1.0,
    "fp8_per_token_head": 1.0,
    "int8_per_token_head": 1.0,
    "int4_per_token_head": 0.5,
    "int4": 0.5,
    "nvfp4": 0.5625,
    "nvfp4_4over6": 0.5625,
    "nvfp4_ds_mla": 0.5625,
    "fp4_e2m1": 0.5625,
    "ultraquant_4bit": 0.53125,
    "q8_0": 1.0625,
    "q5_1": 0.75,
    "q5_0": 0.6875,
    "q4_1": 0.625,
    "q4_0": 0.5625,
    "iq4_nl": 0.5625,
    "turboquant_k8v4": 0.78,
    "turboquant_4bit_nc": 0.55,
    "turboquant_k3v4_nc": 0.48,
    "turboquant_3bit_nc": 0.42,
    "octave_k3v4": 0.48,
    "octave_k3v3": 0.42,
    "octave_k3v3_compact": 0.40,
}
SHORT_NAMES: Mapping[str, str] = {
    "bf16": "bfloat16",
    "f16": "float16",
    "fp16": "float16",
    "f32": "float32",
    "fp32": "float32",
    "q8": "q8_0",  # as people write llama.cpp's and its kin's
    "q5": "q5_0",
    "q4": "q4_0",
}

SCALE_BYTES = 4  # of one token and head, where a format says so
INDEX_SCALE_BYTES = 4  # of one indexer key, which is fp8 whatever the cache is

# An fp8 entry of sparse MLA keeps its positions in bf16, and a scale of 4 bytes for each 128 of the latent: 512 + 16 +
# 2 * 64 = 656 B for DeepSeek (vllm 0.33.0 fp8_ds_mla, sglang 0.5.15 calculate_mla_kv_cache_dim).
LATENT_SCALE_ELEMENTS = 128


def dtype_bytes(dtype: str | None) -> int:
    """Of weights and arithmetic; what has no type of its own computes in bfloat16."""
    return 4 if SHORT_NAMES.get(dtype or "", dtype) == "float32" else 2


def element_bytes(kv_cache_dtype: str | None, dtype: str | None) -> float:
    """Keys and values may have types of their own, as in q8_0/q4_0. Raises InvalidInputError for an unknown one."""
    name = (kv_cache_dtype or "auto").lower()
    if "/" in name:
        return sum(element_bytes(part, dtype) for part in name.split("/")) / len(name.split("/"))
    if name == "auto":
        return float(dtype_bytes(dtype))
    name = SHORT_NAMES.get(name, name)
    if name not in ELEMENT_BYTES:
        raise InvalidInputError(
            f"kv_cache_dtype {kv_cache_dtype!r} is not known.",
            f"Use auto or one of: {', '.join(sorted(ELEMENT_BYTES))}.",
        )
    return ELEMENT_BYTES[name]


def keeps_tokens(kind: LayerKind) -> bool:
    """Whether what it keeps grows with each token."""
    return kind.mixer in ATTENTION_KINDS and not kind.shares_kv


def token_bytes(kind: LayerKind, *, tp: int, kv_cache_dtype: str | None, dtype: str | None) -> float:
    """One layer, one token, one rank. Heads are divided until one is left; the latent of MLA is whole on every rank.

    >>> llama = LayerKind(count=32, mixer="full", num_heads=32, num_kv_heads=8, head_dim_k=128, head_dim_v=128)
    >>> token_bytes(llama, tp=1, kv_cache_dtype="auto", dtype="bfloat16")
    4096.0
    """
    if not keeps_tokens(kind):
        return 0.0
    width = element_bytes(kv_cache_dtype, dtype)
    if kind.mixer in ("mla", "dsa"):
        return (_latent_bytes(kind, width) + _index_bytes(kind)) / kind.kv_compression
    heads = -(-kind.num_kv_heads // tp)
    scales = 2 * SCALE_BYTES if "per_token_head" in (kv_cache_dtype or "") else 0
    index = kind.index_head_dim * dtype_bytes(dtype)  # one key of the indexer, in the type of the activations
    return (heads * ((kind.head_dim_k + kind.head_dim_v) * width + scales) + index) / kind.kv_compression


def state_bytes(
    kind: LayerKind, *, tp: int, dtype: str | None, state_dtype: str | None = None, drafted: int = 0
) -> float:
    """One layer, one slot, one rank: the last positions of the convolution, and the state.

    The state of delta nets and Mamba-2 is kept in float32 unless something else is asked for.

    >>> qwen = LayerKind(count=48, mixer="gdn", conv_elements=10240, conv_kernel=4, state_elements=48 * 128 * 128)
    >>> state_bytes(qwen, tp=1, dtype="bfloat16")
    3207168.0
    """
    if kind.mixer not in RECURRENT_KINDS:
        return 0.0
    narrow = dtype_bytes(dtype)
    wide = dtype_bytes(state_dtype) if state_dtype else (narrow if kind.mixer in ("mamba1", "shortconv") else 4)
    positions = max(kind.conv_kernel - 1, 0) + drafted
    return -(-kind.conv_elements // tp) * positions * float(narrow) + -(-kind.state_elements // tp) * float(wide)


def _latent_bytes(kind: LayerKind, width: float) -> float:
    if kind.mixer == "dsa" and width == 1.0:
        scales = 4 * (kind.kv_lora_rank // LATENT_SCALE_ELEMENTS)
        return kind.kv_lora_rank + scales + 2.0 * kind.rope_head_dim
    return (kind.kv_lora_rank + kind.rope_head_dim) * width


def _index_bytes(kind: LayerKind) -> float:
    return float(kind.index_head_dim + INDEX_SCALE_BYTES) if kind.index_head_dim else 0.0
