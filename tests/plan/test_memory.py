from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servolt.deployment import Deployment
from servolt.errors import InvalidInputError
from servolt.model import Model
from servolt.plan.kv_cache import kv_cache_bytes_per_token
from servolt.plan.memory import (
    MemoryPart,
    activation_bytes,
    context_cells,
    memory_of,
    resident_bytes,
)
from servolt.workload import Workload

GUIDE_SHAPE = {"layers": 4, "heads": 8, "kv_heads": 4, "head_dim": 32, "vocabulary": 2048}


def memory(model: Model, **settings: object) -> int:
    deployment = Deployment.of("made-up.gguf", **settings)
    return memory_of(deployment, model, overhead_bytes=40_000_000, available_bytes=None).total_bytes


def test_keys_and_values_of_llama_3_1_8b_are_the_published_128_kib_for_each_token(llama_8b: Model) -> None:
    assert kv_cache_bytes_per_token(llama_8b) == 131_072


def test_a_quantised_cache_takes_8_and_a_half_bits_for_each_element(llama_8b: Model) -> None:
    assert kv_cache_bytes_per_token(llama_8b, "q8_0") == 131_072 * 17 // 32


def test_an_unknown_cache_type_is_refused_by_name(llama_8b: Model) -> None:
    with pytest.raises(InvalidInputError, match="'fp3'"):
        kv_cache_bytes_per_token(llama_8b, "fp3")


# Logged by llama.cpp (xllamacpp 2026.10.11549) as "CPU compute buffer size", MiB, for Llamas made for it.
@pytest.mark.parametrize(
    ("hidden", "feed_forward", "slots", "cells", "ubatch", "logged_mib"),
    [
        (256, 640, 4, 2048, 512, 8.2676),
        (512, 640, 4, 2048, 512, 10.7676),
        (256, 1280, 4, 2048, 512, 12.0176),
        (256, 640, 1, 8192, 512, 14.2676),
        (256, 640, 16, 512, 512, 6.7676),
        (256, 640, 4, 2048, 128, 2.0669),
        (256, 640, 4, 2048, 1024, 16.5352),
        (768, 2048, 4, 2048, 512, 21.5176),
        (192, 512, 4, 2048, 512, 6.8926),
    ],
)
def test_the_compute_buffer_is_the_one_that_the_engine_logs(
    make_model: Callable[..., Model],
    hidden: int,
    feed_forward: int,
    slots: int,
    cells: int,
    ubatch: int,
    logged_mib: float,
) -> None:
    model = make_model(**GUIDE_SHAPE, hidden=hidden, feed_forward=feed_forward)
    handed_out = 4 * slots * model.vocab_size
    found = activation_bytes(model, slots=slots, cells=cells, tokens=ubatch) - handed_out
    assert found / 2**20 == pytest.approx(logged_mib, abs=1e-4)


# Logged as "llama_kv_cache: size" for 2 layers, 4 KV heads of 32 and 4 sequences: 8,192 cells 8 MiB, 1,000 asked 1 MiB.
@pytest.mark.parametrize(("asked", "cells", "logged_mib"), [(2048, 2048, 8.0), (250, 256, 1.0)])
def test_the_cache_is_the_one_that_the_engine_logs(
    make_model: Callable[..., Model], asked: int, cells: int, logged_mib: float
) -> None:
    model = make_model(layers=2, hidden=256, feed_forward=640, heads=8, kv_heads=4, head_dim=32, vocabulary=2048)
    deployment = Deployment.of("made-up.gguf", max_model_len=asked)
    found = memory_of(deployment, model, overhead_bytes=0, available_bytes=None)
    assert context_cells(deployment, model) == cells
    assert found.kv_cache_bytes == logged_mib * 2**20
    assert found.kv_cache_tokens == 4 * cells


def test_the_parts_add_up_and_exact_parts_have_no_interval(llama_100m: Model) -> None:
    found = memory_of(Deployment.of("x.gguf"), llama_100m, overhead_bytes=40_000_000, available_bytes=None)
    assert found.total_bytes == sum(part.bytes for part in found.parts)
    assert found.low_bytes < found.total_bytes < found.high_bytes
    exact = {part.name for part in found.parts if part.basis == "exact"}
    assert exact == {"weights", "kv_cache"}
    assert all(part.low == part.bytes == part.high for part in found.parts if part.name in exact)
    assert found.weights_bytes == llama_100m.weights_bytes


# Resident memory of a 4-layer Llama of hidden 768 whose weights were q4_0: 73.7 MB, and 60.4 MB with q4_1, which takes
# 1.7 MB more in the file. The engine's log: "CPU_REPACK model buffer size = 14.34 MiB".
def test_types_that_the_engine_reorders_are_held_twice(make_model: Callable[..., Model]) -> None:
    sizes = {"layers": 4, "hidden": 768, "feed_forward": 2048, "heads": 12, "kv_heads": 4, "head_dim": 64}
    found = {
        dtype: memory_of(
            Deployment.of("x.gguf"),
            make_model(**sizes, vocabulary=2048, dtype=dtype),
            overhead_bytes=0,
            available_bytes=None,
        ).repacked_weights_bytes
        for dtype in ("q4_k", "q8_0", "f16")
    }
    assert found["q4_k"] / 2**20 == pytest.approx(14.34, abs=0.01)
    assert (found["q8_0"], found["f16"]) == (0, 0)


def _bounded(model: Model, **changed: object) -> tuple[MemoryPart, int]:
    deployment = Deployment.of("x.gguf", max_model_len=2048)
    found = memory_of(deployment, model.model_copy(update=changed), overhead_bytes=0, available_bytes=None)
    plain = memory_of(deployment, model, overhead_bytes=0, available_bytes=None)
    return next(part for part in found.parts if part.name == "kv_cache"), plain.kv_cache_bytes


def test_a_cache_that_a_header_does_not_pin_down_is_bounded_and_not_called_exact(llama_100m: Model) -> None:
    changes: dict[str, tuple[dict[str, object], float]] = {
        "a window of 512 of 2,048 tokens in every layer": ({"sliding_window": 512}, 1 / 4),
        "one of 12 layers with the most heads": ({"varied": ("llama.attention.head_count_kv",)}, 1 / 12),
        # 128 + 64 numbers for each token and layer in place of 4 heads of 64 + 64
        "a latent": (
            {"metadata": {"llama.attention.kv_lora_rank": 128, "llama.rope.dimension_count": 64}},
            192 / 512,
        ),
    }
    for what, (changed, share) in changes.items():
        part, full = _bounded(llama_100m, **changed)
        assert (part.basis, part.bytes, part.high) == ("formula", full, full), what
        assert part.low == pytest.approx(full * share), what
        assert part.formula.startswith("at most"), what


def test_recurrent_layers_keep_a_state_for_each_sequence(llama_100m: Model) -> None:
    # Mamba 130M as its config.json has it: 24 layers, inner size 1,536, state 16, convolution 4. Each sequence keeps
    # 24 * (3 * 1536 + 16 * 1536) f32.
    sizes = {"llama.ssm.conv_kernel": 4, "llama.ssm.inner_size": 1536, "llama.ssm.state_size": 16}
    part, _ = _bounded(llama_100m, num_layers=24, num_heads=0, num_kv_heads=0, metadata=sizes)
    assert part.bytes == 4 * 24 * (3 * 1536 + 16 * 1536) * 4
    assert (part.basis, part.low) == ("formula", 0)
    assert "state" in part.formula


def test_a_light_load_touches_less_of_the_compute_buffer_but_all_of_the_cache(llama_100m: Model) -> None:
    deployment = Deployment.of("x.gguf")
    found = memory_of(deployment, llama_100m, overhead_bytes=40_000_000, available_bytes=None)
    light, heavy = (
        resident_bytes(found, deployment, llama_100m, Workload(input_len=length), 4) for length in (16, 2000)
    )
    assert found.total_bytes - found.activation_bytes < light < heavy == found.total_bytes


@given(
    context=st.integers(min_value=1, max_value=200_000),
    more=st.integers(min_value=0, max_value=100_000),
    slots=st.integers(min_value=1, max_value=64),
)
def test_a_longer_context_or_one_more_sequence_never_takes_less(context: int, more: int, slots: int) -> None:
    model = Model(
        name="made up",
        architecture="llama",
        format="gguf",
        file_bytes=0,
        total_params=0,
        weights_bytes=10**6,
        quantization="f16",
        num_layers=4,
        hidden_size=256,
        intermediate_size=640,
        num_heads=8,
        num_kv_heads=4,
        head_dim_k=32,
        head_dim_v=32,
        vocab_size=2048,
        max_position_embeddings=2048,
    )
    here = memory(model, max_model_len=context, max_num_seqs=slots)
    assert here <= memory(model, max_model_len=context + more, max_num_seqs=slots)
    assert here < memory(model, max_model_len=context, max_num_seqs=slots + 1)
    assert here > memory(model, max_model_len=context, max_num_seqs=slots, kv_cache_dtype="q8_0")
