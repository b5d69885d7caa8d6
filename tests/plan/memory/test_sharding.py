from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servolt.deployment import Deployment, Speculation
from servolt.model import Model
from servolt.plan.memory.sharding import GIB, StageWeights, ranks_of, stage_layers, weights_of_rank
from tests.plan.memory.shapes import gpt_oss, kimi_vl_text, llama_3_1_8b, qwen2_5, qwen3_14b


def stages(model: Model, **settings: Any) -> tuple[StageWeights, ...]:
    return weights_of_rank(model, Deployment(model="m", engine="vllm", **settings))


def rank(model: Model, **settings: Any) -> StageWeights:
    (only,) = stages(model, **settings)
    return only


def test_one_rank_holds_the_whole_model() -> None:
    model = llama_3_1_8b()

    assert rank(model).bytes == pytest.approx(model.weights_bytes)


# Loaded weights of a rank in logs of vLLM 0.19.0 on H100 (jgchn/llm-d-planner), less the table of positions.
@pytest.mark.parametrize(("tp", "logged_gib"), [(1, 14.99), (2, 7.51), (4, 3.77)])
def test_matrices_are_divided_and_norms_are_not(tp: int, logged_gib: float) -> None:
    assert rank(llama_3_1_8b(), tensor_parallel_size=tp).bytes / GIB == pytest.approx(logged_gib - 0.031, abs=0.01)


def test_keys_and_values_are_copied_where_there_are_more_ranks_than_heads() -> None:
    model = qwen2_5()
    attention = [rank(model, tensor_parallel_size=tp).components["attention"] for tp in (1, 2, 4, 7, 14)]
    keys = 28 * 2 * (2 * 4 * 128 * 3584 + 2 * 4 * 128)  # 28 layers, K and V of 4 heads with their biases

    assert attention[3] > attention[0] / 7
    assert attention[4] == pytest.approx((attention[0] - keys) / 14 + keys / 4, rel=0.01)


def test_the_vocabulary_is_padded_before_it_is_divided() -> None:
    odd = llama_3_1_8b(vocab_size=128_001)

    assert rank(odd, tensor_parallel_size=2).components["output"] == pytest.approx(128_064 / 2 * 4096 * 2)


def test_the_first_stage_embeds_and_the_last_has_the_head() -> None:
    first, middle, _, last = stages(llama_3_1_8b(), pipeline_parallel_size=4)

    assert "embedding" in first.components
    assert "output" not in first.components
    assert not {"embedding", "output"} & middle.components.keys()
    assert "output" in last.components
    assert (first.start, first.end, last.end) == (0, 8, 32)


def test_a_tied_head_stands_on_both_ends() -> None:
    first, last = stages(llama_3_1_8b(tie_word_embeddings=True), pipeline_parallel_size=2)

    assert first.components["embedding"] == last.components["embedding"]


@pytest.mark.parametrize(
    ("layers", "count", "sizes"),
    [(32, 4, [8, 8, 8, 8]), (61, 4, [15, 15, 16, 15]), (62, 4, [15, 16, 16, 15]), (3, 4, [1, 1, 1, 0])],
)
def test_what_is_left_of_a_division_goes_to_the_stages_before_the_last(
    layers: int, count: int, sizes: list[int]
) -> None:
    """vllm 0.33.0 vllm/distributed/utils.py get_pp_indices."""
    assert [end - start for start, end in stage_layers(layers, count)] == sizes


def test_experts_are_whole_under_expert_parallelism_and_cut_without() -> None:
    model = kimi_vl_text()
    cut = rank(model, tensor_parallel_size=4)
    whole = rank(model, tensor_parallel_size=4, enable_expert_parallel=True)
    uneven = rank(model, tensor_parallel_size=4, expert_parallel_size=3)

    assert whole.components["expert"] == pytest.approx(cut.components["expert"])
    assert uneven.components["expert"] / whole.components["expert"] == pytest.approx(22 / 16)
    assert cut.components["router"] == rank(model).components["router"]


def test_replicas_share_their_experts() -> None:
    one, four = (rank(kimi_vl_text(), data_parallel_size=number) for number in (1, 4))

    assert four.components["expert"] == pytest.approx(one.components["expert"] / 4)
    assert four.components["attention"] == one.components["attention"]


def test_attention_in_parallel_over_data_is_whole_and_so_is_the_embedding() -> None:
    model = kimi_vl_text()
    settings = {"tensor_parallel_size": 4, "data_parallel_size": 4, "enable_dp_attention": True}
    spread, plain = rank(model, **settings), rank(model)

    assert ranks_of(Deployment(model="m", **settings)).attention_tp == 1
    assert spread.components["attention"] == plain.components["attention"]
    assert spread.components["embedding"] == plain.components["embedding"]
    assert spread.components["expert"] == pytest.approx(plain.components["expert"] / 4)
    assert spread.components["output"] == pytest.approx(plain.components["output"] / 4)


def test_offloaded_weights_are_on_the_host() -> None:
    plain, offloaded = rank(llama_3_1_8b()), rank(llama_3_1_8b(), cpu_offload_gb=4)

    assert offloaded.host_bytes == 4 * GIB
    assert offloaded.bytes == plain.bytes - 4 * GIB
    assert rank(llama_3_1_8b(), cpu_offload_gb=100).bytes == pytest.approx(2 * 128256 * 4096 * 2)


def test_adapters_take_a_slot_each() -> None:
    """Rank 64 of Llama 3.1 8B's seven matrices has 168 million parameters (PEFT)."""
    one, two = (rank(llama_3_1_8b(), enable_lora=True, max_loras=number, max_lora_rank=64) for number in (1, 2))

    assert one.components["lora"] / 2 == pytest.approx(168e6, rel=0.03)
    assert two.components["lora"] == 2 * one.components["lora"]


def test_heads_that_guess_tokens_are_weights_too() -> None:
    eagle = rank(qwen3_14b(), speculative_config=Speculation(method="eagle", num_speculative_tokens=3))

    assert eagle.components["draft"] > rank(qwen3_14b()).bytes / 100


def test_a_model_of_unknown_layers_is_divided_evenly() -> None:
    bare = llama_3_1_8b().model_copy(update={"layers": (), "layer_order": (), "parts": ()})

    assert rank(bare, tensor_parallel_size=8).bytes == bare.weights_bytes / 8


@given(model=st.sampled_from([llama_3_1_8b(), qwen2_5(), gpt_oss(), kimi_vl_text()]), tp=st.sampled_from([1, 2, 4, 8]))
def test_more_ranks_never_hold_more_weight_each(model: Model, tp: int) -> None:
    assert rank(model, tensor_parallel_size=2 * tp).bytes < rank(model, tensor_parallel_size=tp).bytes
    sum_of_ranks = 2 * tp * rank(model, tensor_parallel_size=2 * tp).bytes
    assert sum_of_ranks >= model.weights_bytes * 0.999


@given(pp=st.integers(1, 40), layers=st.integers(1, 128))
def test_stages_cover_every_layer_once(pp: int, layers: int) -> None:
    spans = stage_layers(layers, min(pp, layers))

    assert [place for start, end in spans for place in range(start, end)] == list(range(layers))
    sizes = [end - start for start, end in spans]
    assert max(sizes) - min(sizes) <= 1
