"""What vLLM takes beside its pool, against logs of jgchn/llm-d-planner (branch accuracy): vLLM 0.15 to 0.19 on H100."""

from typing import Any

import pytest

from servolt.deployment import Deployment, Hardware
from servolt.model import Part
from servolt.plan.memory.budget import Term
from servolt.plan.memory.emulate import budget_of
from tests.plan.memory.shapes import (
    GIB,
    b200,
    codellama_7b,
    gemma_2_27b,
    gib,
    gpt_oss,
    h100,
    kimi_vl_text,
    llama_3_1_8b,
    qwen2_5,
    qwen3_14b,
    vllm,
)
from tests.plan.published import qwen3_30b_a3b

QWEN_72B = (80, 8192, 29568, 64, 8)


# Weights, peak activation, non-torch memory and what is left for the pool, GiB.
@pytest.mark.parametrize(
    ("model", "settings", "weights", "activation", "overhead", "pool"),
    [
        (llama_3_1_8b, {}, 14.99, 1.89, 0.25, 58.11),
        (llama_3_1_8b, {"tensor_parallel_size": 2}, 7.51, 1.89, 2.07, 63.76),
        (llama_3_1_8b, {"tensor_parallel_size": 4}, 3.77, 1.89, 2.13, 67.44),
        (llama_3_1_8b, {"dtype": "float16"}, 14.99, 1.89, 0.25, 58.11),
        (codellama_7b, {}, 12.56, 0.77, 0.25, 61.66),
        (qwen2_5, {}, 14.25, 2.21, 0.24, 58.53),
        (qwen2_5, {"tensor_parallel_size": 4}, 3.55, 2.21, 2.13, 67.34),
        (lambda: qwen2_5(*QWEN_72B), {"tensor_parallel_size": 2}, 67.80, 2.29, 2.09, 3.04),
        (lambda: qwen2_5(*QWEN_72B), {"tensor_parallel_size": 4}, 34.01, 2.29, 2.21, 36.72),
        (gemma_2_27b, {}, 50.72, 3.66, 0.26, 20.59),
        (gpt_oss, {"max_cudagraph_capture_size": 1024}, 13.64, 2.87, 0.25, 58.47),
        (gpt_oss, {"tensor_parallel_size": 2}, 7.01, 2.87, 2.07, 63.28),
        (qwen3_14b, {"engine_version": "0.15.0"}, 27.52, 5.64, 0.13, 41.94),
        (qwen3_14b, {"engine_version": "0.17.0"}, 27.52, 2.23, 0.14, 45.34),
        (qwen3_14b, {"engine_version": "0.18.0"}, 27.52, 2.23, 0.25, 45.23),
    ],
)
def test_the_terms_are_those_of_the_log(
    model: Any, settings: dict[str, Any], weights: float, activation: float, overhead: float, pool: float
) -> None:
    found = vllm(model(), **settings)

    assert gib(found, "weights") == pytest.approx(weights, abs=0.04)
    assert gib(found, "activation") == pytest.approx(activation, abs=0.05)
    assert gib(found, "overhead") == pytest.approx(overhead, abs=0.09)
    assert gib(found, "kv_cache") == pytest.approx(pool, abs=0.12)


def test_the_buffers_of_experts_stay() -> None:
    """Kimi-VL's language model: 8,192 tokens x 6 experts x (2,048 + 2,816) x 2 B on one rank; the log has 2.92 GiB with
    its images.
    """
    one, two = (vllm(kimi_vl_text(), tensor_parallel_size=number) for number in (1, 2))

    assert gib(one, "activation") - gib(two, "activation") == pytest.approx(0.07, abs=0.005)
    assert "0.45 GiB of buffers stay" in one.per_rank[0].terms["activation"].formula


def test_the_first_stage_does_not_sample() -> None:
    found = vllm(llama_3_1_8b(), pipeline_parallel_size=2)

    assert gib(found, "activation", 0) == pytest.approx(1.10, abs=0.1)
    assert gib(found, "activation", 1) == pytest.approx(1.89 + 0.125, abs=0.03)


@pytest.mark.parametrize(
    ("label", "visible_gib", "version", "tokens", "requests"),
    [
        ("NVIDIA H100", 79.19, "0.19.0", 8192, 1024),
        ("NVIDIA A100-SXM4-80GB", 79.15, "0.19.0", 2048, 256),
        ("NVIDIA L40S", 44.42, "0.33.0", 2048, 256),
        ("NVIDIA B200", 178.4, "0.33.0", 16384, 1024),
        ("NVIDIA GB10 (DGX Spark)", 121.7, "0.33.0", 2048, 256),
    ],
)
def test_a_step_is_as_large_as_the_device_suggests(
    label: str, visible_gib: float, version: str, tokens: int, requests: int
) -> None:
    device = h100().model_copy(update={"name": label, "visible_memory_bytes": round(visible_gib * GIB)})
    found = vllm(llama_3_1_8b(), device, engine_version=version)

    assert (found.max_num_batched_tokens, found.max_num_seqs) == (tokens, requests)


def test_throughput_mode_doubles_the_defaults_and_nothing_that_is_asked_for() -> None:
    found = vllm(llama_3_1_8b(), max_num_seqs=64, engine_args={"performance-mode": "throughput"})

    assert (found.max_num_batched_tokens, found.max_num_seqs) == (16384, 64)


def test_without_chunks_a_step_holds_a_whole_sequence() -> None:
    assert vllm(llama_3_1_8b(), max_model_len=32768, enable_chunked_prefill=False).max_num_batched_tokens == 32768


def test_utilisation_is_the_versions_own_unless_it_is_asked_for() -> None:
    old, new = (
        vllm(llama_3_1_8b(), gpu_memory_utilization=None, engine_version=version) for version in ("0.19.0", "0.20.2")
    )

    def sum_of(budget: Any) -> float:
        return sum(gib(budget, term) for term in ("weights", "activation", "overhead", "kv_cache"))

    assert sum_of(old) == pytest.approx(0.90 * 79.19, abs=0.01)
    assert 0.92 * 79.19 - 1.1 < sum_of(new) < 0.92 * 79.19 - 0.6  # less the graphs' estimate


def test_graphs_leave_the_pool_alone_until_0_19_and_come_on_top() -> None:
    graphs, eager = (vllm(llama_3_1_8b(), enforce_eager=is_eager) for is_eager in (False, True))

    assert gib(graphs, "graph") == pytest.approx(0.91, abs=0.15)
    assert gib(eager, "graph") == 0
    assert graphs.kv_cache_tokens == eager.kv_cache_tokens


def test_experts_take_more_once_they_run() -> None:
    """gpt-oss-20b on an H100 at 0.95 ran out of memory after its graphs were captured; Llama 3.1 8B did not."""
    experts, dense = (vllm(model, max_cudagraph_capture_size=1024).per_rank[0] for model in (gpt_oss(), llama_3_1_8b()))

    assert experts.available_bytes is not None
    assert experts.total_bytes < experts.available_bytes < experts.high_bytes
    assert dense.high_bytes < experts.available_bytes


def test_graphs_are_taken_from_the_pool_since_0_20() -> None:
    graphs, eager = (
        vllm(llama_3_1_8b(), engine_version="0.20.2", enforce_eager=is_eager) for is_eager in (False, True)
    )
    fewer = vllm(llama_3_1_8b(), engine_version="0.20.2", max_cudagraph_capture_size=64)

    assert graphs.kv_cache_tokens < fewer.kv_cache_tokens < eager.kv_cache_tokens


def test_images_wait_in_memory_unless_none_may_come() -> None:
    tower = Part(component="vision", parameters=417_000_000, bytes=834e6, dtype="bfloat16")
    seeing = llama_3_1_8b().model_copy(update={"parts": (*llama_3_1_8b().parts, tower)})
    found, text_only = vllm(seeing), vllm(seeing, limit_mm_per_prompt={"image": 0})

    assert gib(found, "weights") - gib(text_only, "weights") == pytest.approx(834e6 / GIB, abs=0.001)
    assert gib(found, "activation") > gib(text_only, "activation") + 0.09


def test_positions_that_are_stretched_take_a_longer_table() -> None:
    """Gemma 3 4B stretches 131,072 positions of 256 by 8, beside 131,072 plain ones: 0.56 GiB that vLLM 0.19.0 logs on
    top of its tensors.
    """
    metadata = {"rope.type": "linear", "rope.factor": 8.0, "rope.caches": 2}
    plain = gemma_2_27b().model_copy(update={"max_position_embeddings": 131_072, "metadata": {}})
    stretched = plain.model_copy(update={"metadata": metadata})

    assert gib(vllm(stretched), "weights") - gib(vllm(plain), "weights") == pytest.approx(8 / 32, abs=0.001)


def test_what_a_log_says_replaces_the_formula() -> None:
    found = vllm(llama_3_1_8b(), known={"weights": 15.5 * GIB, "activation": 2.0 * GIB, "overhead": 0.3 * GIB})

    assert gib(found, "weights") == 15.5
    assert gib(found, "kv_cache") == pytest.approx(79.19 * 0.95 - 17.8, abs=0.01)
    assert found.per_rank[0].terms["weights"].basis == "measured"
    assert found.kv_cache_tokens_low == found.kv_cache_tokens == found.kv_cache_tokens_high


def test_a_calibrated_term_keeps_its_own_interval() -> None:
    term = Term(bytes=2 * GIB, low=GIB, high=3 * GIB, basis="calibrated", formula="two logs")
    found = vllm(llama_3_1_8b(), known={"activation": term})

    assert found.per_rank[0].terms["activation"] == term
    assert (found.kv_cache_tokens_high - found.kv_cache_tokens_low) * 131_072 > 1.9 * GIB


def test_known_graphs_are_what_this_version_subtracts() -> None:
    settings: dict[str, Any] = {"engine_version": "0.20.2"}
    none, some = (vllm(llama_3_1_8b(), known={"graph": size}, **settings) for size in (0.0, 2.0 * GIB))

    assert (none.kv_cache_tokens - some.kv_cache_tokens) * 131_072 == pytest.approx(2 * GIB, rel=0.01)


def test_intervals_hold_what_was_logged() -> None:
    found = vllm(llama_3_1_8b())

    assert found.kv_cache_tokens_low <= 476_016 <= found.kv_cache_tokens_high
    assert found.kv_cache_tokens_high / found.kv_cache_tokens_low < 1.02


@pytest.mark.parametrize(
    "settings",
    [{"engine_version": "0.33.0"}, {"engine_version": "0.8.5"}, {"engine_version": "0.99.0"}, {"engine_version": None}],
)
def test_versions_without_logs_are_wider(settings: dict[str, Any]) -> None:
    def width(**more: Any) -> float:
        found = vllm(llama_3_1_8b(), **more)
        return found.kv_cache_tokens_high / found.kv_cache_tokens_low

    assert width(**settings) > width()


def test_devices_without_logs_are_wider() -> None:
    known, other = vllm(llama_3_1_8b()), vllm(llama_3_1_8b(), h100().model_copy(update={"architecture": "Ampere"}))

    assert other.kv_cache_tokens_low < known.kv_cache_tokens_low
    assert other.kv_cache_tokens_high > known.kv_cache_tokens_high


def test_memory_that_only_the_label_tells_is_assumed_and_said() -> None:
    labelled = h100().model_copy(update={"visible_memory_bytes": None})
    found = vllm(llama_3_1_8b(), labelled)

    assert any("98% of the memory on its label" in note for note in found.notes)
    assert found.kv_cache_tokens_low < vllm(llama_3_1_8b()).kv_cache_tokens_low


def test_memory_that_is_stated_goes_before_the_catalogue() -> None:
    deployment = Deployment(
        model="m", engine="vllm", engine_version="0.19.0", hardware=Hardware(accelerator="H100", memory_bytes=40 * GIB)
    )
    found = budget_of(deployment, llama_3_1_8b(), h100())

    assert found.per_rank[0].available_bytes is not None
    assert found.per_rank[0].available_bytes < 40 * GIB


def test_ranks_that_are_alike_stand_there_once() -> None:
    found = vllm(qwen3_30b_a3b(), tensor_parallel_size=4, pipeline_parallel_size=2)

    assert [(rank.rank, rank.ranks) for rank in found.per_rank] == [("pp0", 4), ("pp1", 4)]


def test_packed_experts_are_padded_for_the_devices_kernels() -> None:
    """gpt-oss-20b holds 12.82 GiB of tensors; vLLM 0.19.0 on an H100 loads 13.64."""
    hopper, blackwell = (gib(vllm(gpt_oss(), device), "weights") for device in (h100(), b200()))

    assert hopper == pytest.approx(13.64, abs=0.05)
    assert blackwell > hopper


def test_the_totals_are_sums_and_lie_within_their_bounds() -> None:
    rank = vllm(llama_3_1_8b()).per_rank[0]

    assert rank.total_bytes == sum(term.bytes for term in rank.terms.values())
    assert rank.low_bytes <= rank.total_bytes <= rank.high_bytes
    assert rank.available_bytes == pytest.approx(78.68 * GIB, rel=0.001)  # "Initial free memory" of the same log


def test_a_latent_is_tried_with_eight_requests_of_full_length_up_to_65_536_tokens() -> None:
    """vllm 0.19.0 mla_attention.py determine_chunked_prefill_workspace_size; 16 heads of 128 + 128 in bf16."""
    asked: Any = {"max_num_seqs": 64, "max_num_batched_tokens": 2048, "enforce_eager": True}
    short, long, longer = (
        vllm(kimi_vl_text(), max_model_len=size, **asked).per_rank[0].activation_bytes for size in (4096, 8192, 32_768)
    )

    assert long - short == pytest.approx(32_768 * 16 * 256 * 2, rel=0.01)
    assert longer == long


def test_with_an_indexer_entries_are_gathered_and_nothing_is_projected_up() -> None:
    """flashmla_sparse of vLLM: room for 5 requests of full length, 576 x 2 B each: 900 MiB at 163,840 tokens."""
    base = kimi_vl_text()
    kinds = tuple(kind.model_copy(update={"mixer": "dsa", "index_head_dim": 128}) for kind in base.layers)
    sparse = base.model_copy(update={"layers": kinds, "max_position_embeddings": 163_840})
    short, long = (
        vllm(sparse, max_model_len=size, enforce_eager=True).per_rank[0].activation_bytes for size in (8192, 163_840)
    )

    assert long - short == pytest.approx(5 * (163_840 - 8192) * 576 * 2, rel=0.01)


def test_chunks_of_attention_keep_all_tokens_where_the_version_has_no_groups_for_them() -> None:
    """Llama 4 in vLLM from 0.10 to 0.12, and with EAGLE in any: pull request 21761."""
    base = llama_3_1_8b()
    full = base.layers[0].model_copy(update={"count": 8})
    chunked = full.model_copy(update={"count": 24, "mixer": "chunked", "window": 8192})
    model = base.model_copy(update={"layers": (chunked, full), "layer_order": (0, 0, 0, 1) * 8})
    eagle: Any = {"method": "eagle", "num_speculative_tokens": 2}
    common: Any = {"max_model_len": 131_072, "kv_cache_memory_bytes": 40 * GIB}
    old, new, drafting, off = (
        vllm(model, engine_version=version, **common, **more).max_concurrency
        for version, more in (
            ("0.11.2", {}),
            ("0.19.0", {}),
            ("0.19.0", {"speculative_config": eagle}),
            ("0.19.0", {"engine_args": {"disable_hybrid_kv_cache_manager": True}}),
        )
    )

    assert old == off == pytest.approx(40 * GIB / (131_072 * 131_072), rel=0.001)
    assert drafting < old
    assert new > 2 * old


def test_towers_that_feed_several_layers_hand_out_as_many_rows_more() -> None:
    """Qwen3-VL: three layers of its tower; 16,384 tokens of an image, and inputs for 8,192 tokens of a step."""
    tower = Part(component="vision", parameters=400_000_000, bytes=800_000_000, dtype="bfloat16", sharding="tensor")
    said: dict[str, Any] = {"vision.patch_size": 16, "vision.merge_size": 2, "vision.temporal_patch_size": 2}
    base = qwen3_30b_a3b()
    plain, stacked = (
        vllm(base.model_copy(update={"parts": (*base.parts, tower), "metadata": {**said, **more}}), enforce_eager=True)
        .per_rank[0]
        .activation_bytes
        for more in ({}, {"vision.deepstack": 3})
    )

    assert stacked - plain == pytest.approx(3 * (16_384 + 8192) * 2048 * 2, rel=0.01)
