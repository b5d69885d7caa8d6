from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servolt.deployment import Deployment, Hardware
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.model.quantization import requantized
from servolt.plan.memory.budget import Budget, RankMemory, Term
from servolt.plan.memory.emulate import budget_of
from servolt.plan.remedies import fixes_of
from servolt.plan.room import (
    best_quantization,
    fitting_accelerators,
    largest_concurrency,
    largest_max_model_len,
    largest_that,
)
from servolt.plan.verdict import Fix, binding_of, fits, reasons_of, verdict_of
from tests.plan.published import GIB, accelerator, llama_3_8b, qwen3_30b_a3b, qwen3_32b

CARD, SMALL = accelerator(80, "9.0"), accelerator(24, "8.6")


def vllm(**asked: Any) -> Deployment:
    return Deployment(model="m", engine="vllm", engine_version="0.19.0", **asked)


def llamacpp(**asked: Any) -> Deployment:
    chosen: dict[str, Any] = {"engine_version": "b11549", "max_num_seqs": 1, **asked}
    return Deployment(model="m", engine="llamacpp", **chosen)


def plain(total: int, high: int, available: int | None, *, concurrency: float = 1.0, least: float = 1.0) -> Budget:
    """One device, one term."""
    term = Term(bytes=total, low=total, high=high, basis="formula", formula="made up")
    rank = RankMemory.of("gpu0", {"weights": term}, available_bytes=available)
    return Budget(
        per_rank=(rank,),
        pooled=concurrency != 1.0,
        kv_bytes_per_token=1,
        kv_cache_tokens=1000,
        kv_cache_tokens_low=1000,
        kv_cache_tokens_high=1000,
        max_concurrency=concurrency,
        max_concurrency_low=least,
        max_concurrency_high=concurrency,
        max_model_len=1000,
        max_num_seqs=1,
        max_num_batched_tokens=1,
        binding="weights",
    )


@pytest.mark.parametrize(
    ("budget", "verdict"),
    [
        (plain(10, 12, 12), "fits"),
        (plain(10, 12, 11), "tight"),
        (plain(10, 12, 9), "no"),
        (plain(10, 12, None), "tight"),
        (plain(10, 12, 12, concurrency=1.2, least=0.9), "tight"),
        (plain(10, 12, 12, concurrency=0.9, least=0.8), "no"),
    ],
)
def test_the_verdict_needs_both_the_memory_and_one_request(budget: Budget, verdict: str) -> None:
    assert verdict_of(budget) == verdict


def test_what_binds_is_said_with_its_numbers() -> None:
    budget = budget_of(vllm(), llama_3_8b(), SMALL)
    assert verdict_of(budget) == "no"
    assert binding_of(budget).startswith("the pool: ")
    assert "requests of 131,072" in binding_of(budget)
    assert any("weights 15.0 GiB" in reason for reason in reasons_of(budget))
    large = budget_of(llamacpp(max_model_len=8192), qwen3_32b("q8_0"), SMALL)
    assert binding_of(large).startswith("weights on gpu0: 31.7 GiB")


def changed(deployment: Deployment, model: Model, fix: Fix) -> tuple[Deployment, Model]:
    """The deployment and the model that a fix stands for."""
    fields: dict[str, Any] = dict(fix.change)
    other = requantized(model, str(fields.pop("quantization"))) if "quantization" in fields else model
    if "hardware.count" in fields:
        fields["hardware"] = Hardware(count=fields.pop("hardware.count"))
    return deployment.model_copy(update=fields), other


@pytest.mark.parametrize(
    ("deployment", "model", "card"),
    [
        (vllm(), llama_3_8b(), SMALL),
        (vllm(), qwen3_32b(), CARD),
        (vllm(max_model_len=32768), qwen3_32b(), SMALL),
        (llamacpp(max_model_len=32768, max_num_seqs=4), qwen3_32b("q4_k_m"), SMALL),
        (llamacpp(max_model_len=32768), qwen3_30b_a3b("q8_0"), SMALL),
        (Deployment(model="m", engine="sglang"), qwen3_32b(), SMALL),
        (Deployment(model="m", engine="tensorrt_llm"), qwen3_32b(), SMALL),
        (Deployment(model="m", engine="transformers"), qwen3_32b(), accelerator(64)),
    ],
)
def test_every_fix_is_what_its_own_plan_says(deployment: Deployment, model: Model, card: Accelerator) -> None:
    budget = budget_of(deployment, model, card)
    assert verdict_of(budget) != "fits"
    fixes = fixes_of(deployment, model, card, budget)
    assert fixes
    for fix in fixes:
        again = budget_of(*changed(deployment, model, fix), card)
        assert (again.total_bytes, verdict_of(again)) == (fix.total_bytes, fix.verdict)
    order = ["fits", "tight", "no"]
    assert [fix.verdict for fix in fixes] == sorted((fix.verdict for fix in fixes), key=order.index)


def test_nothing_is_proposed_where_it_fits() -> None:
    budget = budget_of(vllm(max_model_len=8192), llama_3_8b(), CARD)
    assert verdict_of(budget) == "fits"
    assert fixes_of(vllm(max_model_len=8192), llama_3_8b(), CARD, budget) == ()


def test_the_cheapest_that_is_enough_comes_first() -> None:
    deployment = vllm()
    budget = budget_of(deployment, qwen3_32b(), CARD)
    first, *rest = [fix for fix in fixes_of(deployment, qwen3_32b(), CARD, budget) if fix.verdict == "fits"]
    assert first.change == {"gpu_memory_utilization": 0.95}
    assert "then it fits" in first.text
    costs = [str(fix.cost) for fix in (first, *rest)]
    order = [
        "nothing",
        "concurrency",
        "prefill speed",
        "precision of the cache",
        "context",
        "speed",
        "quality",
        "devices",
        "most of the speed",
    ]
    assert costs == sorted(costs, key=order.index)
    assert {"precision of the cache", "context", "quality", "devices", "most of the speed"} <= set(costs)
    assert "--count 2" in rest[-2].text
    assert "--cpu-offload-gb" in rest[-1].text


def test_where_no_single_change_is_enough_two_are_proposed() -> None:
    deployment = vllm(max_model_len=131072)
    model = llama_3_8b()
    tiny = accelerator(12, "9.0")
    fixes = fixes_of(deployment, model, tiny, budget_of(deployment, model, tiny))
    both = [fix for fix in fixes if fix.verdict == "fits" and len(fix.change) > 1]
    assert both
    assert any({"quantization", "max_model_len"} <= set(fix.change) for fix in both)


def test_experts_go_to_the_host_before_whole_layers() -> None:
    deployment = llamacpp(max_model_len=32768)
    model = qwen3_30b_a3b("q8_0")
    fixes = fixes_of(deployment, model, SMALL, budget_of(deployment, model, SMALL))
    to_host = next(fix for fix in fixes if "n_cpu_moe" in fix.change)
    assert to_host.verdict == "fits"
    one_less = {"n_cpu_moe": int(to_host.change["n_cpu_moe"]) - 1}
    assert verdict_of(budget_of(deployment.model_copy(update=one_less), model, SMALL)) != "fits"


def test_the_longest_context_fits_and_the_next_does_not() -> None:
    for deployment, model in ((vllm(), llama_3_8b()), (llamacpp(), llama_3_8b("q8_0"))):
        length = largest_max_model_len(deployment, model, SMALL, budget_of)
        assert length is not None
        assert fits(budget_of(deployment.model_copy(update={"max_model_len": length}), model, SMALL))
        assert not fits(budget_of(deployment.model_copy(update={"max_model_len": length + 256}), model, SMALL))
    assert largest_max_model_len(vllm(), qwen3_32b(), SMALL, budget_of) is None


def test_a_model_with_room_to_spare_is_bound_by_its_training() -> None:
    assert largest_max_model_len(vllm(), llama_3_8b(), CARD, budget_of) == 131072


def test_the_most_requests_of_a_length() -> None:
    pooled = largest_concurrency(vllm(), llama_3_8b(), CARD, budget_of, 8192)
    assert pooled == int(budget_of(vllm(max_model_len=8192), llama_3_8b(), CARD).max_concurrency_low)
    slots = largest_concurrency(llamacpp(), llama_3_8b("q8_0"), SMALL, budget_of, 8192)
    assert fits(budget_of(llamacpp(max_model_len=8192, max_num_seqs=slots), llama_3_8b("q8_0"), SMALL))
    assert not fits(budget_of(llamacpp(max_model_len=8192, max_num_seqs=slots + 1), llama_3_8b("q8_0"), SMALL))
    assert largest_concurrency(vllm(), qwen3_32b(), SMALL, budget_of, 8192) == 0


def test_the_format_with_the_most_bits_that_fits() -> None:
    asked = llamacpp(max_model_len=8192)
    assert best_quantization(asked, qwen3_32b("f16"), SMALL, budget_of) == "q4_k_m"
    assert best_quantization(asked, llama_3_8b("q8_0"), SMALL, budget_of) == "q8_0"
    assert best_quantization(vllm(max_model_len=8192), qwen3_32b(), CARD, budget_of) == "bfloat16"
    assert best_quantization(vllm(max_model_len=8192), qwen3_32b(), accelerator(48, "8.9"), budget_of) == "fp8"
    assert best_quantization(asked, qwen3_32b("f16"), accelerator(8), budget_of) is None


def test_the_smallest_device_and_with_prices_the_cheapest() -> None:
    cards = [accelerator(size, "9.0") for size in (141, 24, 80, 48)]
    asked = vllm(max_model_len=8192)
    found = fitting_accelerators(asked, llama_3_8b(), cards, budget_of)
    assert [round(one.accelerator.memory_bytes / GIB) for one in found] == [24, 48, 80, 141]
    prices = {cards[2].name: 1.5, cards[3].name: 2.0}
    priced = fitting_accelerators(asked, llama_3_8b(), cards, budget_of, prices=prices)
    assert [round(one.accelerator.memory_bytes / GIB) for one in priced] == [80, 48, 24, 141]
    assert fitting_accelerators(asked, qwen3_32b(), cards[1:2], budget_of) == []


@settings(max_examples=100, deadline=None)
@given(least=st.integers(-50, 50), width=st.integers(0, 200), border=st.integers(-100, 300))
def test_the_search_finds_the_border(least: int, width: int, border: int) -> None:
    found = largest_that(lambda number: number <= border, least, least + width)
    assert found == (None if border < least else min(border, least + width))


@settings(max_examples=15, deadline=None)
@given(gib=st.floats(20, 90), length=st.integers(2, 200))
def test_more_memory_never_takes_room_away(gib: float, length: int) -> None:
    smaller, larger = accelerator(gib, "9.0"), accelerator(gib + 4, "9.0")
    for deployment in (vllm(max_model_len=length * 256), llamacpp(max_model_len=length * 256)):
        model = llama_3_8b("q8_0" if deployment.engine == "llamacpp" else None)
        order = ["no", "tight", "fits"]
        before, after = (verdict_of(budget_of(deployment, model, card)) for card in (smaller, larger))
        assert order.index(after) >= order.index(before)
        longest = [largest_max_model_len(deployment, model, card, budget_of) or 0 for card in (smaller, larger)]
        assert longest[1] >= longest[0]


def test_llamacpp_is_offered_no_more_devices_than_it_takes() -> None:
    """ggml-cuda.h: GGML_CUDA_MAX_DEVICES, 16."""
    deployment = llamacpp(max_model_len=8192, hardware=Hardware(accelerator="x", count=4))
    card = SMALL.model_copy(update={"count": 4, "visible_memory_bytes": 2 * GIB, "memory_bytes": 2 * GIB})
    budget = budget_of(deployment, qwen3_32b("q8_0"), card)
    counts = [fix.change.get("hardware.count", 0) for fix in fixes_of(deployment, qwen3_32b("q8_0"), card, budget)]

    assert max(int(count) for count in counts) in range(1, 17)
