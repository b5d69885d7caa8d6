"""A second model that guesses tokens takes memory of its own."""

from typing import Any

import pytest

from servolt.library import plan
from servolt.plan import Plan

GIB = 2**30
LOAD = {"input_tokens": 1024, "output_tokens": 256, "concurrency": 4}
DRAFT = {"method": "draft_model", "model": "meta-llama/Llama-3.2-1B-Instruct", "num_speculative_tokens": 4}


def asked(engine: str, speculation: dict[str, Any] | None, **more: Any) -> Plan:
    fields = {"model": "meta-llama/Llama-3.1-8B-Instruct", "engine": engine, "max_model_len": 8192, **more}
    fields |= {"hardware": {"accelerator": "H100"}, "speculative_config": speculation}
    return plan(fields, LOAD)


@pytest.mark.parametrize(("engine", "version"), [("vllm", "0.19.0"), ("sglang", "0.5.15")])
def test_a_draft_model_brings_its_weights_and_its_cache(engine: str, version: str) -> None:
    """Llama 3.2 1B: 1,235,814,400 parameters in bf16; 16 layers of 8 heads of 64 keep 32 KiB of a token."""
    without, found = (asked(engine, one, engine_version=version).memory for one in (None, DRAFT))

    assert found.weights_bytes - without.weights_bytes == pytest.approx(2 * 1_235_814_400, rel=0.001)
    per_token = found.kv_cache_bytes / found.kv_cache_tokens
    assert per_token == pytest.approx(131_072 + 32_768, rel=0.001)


def test_llamacpp_keeps_the_draft_s_cache_as_long_as_its_target_s() -> None:
    without, found = (asked("llamacpp", one, quantization="q8_0", max_num_seqs=1).memory for one in (None, DRAFT))

    assert found.per_rank[0].kv_cache_bytes - without.per_rank[0].kv_cache_bytes == 8192 * 32_768
    assert found.per_rank[0].weights_bytes - without.per_rank[0].weights_bytes > GIB
    assert not any("draft model's own memory" in note for note in found.notes)


def test_a_draft_of_which_nothing_is_known_is_a_warning() -> None:
    found = asked("vllm", DRAFT | {"model": "./nowhere/at-all"})

    assert any(problem.code == "draft_unknown" for problem in found.problems)
    assert found.memory == asked("vllm", DRAFT | {"method": "ngram", "model": None}).memory
