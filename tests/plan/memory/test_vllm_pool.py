"""The pool's arithmetic against logs: what is left for keys and values is given, tokens and requests must come out."""

from typing import Any

import pytest

from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.plan.memory.budget import Budget
from tests.plan.memory.shapes import (
    GIB,
    gemma_2_27b,
    gpt_oss,
    h100,
    kimi_vl_text,
    llama_3_1_8b,
    qwen2_5,
    qwen3_6_35b_a3b,
    vllm,
)
from tests.plan.published import gemma_3_27b


def pool(model: Model, available_gib: float, device: Accelerator | None = None, **settings: Any) -> Budget:
    return vllm(model, device, known={"kv_cache": available_gib * GIB}, **settings)


# "Available KV cache memory", "GPU KV cache size", "Maximum concurrency" of vLLM 0.19.0 on H100, 8,192 tokens a request
# and a step: jgchn/llm-d-planner, branch accuracy. The log rounds to 0.01 GiB.
@pytest.mark.parametrize(
    ("model", "available_gib", "settings", "tokens", "concurrency"),
    [
        (llama_3_1_8b, 58.11, {}, 476_016, 58.11),
        (llama_3_1_8b, 58.11, {"kv_cache_dtype": "fp8"}, 952_032, 116.21),
        (llama_3_1_8b, 42.80, {"dtype": "float32"}, 175_296, 21.40),
        (llama_3_1_8b, 58.11, {"max_model_len": 2048}, 476_016, 232.43),
        (llama_3_1_8b, 63.76, {"tensor_parallel_size": 2}, 1_044_688, 127.53),
        (qwen2_5, 67.34, {"tensor_parallel_size": 4}, 5_043_280, 615.63),
        (gemma_2_27b, 20.59, {}, 58_672, 7.16),
        (gemma_3_27b, 19.53, {}, 36_560, 4.46),
        (gpt_oss, 58.47, {}, 1_277_184, 155.75),
        (kimi_vl_text, 41.32, {}, 1_426_368, 174.12),
        (kimi_vl_text, 54.78, {"tensor_parallel_size": 2}, 1_890_896, 230.82),
    ],
)
def test_tokens_and_requests_are_those_of_the_log(
    model: Any, available_gib: float, settings: dict[str, Any], tokens: int, concurrency: float
) -> None:
    found = pool(model(), available_gib, **settings)

    assert found.kv_cache_tokens == pytest.approx(tokens, rel=0.0006)
    assert found.max_concurrency == pytest.approx(concurrency, rel=0.0012)


def test_blocks_of_groups_are_counted_once() -> None:
    """23 full and 23 sliding layers are two groups of one pool: blocks of 23 pages of 131,072 B."""
    found = pool(gemma_2_27b(), 20.5945)

    assert found.num_gpu_blocks == 7335
    assert found.per_rank[0].terms["kv_cache"].formula == "7,335 blocks of 3,014,656 B in 2 group(s) of 16 tokens"


def test_ten_full_and_52_sliding_layers_are_seven_groups_of_ten() -> None:
    found = pool(gemma_3_27b(), 19.53)

    assert "1,310,720 B in 7 group(s)" in found.per_rank[0].terms["kv_cache"].formula


def test_a_page_of_attention_grows_until_it_holds_a_state() -> None:
    """Qwen3.6-35B-A3B in vLLM 0.24.0 with an fp8 cache: 2,096 tokens a block, 299 blocks, 4.33 requests of 131,072."""
    settings: dict[str, Any] = {
        "engine_version": "0.24.0",
        "kv_cache_dtype": "fp8",
        "max_model_len": 131_072,
        "max_num_seqs": 1,
    }
    found = pool(qwen3_6_35b_a3b(), 5.98, enable_prefix_caching=True, **settings)

    assert found.num_gpu_blocks == 299
    assert found.max_concurrency == pytest.approx(4.33, abs=0.005)
    assert found.kv_cache_tokens == 567_978


def test_without_reuse_a_request_keeps_one_state() -> None:
    settings: dict[str, Any] = {"engine_version": "0.24.0", "max_model_len": 32_768}
    reused, plain = (
        pool(qwen3_6_35b_a3b(), 5.98, enable_prefix_caching=reuses, **settings) for reuses in (True, False)
    )

    assert plain.max_concurrency > reused.max_concurrency


def test_the_log_counts_tokens_by_groups_until_0_19_and_by_requests_since() -> None:
    old, new = (pool(gemma_2_27b(), 20.5945, engine_version=version) for version in ("0.19.0", "0.20.2"))

    assert old.kv_cache_tokens == 7335 // 2 * 16
    assert new.kv_cache_tokens == int(7335 / (512 + 513) * 8192)
    assert old.max_concurrency == new.max_concurrency


def test_before_groups_every_layer_kept_every_token() -> None:
    old, new = (pool(gpt_oss(), 20.0, engine_version=version, max_model_len=65536) for version in ("0.8.5", "0.19.0"))

    assert old.max_concurrency < new.max_concurrency


def test_two_steps_in_flight_hold_more_of_a_window() -> None:
    one, two = (
        pool(gpt_oss(), 20.0, engine_version=version, max_model_len=65536, max_num_batched_tokens=8192)
        for version in ("0.20.2", "0.33.0")
    )

    assert two.max_concurrency < one.max_concurrency


def test_decode_context_parallel_ranks_hold_a_part_of_each_sequence() -> None:
    whole, parts = (
        pool(kimi_vl_text(), 30.0, tensor_parallel_size=2, decode_context_parallel_size=number) for number in (1, 2)
    )

    assert parts.max_concurrency == pytest.approx(2 * whole.max_concurrency, rel=0.01)
    assert parts.kv_cache_tokens == 2 * whole.kv_cache_tokens


def test_the_stage_with_the_least_room_rules() -> None:
    """Llama 3.1 8B over 2 and 4 H100: 1,075,312 and 2,257,264 tokens (vLLM 0.19.0)."""
    two, four = (vllm(llama_3_1_8b(), pipeline_parallel_size=number) for number in (2, 4))

    assert two.kv_cache_tokens == pytest.approx(1_075_312, rel=0.001)
    assert four.kv_cache_tokens == pytest.approx(2_257_264, rel=0.001)
    assert two.binding.startswith("pp1")
    assert len(two.per_rank) == 2


def test_a_window_across_stages_is_grouped_over_the_whole_model() -> None:
    found = pool(gemma_3_27b(), 30.0, pipeline_parallel_size=2)

    assert "7 group(s)" in found.per_rank[0].terms["kv_cache"].formula
    assert found.max_concurrency > pool(gemma_3_27b(), 30.0).max_concurrency


def test_a_stated_pool_skips_profiling() -> None:
    found = vllm(llama_3_1_8b(), kv_cache_memory_bytes=16 * 131_072 * 1000)

    assert found.num_gpu_blocks == 1000
    assert found.kv_cache_tokens == found.kv_cache_tokens_low == found.kv_cache_tokens_high == 16_000


@pytest.mark.parametrize("asked", [-1, "auto", "-1"])
def test_the_longest_context_that_fits_is_found(asked: Any) -> None:
    found = pool(llama_3_1_8b(), 8.0, max_model_len=None, engine_args={"max-model-len": asked})

    assert found.num_gpu_blocks is not None
    assert found.max_model_len == (found.num_gpu_blocks - 1) * 16
    assert 1.0 <= found.max_concurrency < 1.01


def test_the_longest_context_is_at_most_the_models_own() -> None:
    assert pool(llama_3_1_8b(), 58.0, max_model_len=None, engine_args={"max_model_len": -1}).max_model_len == 131_072


def test_a_block_may_be_larger() -> None:
    found = pool(llama_3_1_8b(), 58.11, block_size=64)

    assert found.kv_cache_tokens % 64 == 0


def test_a_head_that_guesses_tokens_keeps_keys_of_one_more_layer() -> None:
    plain = pool(llama_3_1_8b(), 58.11)
    guessing = pool(llama_3_1_8b(), 58.11, speculative_config={"method": "eagle3", "num_speculative_tokens": 3})

    assert guessing.kv_cache_tokens / plain.kv_cache_tokens == pytest.approx(32 / 33, rel=0.001)


def test_a_known_device_of_too_little_memory_gives_an_answer() -> None:
    small = h100().model_copy(update={"visible_memory_bytes": 8 * GIB, "memory_bytes": 8 * GIB})
    found = vllm(llama_3_1_8b(), small)

    assert found.kv_cache_tokens == 0
    assert found.max_concurrency == 0
    assert found.high_bytes > 8 * GIB
