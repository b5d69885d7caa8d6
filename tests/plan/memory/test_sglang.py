"""SGLang's pools against its own continuous integration in July 2026 (0.5.15), unless a test says otherwise."""

from typing import Any

import pytest

from servolt.deployment import Deployment
from servolt.gpu import Accelerator
from servolt.model import Model, model_from_config
from servolt.plan.memory.budget import Budget
from servolt.plan.memory.emulate import budget_of
from tests.plan.memory.shapes import GIB, b200, gib, gpt_oss, h100, llama_3_1_8b, qwen2_5, qwen3_6_35b_a3b, qwen3_14b
from tests.plan.published import deepseek_r1, qwen3_30b_a3b


def sglang(model: Model, device: Accelerator | None = None, known: Any = None, **settings: Any) -> Budget:
    chosen: dict[str, Any] = {"engine": "sglang", "engine_version": "0.5.15", **settings}
    return budget_of(Deployment(model="m", **chosen), model, device or h100(), known=known)


def llama_3_2_1b() -> Model:
    config = {
        "model_type": "llama",
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
    }
    return model_from_config(config, name="Llama 3.2 1B")


# max_total_num_tokens: mean of three runs on H100 80GB.
@pytest.mark.parametrize(
    ("model", "settings", "tokens"),
    [
        (llama_3_1_8b, {}, 410_364),
        (llama_3_1_8b, {"engine_args": {"chunked-prefill-size": -1}}, 317_033),
        (
            llama_3_1_8b,
            {"enable_lora": True, "max_loras": 1, "max_lora_rank": 256, "mem_fraction_static": 0.8},
            380_718,
        ),
        (llama_3_2_1b, {}, 2_056_499),
        (lambda: llama_3_1_8b("int8"), {}, 463_452),
    ],
)
def test_tokens_are_those_of_the_log(model: Any, settings: dict[str, Any], tokens: int) -> None:
    found = sglang(model(), **settings)

    assert found.kv_cache_tokens == pytest.approx(tokens, rel=0.003)
    assert found.kv_cache_tokens_low <= tokens <= found.kv_cache_tokens_high


def test_two_pools_share_what_is_left_under_a_sliding_window() -> None:
    """gpt-oss-120b on 4 B200: 8,598,613 tokens of full attention and 0.8 times as many of the window, 132.85 GiB."""
    found = sglang(gpt_oss(36, 128), b200(), tensor_parallel_size=4, engine_args={"cuda-graph-max-bs-decode": 200})

    assert found.kv_cache_tokens == pytest.approx(8_598_613, rel=0.02)
    assert gib(found, "kv_cache") == pytest.approx(132.85, rel=0.02)


def test_packed_experts_take_more_on_hopper_than_their_tensors() -> None:
    """The same on 4 H100: 44.79 GiB for both pools."""
    found = sglang(gpt_oss(36, 128), tensor_parallel_size=4, engine_args={"cuda-graph-max-bs-decode": 200})

    assert gib(found, "kv_cache") == pytest.approx(44.79, rel=0.05)


def test_the_ratio_of_the_pools_can_be_set() -> None:
    half, whole = (sglang(gpt_oss(), swa_full_tokens_ratio=ratio) for ratio in (0.5, 1.0))

    assert half.kv_cache_tokens == pytest.approx(whole.kv_cache_tokens * 2 / 1.5, rel=0.001)


def test_a_latent_is_kept_whole_by_every_rank() -> None:
    one, other = (sglang(deepseek_r1("fp8"), b200(), tensor_parallel_size=size) for size in (8, 16))

    assert one.kv_bytes_per_token == other.kv_bytes_per_token == 61 * 576 * 2


def test_attention_in_parallel_over_data_keeps_whole_heads_for_its_own_requests() -> None:
    plain, spread = (
        sglang(qwen3_30b_a3b(), tensor_parallel_size=4, data_parallel_size=data, enable_dp_attention=data > 1)
        for data in (1, 4)
    )

    assert spread.kv_bytes_per_token == 4 * plain.kv_bytes_per_token
    assert spread.kv_cache_tokens < plain.kv_cache_tokens


@pytest.mark.parametrize(
    ("version", "visible_gib", "tp", "chunk"),
    [
        ("0.5.15", 14.7, 1, 2048),
        ("0.5.17", 23.5, 1, 2048),
        ("0.5.23", 23.5, 1, 4096),
        ("0.5.15", 44.4, 1, 4096),
        ("0.5.15", 178.4, 1, 16384),
    ],
)
def test_the_step_follows_the_devices_memory(version: str, visible_gib: float, tp: int, chunk: int) -> None:
    device = h100().model_copy(update={"visible_memory_bytes": round(visible_gib * GIB)})

    assert (
        sglang(llama_3_1_8b(), device, engine_version=version, tensor_parallel_size=tp).max_num_batched_tokens == chunk
    )


def test_prefill_graphs_are_reserved_for_since_0_5_10() -> None:
    """58 sizes of 8 MiB, but at least 10 GiB are reserved of a large device, so a small one shows it."""
    small = h100().model_copy(update={"visible_memory_bytes": 44 * GIB})
    without, with_graphs = (sglang(llama_3_1_8b(), small, engine_version=version) for version in ("0.5.9", "0.5.10"))

    assert without.kv_cache_tokens > with_graphs.kv_cache_tokens


def test_a_stated_fraction_goes_before_the_reserve() -> None:
    """Llama 3.1 8B at 0.8 of the 78.6 GiB that are free before loading."""
    found = sglang(llama_3_1_8b(), mem_fraction_static=0.8)

    assert gib(found, "kv_cache") == pytest.approx(0.8 * 78.6 - 14.99 - 0.16, abs=0.02)


def test_a_large_fraction_leaves_less_for_activations() -> None:
    default, large = (sglang(llama_3_1_8b(), mem_fraction_static=fraction) for fraction in (None, 0.95))

    assert large.per_rank[0].activation_bytes < default.per_rank[0].activation_bytes / 2
    assert large.high_bytes <= (large.available_bytes or 0)


def test_states_take_nine_parts_for_ten_of_the_cache_and_clamp_requests() -> None:
    """mamba_full_memory_ratio 0.9: LFM2 logs 4.88 GiB of states beside 5.42 GiB of cache (December 2025)."""
    found = sglang(qwen3_6_35b_a3b(), b200())

    assert gib(found, "state") / gib(found, "kv_cache") == pytest.approx(0.9, abs=0.01)
    slots = int(found.per_rank[0].terms["state"].formula.split()[0].replace(",", ""))
    assert found.max_num_seqs == slots // 3


def test_speculation_keeps_states_for_every_drafted_token() -> None:
    plain, guessing = (
        sglang(qwen3_6_35b_a3b(), b200(), speculative_config=speculation)
        for speculation in (None, {"method": "mtp", "num_speculative_tokens": 3})
    )

    assert guessing.max_num_seqs < plain.max_num_seqs


def test_a_pool_may_be_capped() -> None:
    assert sglang(llama_3_1_8b(), engine_args={"max_total_tokens": 131_072}).kv_cache_tokens == 131_072


def test_the_workspace_of_aiter_grows_with_context_and_requests() -> None:
    """Qwen3-30B-A3B on MI355X at 262,144 tokens: 1,669,816 tokens beside a workspace of 51.75 GiB (July 2026)."""
    model = qwen3_30b_a3b().model_copy(update={"max_position_embeddings": 262_144})
    device = Accelerator(
        name="MI355X",
        kind="gpu",
        vendor="AMD",
        architecture="CDNA4",
        memory_bytes=288 * GIB,
        visible_memory_bytes=round(287.54 * GIB),
        source="the log",
    )
    found = sglang(model, device, mem_fraction_static=0.911)

    assert found.kv_cache_tokens == pytest.approx(1_669_816, rel=0.005)


def test_a_log_of_one_start_makes_the_pool_exact() -> None:
    found = sglang(qwen3_14b(), known={"weights": 27.6 * GIB, "kv_cache": 30.0 * GIB})

    assert found.kv_cache_tokens == 30 * GIB // (40 * 2 * 8 * 128 * 2)
    assert found.kv_cache_tokens_low == found.kv_cache_tokens_high == found.kv_cache_tokens


def test_each_stage_of_a_pipeline_has_its_own_pool() -> None:
    found = sglang(qwen2_5(80, 8192, 29568, 64, 8), pipeline_parallel_size=2)

    assert len(found.per_rank) == 2
    assert found.kv_cache_tokens <= min(rank.kv_cache_bytes // (40 * 2 * 8 * 128 * 2) for rank in found.per_rank)


def test_too_small_a_device_gives_an_answer() -> None:
    tiny = h100().model_copy(update={"visible_memory_bytes": 6 * GIB})
    found = sglang(llama_3_1_8b(), tiny)

    assert found.kv_cache_tokens == 0
    assert found.max_concurrency == 0
    assert found.total_bytes > 6 * GIB
