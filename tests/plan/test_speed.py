from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.plan import Constants, WeightsSpeed
from servolt.plan.speed import default_constants, law_of, nearest_dtype, streamed_bytes


def test_one_token_reads_all_weights_but_the_embedding_once(llama_8b: Model) -> None:
    assert streamed_bytes(llama_8b) == llama_8b.weights_bytes - 2 * 128256 * 4096


def test_a_tied_embedding_is_read_as_the_head(llama_8b: Model) -> None:
    groups = tuple(group for group in llama_8b.tensors if group.component != "output")
    tied = llama_8b.model_copy(update={"tensors": groups, "tied_embeddings": True})
    assert streamed_bytes(tied) == streamed_bytes(llama_8b)


def test_a_large_model_decodes_at_bytes_over_bandwidth_plus_flops_over_rate(
    llama_8b: Model, constants: Constants
) -> None:
    """By hand: 15.01 GB at 13 GB/s and 15.01 GFLOP at 48 GFLOP/s, 1.15 s + 0.31 s, and 1 ms around it."""
    law = law_of(constants, llama_8b, threads=1, kv_bytes_per_token=131072, ubatch=512)
    assert law.decode_s(1, 0) == pytest.approx(15.01e9 / 13e9 + 15.01e9 / 48e9, rel=0.005)


def test_the_addends_of_a_step_are_the_step(llama_100m: Model, constants: Constants) -> None:
    law = law_of(constants, llama_100m, threads=1, kv_bytes_per_token=12288, ubatch=512)
    terms = law.decode_terms(4, 100)
    assert sum(term.seconds for term in terms) == law.decode_s(4, 100)
    assert all(term.seconds > 0 for term in terms)


@given(sequences=st.integers(1, 64), more=st.integers(1, 64), context=st.integers(0, 4000), tokens=st.integers(1, 4000))
def test_more_work_never_takes_less_time(sequences: int, more: int, context: int, tokens: int) -> None:
    law = law_of(CONSTANTS, MODEL, threads=1, kv_bytes_per_token=12288, ubatch=512)
    assert law.decode_s(sequences, context) < law.decode_s(sequences + more, context)
    assert law.decode_s(sequences, context) <= law.decode_s(sequences, context + more)
    assert law.prefill_s(tokens) < law.prefill_s(tokens + more)
    batched = law.decode_s(sequences + more, context) / (sequences + more)
    assert batched < law.decode_s(sequences, context) / sequences


def test_a_set_between_the_two_that_were_read_is_read_at_a_rate_between_theirs(constants: Constants) -> None:
    speed = constants.weights["f16"]
    assert speed.bytes_per_s(1) == speed.small_bytes_per_s
    assert speed.bytes_per_s(1e12) == speed.large_bytes_per_s
    assert speed.large_bytes_per_s < speed.bytes_per_s(50e6) < speed.small_bytes_per_s


def test_twice_the_threads_halve_the_arithmetic_and_not_the_overheads(llama_100m: Model, constants: Constants) -> None:
    one, two = (law_of(constants, llama_100m, threads=n, kv_bytes_per_token=12288, ubatch=512) for n in (1, 2))
    before = {term.name: term.seconds for term in one.decode_terms(4, 0)}
    after = {term.name: term.seconds for term in two.decode_terms(4, 0)}
    assert after["arithmetic"] == pytest.approx(before["arithmetic"] / 2)
    assert after["sequences"] == before["sequences"]


def test_a_data_type_that_was_not_probed_takes_the_constants_of_its_kind(constants: Constants) -> None:
    assert nearest_dtype("bf16", constants.weights) == "f16"
    assert nearest_dtype("q4_k", constants.weights) == "q8_0"
    assert nearest_dtype("q8_0", constants.weights) == "q8_0"


def test_known_bandwidth_and_flops_replace_the_stated_defaults(machine: Accelerator) -> None:
    known = machine.model_copy(update={"bandwidth_bytes_per_s": 5e10, "flops_per_s": {"f16": 1e12}})
    found = default_constants("llamacpp", known, 1)
    assert found.weights["f16"].large_bytes_per_s == 5e10
    assert found.weights["f16"].flops_per_s == 1e12
    assert found.accelerator is None


def test_only_the_routed_experts_are_read_and_computed(make_model: Callable[..., Model], constants: Constants) -> None:
    dense = make_model(layers=8, hidden=1024, feed_forward=8192, heads=8, kv_heads=4, head_dim=128, vocabulary=1024)
    routed = dense.model_copy(update={"metadata": {"llama.expert_count": 8, "llama.expert_used_count": 2}})
    slow, fast = (law_of(constants, model, threads=1, kv_bytes_per_token=1, ubatch=512) for model in (dense, routed))
    one, many = slow.decode_s(1, 0) / fast.decode_s(1, 0), slow.prefill_s(512) / fast.prefill_s(512)
    assert one > 2
    assert many > 2  # arithmetic shrinks as before; all experts are read


CONSTANTS = Constants(
    engine="llamacpp",
    threads=1,
    step_s=5e-5,
    layer_s=2e-6,
    sequence_s=7e-5,
    layer_token_s=5e-6,
    request_s=1e-3,
    weights={
        "f16": WeightsSpeed(
            small_bytes=10**7, small_bytes_per_s=2e10, large_bytes=10**8, large_bytes_per_s=1e10, flops_per_s=4e10
        )
    },
    spread=0.1,
    source="made up",
)
MODEL = Model(
    name="made up",
    architecture="llama",
    format="gguf",
    file_bytes=0,
    total_params=0,
    weights_bytes=0,
    quantization="f16",
    num_layers=12,
    hidden_size=768,
    intermediate_size=2048,
    num_heads=12,
    num_kv_heads=4,
    head_dim_k=64,
    head_dim_v=64,
    vocab_size=16384,
    max_position_embeddings=2048,
)
