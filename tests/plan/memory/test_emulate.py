from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servolt.deployment import Deployment
from servolt.errors import InvalidInputError
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.model.layers import LayerKind
from servolt.plan.memory.budget import Budget
from servolt.plan.memory.emulate import FORMULAS, budget_of
from servolt.plan.memory.profiles import profile_of, profiled_engines
from tests.plan.memory.shapes import (
    GIB,
    b200,
    gemma_2_27b,
    gib,
    gpt_oss,
    h100,
    kimi_vl_text,
    llama_3_1_8b,
    qwen2_5,
    qwen3_6_35b_a3b,
)
from tests.plan.published import deepseek_r1, gemma_3_27b, qwen3_30b_a3b

MODELS = [
    llama_3_1_8b(),
    qwen2_5(),
    gemma_2_27b(),
    gemma_3_27b(),
    gpt_oss(),
    kimi_vl_text(),
    qwen3_30b_a3b(),
    qwen3_6_35b_a3b(),
]
ENGINES = ("vllm", "sglang", "an-engine-of-tomorrow")


def plan(model: Model, device: Accelerator | None = None, **chosen: Any) -> Budget:
    return budget_of(Deployment(model="m", **chosen), model, device or b200())


def test_every_profile_names_an_arithmetic_that_exists() -> None:
    for engine in profiled_engines():
        profile = profile_of(engine, None)
        assert profile is not None
        assert profile.formula in FORMULAS


def test_an_unknown_engine_is_planned_as_one_that_pools_what_is_left() -> None:
    known, unknown = (plan(llama_3_1_8b(), h100(), engine=engine) for engine in ("vllm", "an-engine-of-tomorrow"))

    assert unknown.notes[0] == (
        "The memory of an-engine-of-tomorrow is not known: planned as an engine that pools what is left."
    )
    assert unknown.kv_cache_tokens == pytest.approx(known.kv_cache_tokens, rel=0.2)
    spread = [found.kv_cache_tokens_high - found.kv_cache_tokens_low for found in (known, unknown)]
    assert spread[1] > spread[0]


@pytest.mark.parametrize("engine", ENGINES)
def test_an_unknown_cache_type_is_refused(engine: str) -> None:
    with pytest.raises(InvalidInputError, match="kv_cache_dtype 'q7' is not known"):
        plan(llama_3_1_8b(), engine=engine, kv_cache_dtype="q7")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "kind",
    [
        {"mixer": "full", "num_heads": 8, "num_kv_heads": 8, "head_dim_k": 64, "head_dim_v": 64},
        {"mixer": "sliding", "num_heads": 8, "num_kv_heads": 2, "head_dim_k": 64, "head_dim_v": 64, "window": 512},
        {"mixer": "chunked", "num_heads": 8, "num_kv_heads": 2, "head_dim_k": 64, "head_dim_v": 64, "window": 8192},
        {"mixer": "mla", "num_heads": 8, "head_dim_k": 96, "head_dim_v": 64, "kv_lora_rank": 256, "rope_head_dim": 32},
        {
            "mixer": "dsa",
            "num_heads": 8,
            "head_dim_k": 96,
            "kv_lora_rank": 256,
            "rope_head_dim": 32,
            "index_head_dim": 64,
        },
        {"mixer": "gdn", "conv_elements": 1024, "conv_kernel": 4, "state_elements": 65536},
        {"mixer": "kda", "conv_elements": 1024, "conv_kernel": 4, "state_elements": 65536},
        {"mixer": "mamba1", "conv_elements": 1024, "conv_kernel": 4, "state_elements": 16384},
        {"mixer": "mamba2", "conv_elements": 1024, "conv_kernel": 4, "state_elements": 65536},
        {"mixer": "shortconv", "conv_elements": 1024, "conv_kernel": 3},
        {"mixer": "none", "intermediate_size": 4096},
    ],
    ids=lambda kind: kind["mixer"],
)
@pytest.mark.parametrize("beside_attention", [False, True])
def test_every_kind_of_layer_gets_an_answer(engine: str, kind: dict[str, Any], beside_attention: bool) -> None:
    base = llama_3_1_8b()
    kinds = (
        LayerKind(count=4, **kind),
        *([base.layers[0].model_copy(update={"count": 2})] if beside_attention else []),
    )
    order = (0, 0, 0, 0, 1, 1) if beside_attention else (0, 0, 0, 0)
    model = base.model_copy(update={"layers": kinds, "layer_order": order, "num_layers": len(order)})
    for name in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"):
        parallel: dict[str, Any] = {name: 2}
        found = plan(model, engine=engine, max_model_len=8192, **parallel)

        assert found.kv_cache_tokens_low <= found.kv_cache_tokens <= found.kv_cache_tokens_high
        assert found.max_concurrency > 0


@pytest.mark.parametrize("engine", ENGINES)
def test_models_of_which_little_is_known_get_a_wide_answer_that_says_so(engine: str) -> None:
    nothing: dict[str, Any] = {"layers": (), "layer_order": (), "parts": ()}
    flat = llama_3_1_8b().model_copy(update=nothing)
    bare = flat.model_copy(update=dict.fromkeys(("num_layers", "num_heads", "num_kv_heads", "head_dim_k"), 0))
    exact, flat_plan, bare_plan = (
        plan(model, engine=engine, max_model_len=8192) for model in (llama_3_1_8b(), flat, bare)
    )

    assert flat_plan.kv_cache_tokens == pytest.approx(exact.kv_cache_tokens, rel=0.05)
    assert any("layers are alike" in note for note in flat_plan.notes)
    assert bare_plan.kv_cache_tokens == pytest.approx(exact.kv_cache_tokens, rel=0.1)
    assert any("32 with grouped queries are assumed" in note for note in bare_plan.notes)
    assert bare_plan.kv_cache_tokens_low < flat_plan.kv_cache_tokens_low < exact.kv_cache_tokens_low


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_fields_of_a_config_that_were_not_understood_widen_the_answer(engine: str) -> None:
    odd = llama_3_1_8b().model_copy(update={"unknown_fields": ("attention_of_tomorrow",)})
    found = plan(odd, engine=engine)

    assert any("attention_of_tomorrow" in note for note in found.notes)
    assert found.kv_cache_tokens_low < plan(llama_3_1_8b(), engine=engine).kv_cache_tokens_low


def test_the_same_device_gives_engines_different_caches() -> None:
    """Llama 3.1 8B on an H100: 50.1 GiB logged by SGLang 0.5.15, 58.1 by vLLM 0.19.0 at 0.95."""
    sglang = plan(llama_3_1_8b(), h100(), engine="sglang", engine_version="0.5.15")
    vllm = plan(
        llama_3_1_8b(), h100(), engine="vllm", engine_version="0.19.0", gpu_memory_utilization=0.95, max_model_len=8192
    )

    assert gib(sglang, "kv_cache") == pytest.approx(50.1, abs=0.1)
    assert gib(vllm, "kv_cache") == pytest.approx(58.11, abs=0.05)


models, engines = st.sampled_from(MODELS), st.sampled_from(ENGINES)
lengths, sizes = st.integers(256, 262_144), st.sampled_from([1, 2, 4, 8])
versions = st.sampled_from([None, "0.19.0", "0.33.0"])


def chosen(engine: str, version: str | None) -> dict[str, Any]:
    return {"engine": engine, "engine_version": version if engine == "vllm" else None}


@settings(max_examples=60)
@given(model=models, engine=engines, version=versions, length=lengths, more=st.integers(1, 262_144))
def test_a_longer_context_never_has_more_users(
    model: Model, engine: str, version: str | None, length: int, more: int
) -> None:
    common = {**chosen(engine, version), "max_num_batched_tokens": 8192, "max_num_seqs": 256}
    short, long = (plan(model, max_model_len=size, **common) for size in (length, length + more))

    assert long.max_concurrency <= short.max_concurrency


@settings(max_examples=60)
@given(model=models, engine=engines, version=versions, tp=sizes)
def test_fewer_bits_of_cache_never_hold_fewer_tokens(model: Model, engine: str, version: str | None, tp: int) -> None:
    common = {**chosen(engine, version), "max_model_len": 8192, "tensor_parallel_size": tp}
    found = [plan(model, kv_cache_dtype=dtype, **common).kv_cache_tokens for dtype in ("bfloat16", "fp8", "nvfp4")]

    assert found == sorted(found)


@settings(max_examples=60)
@given(model=models, engine=engines, version=versions, tp=sizes)
def test_more_ranks_never_take_more_weight_each(model: Model, engine: str, version: str | None, tp: int) -> None:
    one, two = (
        plan(model, max_model_len=8192, tensor_parallel_size=size, **chosen(engine, version)) for size in (tp, 2 * tp)
    )

    assert two.per_rank[0].weights_bytes <= one.per_rank[0].weights_bytes


@settings(max_examples=60)
@given(model=models, engine=st.sampled_from(["vllm", "sglang"]), version=versions, gib_more=st.integers(1, 100))
def test_more_memory_never_holds_fewer_tokens(model: Model, engine: str, version: str | None, gib_more: int) -> None:
    step = {"max_num_batched_tokens": 4096, "max_num_seqs": 128, "max_cudagraph_capture_size": 128}
    common = {**chosen(engine, version), **step, "max_model_len": 8192}
    small = b200().model_copy(update={"visible_memory_bytes": 62 * GIB})  # above it SGLang reserves alike
    large = b200().model_copy(update={"visible_memory_bytes": (62 + gib_more) * GIB})

    assert plan(model, large, **common).kv_cache_tokens >= plan(model, small, **common).kv_cache_tokens


@settings(max_examples=40)
@given(model=models, engine=engines, version=versions, tp=sizes, pp=st.integers(1, 4), length=lengths)
def test_every_answer_lies_in_its_interval(
    model: Model, engine: str, version: str | None, tp: int, pp: int, length: int
) -> None:
    common = {**chosen(engine, version), "tensor_parallel_size": tp, "pipeline_parallel_size": pp}
    found = plan(model, max_model_len=length, **common)

    assert found.kv_cache_tokens_low <= found.kv_cache_tokens <= found.kv_cache_tokens_high
    assert found.max_concurrency_low <= found.max_concurrency <= found.max_concurrency_high
    assert len(found.per_rank) == pp
    for rank in found.per_rank:
        assert rank.low_bytes <= rank.total_bytes <= rank.high_bytes
        assert all(term.low <= term.bytes <= term.high for term in rank.terms.values())


def test_deepseek_on_eight_devices_gets_an_answer_from_every_engine() -> None:
    for engine in ENGINES:
        found = plan(deepseek_r1("fp8"), b200(), engine=engine, tensor_parallel_size=8, max_model_len=8192)

        assert 75 < gib(found, "weights") < 95
        assert found.max_concurrency > 10
