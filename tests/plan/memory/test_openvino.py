from typing import Any

import pytest

from servolt.deployment import Deployment
from servolt.errors import InvalidInputError
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.plan.memory.budget import Budget
from servolt.plan.memory.emulate import budget_of
from tests.plan.published import GIB, deepseek_r1, gemma_3_27b, llama_3_8b, qwen3_5_27b

HOST = Accelerator(
    name="16 cores", kind="cpu", count=16, memory_bytes=64 * GIB, available_bytes=60 * GIB, source="made up"
)


def budget(model: Model, **asked: Any) -> Budget:
    chosen: dict[str, Any] = {"engine": "openvino", "max_model_len": 8192, **asked}
    return budget_of(Deployment(model="m", **chosen), model, HOST)


def test_a_cache_of_stated_size_is_that_size() -> None:
    found = budget(llama_3_8b("int8"), engine_args={"cache_size": 4})
    assert found.per_rank[0].kv_cache_bytes == 4 * GIB
    assert found.kv_cache_tokens == 4 * GIB // (found.kv_bytes_per_token * 32) * 32


def test_a_cache_that_grows_is_planned_at_its_fullest() -> None:
    """Keys and values in 8 bits, with a scale and a zero point in 32 bits for each token and head."""
    found = budget(llama_3_8b("int8"), max_num_seqs=4)
    assert found.kv_bytes_per_token == 32 * 8 * (256 + 16)
    assert found.per_rank[0].kv_cache_bytes == 4 * 8192 * found.kv_bytes_per_token
    assert budget(llama_3_8b("int8"), kv_cache_dtype="f16").kv_bytes_per_token == 131072


def test_blocks_may_be_counted_too() -> None:
    found = budget(llama_3_8b("int8"), engine_args={"num_kv_blocks": 100})
    assert found.kv_cache_tokens == 3200


def test_weights_may_be_kept_twice_on_a_processor() -> None:
    term = budget(llama_3_8b("int8")).per_rank[0].terms["weights"]
    assert term.high > 1.9 * term.bytes


@pytest.mark.parametrize("model", [llama_3_8b, gemma_3_27b, deepseek_r1, qwen3_5_27b])
def test_every_kind_of_layer_gets_an_answer(model: Any) -> None:
    found = budget(model())
    assert found.per_rank[0].kv_cache_bytes > 0
    assert any("not measured" in note for note in found.notes)


def test_a_type_that_it_does_not_keep_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="q8_0"):
        budget(llama_3_8b(), kv_cache_dtype="q8_0")
