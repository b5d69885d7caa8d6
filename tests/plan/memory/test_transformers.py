from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servolt.deployment import Deployment
from servolt.model import Model
from servolt.plan.memory.budget import Budget
from servolt.plan.memory.emulate import budget_of
from tests.plan.published import GIB, accelerator, deepseek_r1, gemma_3_27b, llama_3_8b, qwen3_5_27b

FLASH = {"attn_implementation": "flash_attention_2"}


def budget(model: Model, gib: float = 79.19, **asked: Any) -> Budget:
    chosen: dict[str, Any] = {"engine": "transformers", "engine_version": "5.23.0", "max_model_len": 8192, **asked}
    return budget_of(Deployment(model="m", **chosen), model, accelerator(gib))


def test_pool_and_step_solve_the_engines_own_equation() -> None:
    """With flash kernels: two moments, of which the smaller pool counts; 0.9 of what the weights leave."""
    found = budget(llama_3_8b(), engine_args=FLASH)
    available = 0.9 * (79.19 * GIB - found.per_rank[0].weights_bytes)
    page, step = 8 * 128, 8192
    inputs_of_pool, inputs_of_step = 2 * 8, 2 * (8 * 4 + 2 * 8)
    head = (available - step * (inputs_of_step + 4096 * 2 + 128256 * 4)) / (2 * 32 * page * 2 + inputs_of_pool)
    attention = (available - step * (inputs_of_step + 2 * (4096 + 4096 + 2 * page))) / (
        2 * 32 * page * 2 + inputs_of_pool + 2 * page * 2
    )
    assert found.max_num_batched_tokens == step
    assert found.kv_cache_tokens == int(min(head, attention)) // 256 * 256


def test_masks_of_plain_attention_shrink_the_pool() -> None:
    plain, flash = budget(llama_3_8b()), budget(llama_3_8b(), engine_args=FLASH)
    assert plain.kv_cache_tokens < flash.kv_cache_tokens


def test_an_older_version_bounds_pool_and_step() -> None:
    found = budget(llama_3_8b(), engine_version="4.57.1")
    assert found.kv_cache_tokens == 4096 * 32
    assert found.max_num_batched_tokens == 256


def test_layers_with_windows_are_in_groups_of_their_own() -> None:
    """10 full and 52 sliding layers: groups of 2, each of which needs its own pages for a token."""
    found = budget(gemma_3_27b(), engine_args=FLASH)
    assert found.kv_bytes_per_token == 62 * 2 * 16 * 128 * 2
    assert found.max_concurrency > found.kv_cache_tokens / 8192


def test_without_a_pool_it_takes_the_whole_batch_at_its_full_length() -> None:
    found = budget(llama_3_8b(), max_num_seqs=4, engine_args={"continuous_batching": False})
    rank = found.per_rank[0]
    assert not found.pooled
    assert rank.kv_cache_bytes == 4 * 8192 * 131072
    assert rank.activation_bytes >= 4 * 128256 * 4
    # A latent is expanded to keys and values of all its heads.
    whole = budget(deepseek_r1(), engine_args={"continuous_batching": False})
    assert whole.kv_bytes_per_token == 61 * 128 * (192 + 128) * 2


def test_recurrent_layers_are_said_to_need_generate() -> None:
    assert any("recurrent" in note for note in budget(qwen3_5_27b()).notes)
    alone = budget(qwen3_5_27b(), engine_args={"continuous_batching": False})
    assert alone.per_rank[0].state_bytes > 0


@settings(max_examples=30, deadline=None)
@given(gib=st.floats(18, 190), length=st.integers(1024, 100_000), share=st.floats(0.3, 0.95))
def test_more_is_never_less(gib: float, length: int, share: float) -> None:
    asked: dict[str, Any] = {"max_model_len": length, "engine_args": {"max_memory_percent": share}}
    found = budget(llama_3_8b(), gib, **asked)
    assert found.kv_cache_tokens_low <= found.kv_cache_tokens <= found.kv_cache_tokens_high
    more = budget(llama_3_8b(), gib, max_model_len=length, engine_args={"max_memory_percent": share + 0.05})
    # A step that grows with the pool takes a little of it back, but not more than the pool gains.
    assert more.kv_cache_tokens >= found.kv_cache_tokens or more.max_num_batched_tokens > found.max_num_batched_tokens
    assert budget(llama_3_8b(), gib, **{**asked, "max_model_len": 2 * length}).max_concurrency <= found.max_concurrency


@pytest.mark.parametrize("model", [llama_3_8b, gemma_3_27b, deepseek_r1, qwen3_5_27b])
def test_every_kind_of_layer_gets_an_answer(model: Any) -> None:
    for arguments in ({}, FLASH, {"continuous_batching": False}):
        assert budget(model(), 2000, engine_args=arguments).kv_cache_tokens > 0
