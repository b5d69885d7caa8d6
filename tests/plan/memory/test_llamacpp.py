from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servolt.deployment import Deployment, Speculation
from servolt.errors import InvalidInputError
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.plan.memory import memory_of
from servolt.plan.memory.budget import Budget, RankMemory
from servolt.plan.memory.emulate import budget_of
from servolt.plan.memory.llamacpp_builds import build_of
from tests.plan.published import (
    accelerator,
    deepseek_r1,
    gemma_3_27b,
    llama_3_8b,
    qwen3_5_27b,
    qwen3_30b_a3b,
)

MIB = 2**20


def budget(model: Model, devices: int = 1, **settings_: Any) -> Budget:
    chosen: dict[str, Any] = {"engine": "llamacpp", "engine_version": "b11549", "max_num_seqs": 1, **settings_}
    return budget_of(Deployment(model="m", **chosen), model, accelerator(24, "8.6", count=devices))


def by_rank(found: Budget) -> dict[str, RankMemory]:
    return {rank.rank: rank for rank in found.per_rank}


def total(found: Budget, term: str) -> float:
    return float(sum(getattr(rank, f"{term}_bytes") for rank in found.per_rank)) / MIB


# "KV buffer size" as logged: github.com/ggml-org/llama.cpp and ikawrakow/ik_llama.cpp issues and pull requests.
@pytest.mark.parametrize(
    ("model", "asked", "logged_mib"),
    [
        (llama_3_8b, {"max_model_len": 8192}, 1024.0),
        (qwen3_30b_a3b, {"max_model_len": 32768}, 3072.0),
        (deepseek_r1, {"max_model_len": 32768}, 2196.0),
        (deepseek_r1, {"max_model_len": 32768, "kv_cache_dtype": "q8_0"}, 1166.62),
        (deepseek_r1, {"max_model_len": 16384, "engine_version": "b6000"}, 2074.0),
        (deepseek_r1, {"max_model_len": 512, "engine": "ik_llamacpp", "engine_args": {"mla": 0}}, 2440.0),
        (deepseek_r1, {"max_model_len": 8192, "engine": "ik_llamacpp", "engine_args": {"mla": 2}}, 549.0),
        (gemma_3_27b, {"max_model_len": 131072, "engine": "ik_llamacpp"}, 63488.0),
        (qwen3_5_27b, {"max_model_len": 8192}, 512.0),
    ],
)
def test_the_cache_is_the_one_that_the_engine_logs(model: Any, asked: dict[str, Any], logged_mib: float) -> None:
    assert total(budget(model(), **asked), "kv_cache") == pytest.approx(logged_mib, abs=0.01)


def test_a_quantised_cache_may_differ_in_keys_and_values() -> None:
    both = total(budget(llama_3_8b(), max_model_len=4096, kv_cache_dtype="q8_0/q4_0"), "kv_cache")
    assert both == 4096 * 32 * 8 * 128 * (1.0625 + 0.5625) / MIB


def test_sliding_layers_keep_a_window_and_one_pass_of_tokens() -> None:
    """52 of Gemma 3's 62 layers: 1,024 tokens of window and 512 of a pass are 1,536 cells."""
    layer = 2 * 16 * 128 * 2
    found = total(budget(gemma_3_27b(), max_model_len=32768), "kv_cache") * MIB
    assert found == 10 * 32768 * layer + 52 * 1536 * layer
    shared = total(budget(gemma_3_27b(), max_model_len=8192, max_num_seqs=4, kv_unified=True), "kv_cache") * MIB
    assert shared == 10 * 32768 * layer + 52 * (4 * 1024 + 512) * layer
    whole = total(budget(gemma_3_27b(), max_model_len=32768, engine_args={"swa-full": True}), "kv_cache") * MIB
    assert whole == 62 * 32768 * layer


def test_states_are_kept_for_each_sequence_and_each_guessed_token() -> None:
    """149.62 MiB logged for Qwen3.5 27B with one sequence, 1,047.38 with six guessed tokens."""
    assert total(budget(qwen3_5_27b()), "state") == pytest.approx(149.62, abs=0.01)
    assert total(budget(qwen3_5_27b(), max_num_seqs=4), "state") == pytest.approx(4 * 149.62, abs=0.03)
    guessing = Speculation(method="mtp", num_speculative_tokens=6)
    found = budget(qwen3_5_27b(), max_model_len=262144, speculative_config=guessing)
    assert total(found, "state") == pytest.approx(1047.38, abs=0.03)
    # The guessing layer's own context: 1,024 MiB beside the model's 16,384.
    assert total(found, "kv_cache") == 16384 + 1024


# As logged by b2824 and b2833 on one, two and four cards: github.com/XiongjieDai/GPU-Benchmarks-on-LLM-Inference.
@pytest.mark.parametrize(
    ("devices", "weights_mib", "cache_mib", "compute_mib"),
    [
        (1, [4403.49], [1024], [560.0]),
        (2, [2113.28, 2290.21], [544, 480], [640.01, 640.02]),
        (4, [1130.62, 982.66, 982.66, 1307.55], [288, 256, 256, 224], [640.01] * 4),
    ],
)
def test_weights_cache_and_compute_buffers_are_those_of_the_log_on_each_device(
    devices: int, weights_mib: list[float], cache_mib: list[float], compute_mib: list[float]
) -> None:
    found = by_rank(budget(llama_3_8b("q4_k_m"), devices, engine_version="b2833", max_model_len=8192))
    cards = [found[f"gpu{number}"] for number in range(devices)]
    assert [card.weights_bytes / MIB for card in cards] == pytest.approx(weights_mib, rel=1e-3)
    assert [card.kv_cache_bytes / MIB for card in cards] == cache_mib
    assert [card.activation_bytes / MIB for card in cards] == pytest.approx(compute_mib, rel=1e-3)
    assert found["host"].weights_bytes / MIB == pytest.approx(281.81, abs=0.01)


def test_without_flash_attention_a_short_context_is_ruled_by_the_logits() -> None:
    found = by_rank(budget(llama_3_8b("q4_k_m"), engine_version="b2797", max_model_len=512))
    assert found["gpu0"].activation_bytes / MIB == pytest.approx(258.5, abs=0.01)


def test_attention_in_portions_bounds_the_scores() -> None:
    asked: dict[str, Any] = {"engine": "ik_llamacpp", "max_model_len": 163840, "flash_attn": False}
    whole = by_rank(budget(deepseek_r1("q2_k"), **asked, engine_args={"mla": 2}))["gpu0"].activation_bytes
    parts = by_rank(budget(deepseek_r1("q2_k"), **asked, engine_args={"mla": 2, "amb": 512}))["gpu0"].activation_bytes
    assert parts < whole / 10


def test_a_server_of_today_reserves_logits_for_its_sequences_only() -> None:
    old = by_rank(budget(llama_3_8b(), engine_version="b9000", max_model_len=4096))["gpu0"].activation_bytes
    new = by_rank(budget(llama_3_8b(), engine_version="b11549", max_model_len=4096))["gpu0"].activation_bytes
    assert new < old - 100 * MIB


def test_on_a_processor_it_is_what_the_plan_for_this_machine_says(llama_8b: Model, machine: Accelerator) -> None:
    for asked in ({"max_model_len": 4096}, {"max_model_len": 8192, "max_num_seqs": 2, "kv_cache_dtype": "q8_0"}):
        deployment = Deployment(model="m", engine_version="b11549", **asked)
        here = memory_of(deployment, llama_8b, overhead_bytes=0, available_bytes=None)
        found = by_rank(budget_of(deployment, llama_8b, machine))["host"]
        assert found.kv_cache_bytes == here.kv_cache_bytes
        assert found.activation_bytes == here.activation_bytes
        assert found.weights_bytes == here.weights_bytes


def test_layers_that_stay_on_the_host_take_their_cache_with_them() -> None:
    """20 of 33, the head among them: 13 layers stay."""
    found = by_rank(budget(llama_3_8b("q4_0"), n_gpu_layers=20, max_model_len=8192))
    assert found["host"].kv_cache_bytes == 13 * 32 * MIB
    assert found["gpu0"].kv_cache_bytes == 19 * 32 * MIB
    nothing = by_rank(budget(llama_3_8b("q4_0"), n_gpu_layers=0))
    assert list(nothing) == ["host"]


def test_experts_of_the_first_layers_stay_on_the_host() -> None:
    model = qwen3_30b_a3b("q8_0")
    of_layer = next(part.bytes for part in model.layers[0].parts if part.component == "expert")
    before, after = by_rank(budget(model)), by_rank(budget(model, n_cpu_moe=10))
    assert before["gpu0"].weights_bytes - after["gpu0"].weights_bytes == pytest.approx(10 * of_layer, abs=20)
    assert after["host"].weights_bytes - before["host"].weights_bytes == pytest.approx(10 * of_layer, abs=20)
    # What a long batch multiplies with is copied to the card.
    assert after["gpu0"].activation_bytes - before["gpu0"].activation_bytes == pytest.approx(of_layer / 3, abs=20)


def test_patterns_place_tensors_and_the_first_that_is_found_decides() -> None:
    model = qwen3_30b_a3b("q8_0")
    to_host = by_rank(budget(model, override_tensor=r"exps=CPU"))
    assert to_host["gpu0"].weights_bytes == by_rank(budget(model, engine_args={"cpu_moe": True}))["gpu0"].weights_bytes
    split = by_rank(budget(model, 2, override_tensor=r"blk\.[0-9]\..*_exps=CUDA1,exps=CPU"))
    of_layer = next(part.bytes for part in model.layers[0].parts if part.component == "expert")
    alone = by_rank(budget(model, 2, override_tensor=r"exps=CPU"))
    assert split["gpu1"].weights_bytes - alone["gpu1"].weights_bytes == pytest.approx(10 * of_layer, abs=20)


def test_shares_decide_how_many_layers_a_card_gets() -> None:
    found = by_rank(budget(llama_3_8b("q4_0"), 2, tensor_split=(3, 1), max_model_len=1024))
    assert (found["gpu0"].kv_cache_bytes, found["gpu1"].kv_cache_bytes) == (25 * 4 * MIB, 7 * 4 * MIB)
    one = by_rank(budget(llama_3_8b("q4_0"), 2, engine_args={"split_mode": "none"}))
    assert one["gpu1"].kv_cache_bytes == one["gpu1"].weights_bytes == 0
    rows = by_rank(budget(llama_3_8b("q4_0"), 2, engine_args={"split_mode": "row"}))
    assert rows["gpu1"].kv_cache_bytes == 0 < rows["gpu1"].weights_bytes


def test_the_cache_may_stay_on_the_host() -> None:
    found = by_rank(budget(llama_3_8b("q4_0"), engine_args={"no-kv-offload": True}, max_model_len=8192))
    assert found["gpu0"].kv_cache_bytes == 0
    assert found["host"].kv_cache_bytes == 1024 * MIB


def test_a_tied_head_is_the_embedding_once_more_on_the_card() -> None:
    tied, untied = llama_3_8b("f16", tie_word_embeddings=True), llama_3_8b("f16")
    assert by_rank(budget(tied))["gpu0"].weights_bytes == by_rank(budget(untied))["gpu0"].weights_bytes
    assert by_rank(budget(tied))["host"].weights_bytes == by_rank(budget(untied))["host"].weights_bytes


def test_a_mac_may_use_three_quarters_of_its_memory() -> None:
    mac = accelerator(64, "", vendor="Apple").model_copy(update={"visible_memory_bytes": None, "unified_memory": True})
    found = by_rank(budget_of(Deployment(model="m"), llama_3_8b("q4_0"), mac))
    assert found["gpu0"].available_bytes == 48 * 2**30
    assert found["host"].available_bytes is not None
    assert found["host"].available_bytes < 64 * 2**30 - found["gpu0"].weights_bytes


def test_what_was_logged_stands_in_place_of_the_formula() -> None:
    deployment = Deployment(model="m", max_num_seqs=1)
    found = budget_of(deployment, llama_3_8b("q4_0"), accelerator(24), known={"activation": 321.0 * MIB})
    term = by_rank(found)["gpu0"].terms["activation"]
    assert (term.bytes, term.low, term.high, term.basis) == (321 * MIB, 321 * MIB, 321 * MIB, "measured")


@pytest.mark.parametrize(
    ("version", "number"),
    [
        ("b2833", 2833),
        ("6895", 6895),
        ("2026.10.11549", 11549),
        ("9272 (1d7ab2b94)", 9272),
        ("2026", None),
        ("2026 ROCm gfx1151", None),
        (None, None),
    ],
)
def test_a_build_is_read_from_the_ways_people_write_it(version: str | None, number: int | None) -> None:
    assert build_of("llamacpp", version).number == number


def test_an_unknown_build_is_planned_as_the_newest_and_says_so() -> None:
    found = budget(llama_3_8b("q4_0"), engine_version=None)
    assert any("newest" in note for note in found.notes)
    known = by_rank(budget(llama_3_8b("q4_0")))["gpu0"].terms["activation"]
    assert by_rank(found)["gpu0"].terms["activation"].high > known.high


@pytest.mark.parametrize(
    "asked",
    [
        {"kv_cache_dtype": "fp8"},
        {"override_tensor": "exps"},
        {"override_tensor": "(=CPU"},
        {"engine_args": {"split_mode": "diagonal"}},
        {"engine_args": {"main_gpu": "first"}},
    ],
)
def test_an_option_that_means_nothing_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        budget(llama_3_8b("q4_0"), **asked)


@settings(max_examples=40, deadline=None)
@given(
    length=st.integers(256, 100_000),
    slots=st.integers(1, 16),
    devices=st.integers(1, 4),
    layers=st.integers(0, 33),
    unified=st.booleans(),
)
def test_more_is_never_less(length: int, slots: int, devices: int, layers: int, unified: bool) -> None:
    model = llama_3_8b("q4_k_m")
    asked: dict[str, Any] = {"max_model_len": length, "max_num_seqs": slots, "kv_unified": unified}
    base = budget(model, devices, **asked)
    longer = budget(model, devices, **{**asked, "max_model_len": length + 1000})
    assert total(longer, "total") >= total(base, "total")
    assert total(budget(model, devices, **{**asked, "kv_cache_dtype": "q8_0"}), "kv_cache") < total(base, "kv_cache")
    fewer = by_rank(budget(model, devices, **asked, n_gpu_layers=layers))
    assert sum(rank.weights_bytes for name, rank in fewer.items() if name != "host") <= sum(
        rank.weights_bytes for name, rank in by_rank(base).items() if name != "host"
    )
    # Cells are padded by less than 256 for each stream; a unified pool holds all sequences' tokens.
    assert length * slots <= base.kv_cache_tokens < (length + 256) * slots + 256
    assert base.max_concurrency >= slots
    for rank in base.per_rank:
        assert rank.low_bytes <= rank.total_bytes <= rank.high_bytes
