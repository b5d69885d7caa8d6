"""Rules of older versions and of processors, as their sources say them."""

from typing import Any

import pytest

from servolt.deployment import Deployment, Hardware
from servolt.gpu import Accelerator
from servolt.plan.memory.budget import Budget
from servolt.plan.memory.emulate import budget_of
from tests.plan.memory.shapes import GIB, gib, h100, llama_3_1_8b

EPYC = Accelerator(name="EPYC 9654", kind="cpu", vendor="AMD", memory_bytes=6144 * GIB, source="made up")


def plan(engine: str, version: str, device: Accelerator | None = None, **chosen: Any) -> Budget:
    asked = Deployment(model="m", engine=engine, engine_version=version, **chosen)
    return budget_of(asked, llama_3_1_8b(), device or h100())


@pytest.mark.parametrize(
    ("version", "tp", "fraction"),
    [
        ("0.4.5", 1, 0.88),
        ("0.4.5", 8, 0.81),
        ("0.4.9", 1, 0.874),  # 9.5 + 0.5 GiB of 79.65
        ("0.4.9", 8, 0.831),  # 9.5 + 4
        ("0.5.6", 1, 0.835),  # 512 + 1.5 x 8192 MiB, 2 for each of 256, an eighth of 1 GiB
    ],
)
def test_sglang_found_its_share_by_other_rules_before(version: str, tp: int, fraction: float) -> None:
    """sglang/srt/server_args.py of early, mid and late 2025: the same as if the share was stated."""
    asked: dict[str, Any] = {"tensor_parallel_size": tp, "max_model_len": 8192}
    found, stated = plan("sglang", version, **asked), plan("sglang", version, **asked, mem_fraction_static=fraction)

    assert found.kv_cache_tokens == pytest.approx(stated.kv_cache_tokens, rel=0.002)


def test_drafts_of_sglang_0_5_6_had_a_reserve_of_their_own() -> None:
    """2 GiB for EAGLE, 6 for a whole model, nothing for n-grams."""
    reserves = [
        plan("sglang", "0.5.6", speculative_config={"method": method, "num_speculative_tokens": 4})
        .per_rank[0]
        .activation_bytes
        for method in ("ngram", "eagle", "draft_model")
    ]
    plain = plan("sglang", "0.5.6").per_rank[0].activation_bytes

    assert reserves[0] == plain
    assert reserves[0] < reserves[1] < reserves[2]


def test_the_first_engine_of_vllm_passed_a_whole_context_in_one_step() -> None:
    """vllm of 0.6 and 0.7: max(max_model_len, 2048) tokens up to 32,768, cut into 2,048 above."""
    steps = {size: plan("vllm", "0.7.3", max_model_len=size).max_num_batched_tokens for size in (1024, 16_384, 65_536)}

    assert steps == {1024: 2048, 16_384: 16_384, 65_536: 2048}
    assert plan("vllm", "0.8.5", max_model_len=16_384).max_num_batched_tokens == 8192


def test_on_a_processor_vllm_takes_half_of_the_memory_for_its_pool_and_no_graphs() -> None:
    """vllm/platforms/cpu.py: DEFAULT_CPU_MEM_UTILIZATION, 0.5; VLLM_CPU_KVCACHE_SPACE of 4 GiB before."""
    machine = Hardware(accelerator="EPYC 9654", host_memory_bytes=256 * GIB)
    new, old = (plan("vllm", version, EPYC, hardware=machine) for version in ("0.19.0", "0.9.2"))

    assert gib(new, "kv_cache") == pytest.approx(128, abs=0.01)
    assert gib(old, "kv_cache") == pytest.approx(4, abs=0.01)
    assert new.per_rank[0].graph_bytes == 0
    assert (new.max_num_batched_tokens, new.max_num_seqs) == (2048, 128)


def test_without_a_version_the_pool_may_be_that_of_one_that_leaves_graphs_out() -> None:
    unstated = budget_of(Deployment(model="m", engine="vllm", max_model_len=8192), llama_3_1_8b(), h100())
    stated = plan("vllm", "0.33.0", max_model_len=8192)
    graphs = unstated.per_rank[0].graph_bytes / unstated.kv_bytes_per_token

    assert unstated.kv_cache_tokens == stated.kv_cache_tokens
    assert unstated.kv_cache_tokens_high >= unstated.kv_cache_tokens + graphs


def test_a_pool_that_is_measured_gives_way_to_what_else_is_taken() -> None:
    """TensorRT-LLM gives 0.9 of what is free after a trial: a byte more of work space is a tenth of a byte in all."""
    rank = plan("tensorrt_llm", "1.2.1", max_model_len=8192).per_rank[0]
    pool, total = rank.terms["kv_cache"], rank.total_bytes

    assert pool.low < pool.bytes < pool.high
    assert rank.high_bytes - total < 0.2 * (pool.bytes - pool.low)
    assert rank.high_bytes <= (rank.available_bytes or 0)
