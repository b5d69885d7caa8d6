"""What can't go the other way, over engines and kinds of layers: more of what gives room never leaves less of it."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servolt.deployment import Deployment, Hardware
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.model.layers import LayerKind
from servolt.plan.memory.budget import Budget
from servolt.plan.memory.emulate import budget_of
from tests.plan.memory.shapes import (
    b200,
    gemma_2_27b,
    gpt_oss,
    h100,
    kimi_vl_text,
    llama_3_1_8b,
    qwen2_5,
    qwen3_6_35b_a3b,
)
from tests.plan.published import deepseek_r1, gemma_3_27b, qwen3_30b_a3b

POOLED = ("vllm", "sglang", "tensorrt_llm", "an-engine-of-tomorrow")
ENGINES = (*POOLED, "transformers", "llamacpp")
VERSIONS = {"vllm": ("0.6.4", "0.8.5", "0.11.2", "0.19.0", "0.33.0"), "sglang": ("0.4.5", "0.4.9", "0.5.9", "0.5.23")}

HEADS: dict[str, Any] = {"num_heads": 32, "num_kv_heads": 8, "head_dim_k": 128, "head_dim_v": 128}
# Beside full attention, every other layer: chunks as in Llama 4, a state space, a delta net, a short convolution.
OTHERS: dict[str, dict[str, Any]] = {
    "sliding": {**HEADS, "window": 1024},
    "chunked": {**HEADS, "window": 8192},
    "mamba1": {"conv_elements": 8192, "conv_kernel": 4, "state_elements": 8192 * 16},
    "mamba2": {"conv_elements": 10_240, "conv_kernel": 4, "state_elements": 128 * 64 * 128},
    "kda": {"conv_elements": 12_288, "conv_kernel": 4, "state_elements": 32 * 128 * 128},
    "shortconv": {"conv_elements": 4096, "conv_kernel": 3},
    "none": {"intermediate_size": 14_336},
}


def beside_attention(mixer: str) -> Model:
    base = llama_3_1_8b()
    full = base.layers[0].model_copy(update={"count": 16})
    other = LayerKind(count=16, mixer=mixer, parts=full.parts, **OTHERS[mixer])
    return base.model_copy(update={"layers": (full, other), "layer_order": (0, 1) * 16})


MODELS = (
    llama_3_1_8b(),
    qwen2_5(),
    gemma_2_27b(),
    gemma_3_27b(),
    gpt_oss(),
    kimi_vl_text(),
    qwen3_30b_a3b(),
    qwen3_6_35b_a3b(),
    *(beside_attention(mixer) for mixer in OTHERS),
)
models, sizes = st.sampled_from(MODELS), st.sampled_from([1, 2, 4])
# An engine with one of its versions.
engines = st.sampled_from(ENGINES).flatmap(
    lambda name: st.tuples(st.just(name), st.sampled_from(VERSIONS.get(name, (None,))))
)
pooled = engines.filter(lambda pair: pair[0] in POOLED)

# What else would follow the change through an engine's tiers of defaults.
STEP: dict[str, Any] = {"max_num_batched_tokens": 8192, "max_num_seqs": 128, "max_model_len": 8192}


def plan(model: Model, engine: tuple[str, str | None], device: Accelerator | None = None, **chosen: Any) -> Budget:
    name, version = engine
    asked = {**STEP, "hardware": Hardware(accelerator="x", count=chosen.get("tensor_parallel_size", 1)), **chosen}
    card = (device or b200()).model_copy(update={"count": asked["hardware"].count})
    return budget_of(Deployment(model="m", engine=name, engine_version=version, **asked), model, card)


@settings(max_examples=80, deadline=None)
@given(model=models, engine=engines, tp=sizes)
def test_more_ranks_never_take_more_weight_each(model: Model, engine: tuple[str, str | None], tp: int) -> None:
    one, two = (plan(model, engine, tensor_parallel_size=size) for size in (tp, 2 * tp))

    assert two.per_rank[0].weights_bytes <= one.per_rank[0].weights_bytes


@settings(max_examples=80, deadline=None)
@given(model=models, engine=engines, length=st.integers(512, 131_072), more=st.integers(1, 131_072))
def test_a_longer_context_never_has_more_users(
    model: Model, engine: tuple[str, str | None], length: int, more: int
) -> None:
    short, long = (plan(model, engine, max_model_len=size) for size in (length, length + more))

    assert long.max_concurrency <= short.max_concurrency
    assert long.max_concurrency_low <= short.max_concurrency_low


@settings(max_examples=60, deadline=None)
@given(model=models, engine=pooled, tp=sizes)
def test_fewer_bits_of_cache_never_hold_fewer_tokens(model: Model, engine: tuple[str, str | None], tp: int) -> None:
    found = [
        plan(model, engine, kv_cache_dtype=dtype, tensor_parallel_size=tp).kv_cache_tokens
        for dtype in ("bfloat16", "fp8", "nvfp4")
    ]

    assert found == sorted(found)


@settings(max_examples=60, deadline=None)
@given(model=models, engine=pooled, share=st.integers(30, 90), more=st.integers(1, 8), tp=sizes)
def test_a_larger_share_of_the_device_never_holds_fewer_tokens(
    model: Model, engine: tuple[str, str | None], share: int, more: int, tp: int
) -> None:
    name = {"sglang": "mem_fraction_static", "tensorrt_llm": "free_gpu_memory_fraction"}.get(
        engine[0], "gpu_memory_utilization"
    )
    small, large = (
        plan(model, engine, None, tensor_parallel_size=tp, **{name: size / 100}) for size in (share, share + more)
    )

    assert large.kv_cache_tokens >= small.kv_cache_tokens
    assert large.kv_cache_tokens_low >= small.kv_cache_tokens_low


@settings(max_examples=60, deadline=None)
@given(model=models, engine=engines, offload=st.integers(0, 20), more=st.integers(1, 20))
def test_more_on_the_host_never_takes_more_of_the_device(
    model: Model, engine: tuple[str, str | None], offload: int, more: int
) -> None:
    less, most = (plan(model, engine, cpu_offload_gb=float(size)) for size in (offload, offload + more))

    assert most.per_rank[0].weights_bytes <= less.per_rank[0].weights_bytes
    assert most.kv_cache_tokens >= less.kv_cache_tokens


@settings(max_examples=40, deadline=None)
@given(model=models, layers=st.integers(1, 61))
def test_fewer_layers_of_llamacpp_on_the_device_never_take_more_of_it(model: Model, layers: int) -> None:
    fewer, more = (plan(model, ("llamacpp", "b11549"), n_gpu_layers=count) for count in (layers, layers + 1))

    assert fewer.per_rank[0].weights_bytes <= more.per_rank[0].weights_bytes
    assert sum(rank.weights_bytes for rank in fewer.per_rank) == pytest.approx(
        sum(rank.weights_bytes for rank in more.per_rank), rel=1e-6
    )


@settings(max_examples=60, deadline=None)
@given(model=models, engine=pooled, count=sizes)
def test_more_devices_never_hold_less_in_all(model: Model, engine: tuple[str, str | None], count: int) -> None:
    """A replica on each of them, or one model spread over them, which frees what its copies would take."""
    one = plan(model, engine)
    replicas = plan(model, engine, data_parallel_size=count, hardware=Hardware(accelerator="x", count=count))
    spread = plan(model, engine, tensor_parallel_size=count)

    assert replicas.kv_cache_tokens * count >= one.kv_cache_tokens
    assert spread.kv_cache_tokens >= one.kv_cache_tokens


@settings(max_examples=40, deadline=None)
@given(model=models, engine=pooled, requests=st.integers(1, 512), more=st.integers(1, 512))
def test_more_requests_of_a_step_never_leave_a_larger_pool(
    model: Model, engine: tuple[str, str | None], requests: int, more: int
) -> None:
    few, many = (plan(model, engine, max_num_seqs=count) for count in (requests, requests + more))

    assert many.per_rank[0].kv_cache_bytes <= few.per_rank[0].kv_cache_bytes


@settings(max_examples=60, deadline=None)
@given(model=models, engine=engines, tp=sizes, pp=sizes)
def test_every_term_lies_in_its_interval(model: Model, engine: tuple[str, str | None], tp: int, pp: int) -> None:
    found = plan(model, engine, h100(), tensor_parallel_size=tp, pipeline_parallel_size=pp)

    assert found.kv_cache_tokens_low <= found.kv_cache_tokens <= found.kv_cache_tokens_high
    assert found.max_concurrency_low <= found.max_concurrency <= found.max_concurrency_high
    for rank in found.per_rank:
        assert 0 <= rank.low_bytes <= rank.total_bytes <= rank.high_bytes
        for name, term in rank.terms.items():
            assert 0 <= term.low <= term.bytes <= term.high, name


@settings(max_examples=20, deadline=None)
@given(engine=pooled, ranks=st.sampled_from([1, 2, 4, 8]))
def test_context_parallel_ranks_hold_as_many_times_the_tokens(engine: tuple[str, str | None], ranks: int) -> None:
    """Each keeps its part of the sequence: the latent is not divided by tensor parallelism."""
    if engine[0] != "vllm":
        return
    one, many = (
        plan(deepseek_r1("fp8"), engine, tensor_parallel_size=8, decode_context_parallel_size=size)
        for size in (1, ranks)
    )

    assert many.kv_cache_tokens == pytest.approx(ranks * one.kv_cache_tokens, rel=0.02)
