from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servolt.deployment import Deployment
from servolt.model import Model
from servolt.plan.memory.budget import Budget
from servolt.plan.memory.emulate import budget_of
from tests.plan.published import GIB, accelerator, deepseek_r1, gemma_3_27b, llama_3_8b, qwen3_5_27b, qwen3_32b


def budget(model: Model, gib: float = 79.19, **asked: Any) -> Budget:
    chosen: dict[str, Any] = {"engine": "tensorrt_llm", "engine_version": "1.2.1", "max_model_len": 8192, **asked}
    return budget_of(Deployment(model="m", **chosen), model, accelerator(gib))


# How many requests aiconfigurator 0.12.0's own test expects on an H100 for Qwen3-32B-FP8 with fp8 keys and values.
@pytest.mark.parametrize(("tokens", "requests"), [(1024, 319), (4096, 78), (8192, 38)])
def test_the_batch_limit_of_another_planner_lies_in_the_interval(tokens: int, requests: int) -> None:
    found = budget(qwen3_32b("fp8"), max_model_len=tokens, kv_cache_dtype="fp8")
    assert int(found.max_concurrency_low) <= requests < found.max_concurrency_high
    assert found.max_concurrency == pytest.approx(requests, rel=0.1)


def test_the_pool_is_a_share_of_what_the_fullest_moment_leaves() -> None:
    found = budget(llama_3_8b(), free_gpu_memory_fraction=0.5)
    rank = found.per_rank[0]
    beside = rank.total_bytes - rank.kv_cache_bytes
    assert rank.kv_cache_bytes == pytest.approx(0.5 * (79.19 * GIB - beside), abs=2)
    assert found.kv_cache_tokens == rank.kv_cache_bytes // (131072 * 32) * 32


def test_stages_keep_their_own_layers_and_the_one_with_the_least_room_decides() -> None:
    one, two = budget(llama_3_8b()), budget(llama_3_8b(), pipeline_parallel_size=2)
    assert len(two.per_rank) == 2
    assert two.kv_cache_tokens > 2 * one.kv_cache_tokens
    assert two.kv_bytes_per_token == one.kv_bytes_per_token // 2


def test_a_latent_is_whole_on_every_rank_and_experts_are_not() -> None:
    one, eight = budget(deepseek_r1(), 180), budget(deepseek_r1(), 180, tensor_parallel_size=8, expert_parallel_size=8)
    assert one.kv_bytes_per_token == eight.kv_bytes_per_token == 61 * 576 * 2
    assert eight.per_rank[0].weights_bytes < one.per_rank[0].weights_bytes / 6


def test_windows_and_wide_intervals_are_said() -> None:
    assert any("max_attention_window" in note for note in budget(gemma_3_27b()).notes)
    assert any("isn't published" in note for note in budget(llama_3_8b()).notes)


def test_states_of_recurrent_layers_take_their_slots() -> None:
    few, many = budget(qwen3_5_27b(), max_num_seqs=8), budget(qwen3_5_27b(), max_num_seqs=64)
    assert 0 < few.per_rank[0].state_bytes == pytest.approx(many.per_rank[0].state_bytes / 8, rel=1e-6)
    assert few.kv_cache_tokens > many.kv_cache_tokens


def test_a_model_that_is_too_large_leaves_an_empty_pool() -> None:
    found = budget(qwen3_32b(), 24)
    assert (found.kv_cache_tokens, found.max_concurrency) == (0, 0)


@settings(max_examples=30, deadline=None)
@given(
    gib=st.floats(24, 190),
    length=st.integers(1024, 100_000),
    tp=st.sampled_from([1, 2, 4, 8]),
    dtype=st.sampled_from(["auto", "fp8", "nvfp4"]),
)
def test_more_is_never_less(gib: float, length: int, tp: int, dtype: str) -> None:
    asked: dict[str, Any] = {"max_model_len": length, "tensor_parallel_size": tp, "kv_cache_dtype": dtype}
    found = budget(llama_3_8b(), gib, **asked)
    assert found.kv_cache_tokens_low <= found.kv_cache_tokens <= found.kv_cache_tokens_high
    assert budget(llama_3_8b(), gib + 8, **asked).kv_cache_tokens >= found.kv_cache_tokens
    assert budget(llama_3_8b(), gib, **{**asked, "max_model_len": length * 2}).max_concurrency <= found.max_concurrency
    double = budget(llama_3_8b(), gib, **{**asked, "tensor_parallel_size": tp * 2})
    assert double.per_rank[0].weights_bytes <= found.per_rank[0].weights_bytes
    assert budget(llama_3_8b(), gib, **{**asked, "kv_cache_dtype": "auto"}).kv_cache_tokens <= found.kv_cache_tokens
