import pytest

from servolt.errors import InvalidInputError
from servolt.model.layers import LayerKind
from servolt.plan.memory.kv import element_bytes, state_bytes, token_bytes

LLAMA = LayerKind(count=32, mixer="full", num_heads=32, num_kv_heads=8, head_dim_k=128, head_dim_v=128)
DEEPSEEK = LayerKind(
    count=61,
    mixer="mla",
    num_heads=128,
    num_kv_heads=128,
    head_dim_k=192,
    head_dim_v=128,
    kv_lora_rank=512,
    rope_head_dim=64,
)
GLM_5 = DEEPSEEK.model_copy(update={"mixer": "dsa", "index_head_dim": 128, "count": 78})


def token(kind: LayerKind, tp: int = 1, kv_cache_dtype: str | None = None) -> float:
    return token_bytes(kind, tp=tp, kv_cache_dtype=kv_cache_dtype, dtype="bfloat16")


@pytest.mark.parametrize(("tp", "heads"), [(1, 8), (2, 4), (4, 2), (8, 1), (16, 1)])
def test_heads_are_divided_until_each_rank_has_one(tp: int, heads: int) -> None:
    assert token(LLAMA, tp) == heads * 2 * 128 * 2


def test_a_latent_is_whole_on_every_rank() -> None:
    assert token(DEEPSEEK, 1) == token(DEEPSEEK, 8) == 576 * 2


def test_sparse_latents_in_fp8_keep_scales_and_positions_and_the_indexers_keys() -> None:
    """GLM-5 in fp8 logs 61,463 B for a token: 78 layers of 656 + 132 (SGLang, February 2026)."""
    assert 78 * token(GLM_5, 8, "fp8_e4m3") == pytest.approx(61_463, abs=2)


@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        (None, 2.0),
        ("auto", 2.0),
        ("fp8", 1.0),
        ("nvfp4", 0.5625),
        ("int8_per_token_head", 1 + 4 / 128),
        ("q8_0/q4_0", 0.8125),
    ],
)
def test_a_cache_has_its_own_type(dtype: str | None, size: float) -> None:
    assert token(LLAMA, 1, dtype) == 2 * 8 * 128 * size


def test_float32_models_keep_float32() -> None:
    assert element_bytes("auto", "float32") == 4.0


def test_an_unknown_type_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(InvalidInputError, match=r"'q7' is not known.*fp8_e4m3"):
        element_bytes("q7", None)


def test_a_layer_that_reads_anothers_keys_keeps_none() -> None:
    assert token(LLAMA.model_copy(update={"shares_kv": True})) == 0


def test_states_of_delta_nets_are_kept_in_float32_beside_a_16_bit_convolution() -> None:
    """Qwen3.6-27B in SGLang 0.5.17: 44 slots of bf16 states are 3.09 GiB, convolutions 0.12 GiB."""
    kind = LayerKind(count=48, mixer="gdn", conv_elements=10240, conv_kernel=4, state_elements=48 * 128 * 128)
    state = 48 * (state_bytes(kind, tp=1, dtype="bfloat16", state_dtype="bfloat16") - 3 * 10240 * 2)

    assert 44 * state / 2**30 == pytest.approx(3.09, abs=0.01)
    assert pytest.approx(0.12, abs=0.01) == 44 * 48 * 3 * 10240 * 2 / 2**30
    assert state_bytes(kind, tp=1, dtype="bfloat16") == 3 * 10240 * 2 + 48 * 128 * 128 * 4


def test_attention_keeps_no_state_and_states_no_tokens() -> None:
    mamba = LayerKind(count=1, mixer="mamba2", conv_elements=8, conv_kernel=4, state_elements=64)

    assert token(mamba) == 0
    assert state_bytes(LLAMA, tp=1, dtype=None) == 0
    assert state_bytes(mamba, tp=1, dtype=None) > 0
