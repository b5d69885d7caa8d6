"""Shapes and machines that the planner's tests share."""

from collections.abc import Callable

import pytest

from servolt.gpu import Accelerator
from servolt.model import Model, TensorGroup
from servolt.plan import Constants, WeightsSpeed


def llama(
    *,
    layers: int,
    hidden: int,
    feed_forward: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    vocabulary: int,
    dtype: str = "f16",
    context: int = 8192,
) -> Model:
    """An untied Llama with these sizes, as its header would say it."""
    element = {"f16": 2.0, "q8_0": 1.0625, "q4_k": 0.5625}[dtype]
    attention = layers * hidden * head_dim * (2 * heads + 2 * kv_heads)
    parts = {
        "embedding": vocabulary * hidden,
        "attention": attention,
        "mlp": 3 * layers * hidden * feed_forward,
        "output": vocabulary * hidden,
    }
    groups = tuple(
        TensorGroup(component=name, dtype=dtype, tensors=1, elements=number, bytes=round(number * element))
        for name, number in parts.items()
    )
    return Model(
        name="made up",
        architecture="llama",
        format="gguf",
        files=("/models/made-up.gguf",),
        file_bytes=sum(group.bytes for group in groups),
        total_params=sum(parts.values()),
        weights_bytes=sum(group.bytes for group in groups),
        quantization=dtype,
        tensors=groups,
        num_layers=layers,
        hidden_size=hidden,
        intermediate_size=feed_forward,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim_k=head_dim,
        head_dim_v=head_dim,
        vocab_size=vocabulary,
        max_position_embeddings=context,
    )


@pytest.fixture
def make_model() -> Callable[..., Model]:
    return llama


@pytest.fixture
def llama_100m() -> Model:
    return llama(
        layers=12,
        hidden=768,
        feed_forward=2048,
        heads=12,
        kv_heads=4,
        head_dim=64,
        vocabulary=16384,
        dtype="q8_0",
        context=2048,
    )


@pytest.fixture
def llama_8b() -> Model:
    """The sizes of Llama 3.1 8B as its config.json has them."""
    return llama(
        layers=32,
        hidden=4096,
        feed_forward=14336,
        heads=32,
        kv_heads=8,
        head_dim=128,
        vocabulary=128256,
        context=131072,
    )


@pytest.fixture
def machine() -> Accelerator:
    return Accelerator(
        name="two cores",
        kind="cpu",
        count=2,
        memory_bytes=24 * 2**30,
        available_bytes=20 * 2**30,
        source="made up",
    )


@pytest.fixture
def constants() -> Constants:
    """Round numbers near those that `doctor --calibrate` finds on a two-core virtual machine."""
    return Constants(
        engine="llamacpp",
        engine_version="1",
        accelerator="two cores",
        threads=1,
        step_s=5e-5,
        layer_s=2e-6,
        sequence_s=7e-5,
        layer_token_s=5e-6,
        request_s=1.3e-3,
        weights={
            "f16": WeightsSpeed(
                small_bytes=20_000_000,
                small_bytes_per_s=28e9,
                large_bytes=100_000_000,
                large_bytes_per_s=13e9,
                flops_per_s=48e9,
            ),
            "q8_0": WeightsSpeed(
                small_bytes=11_000_000,
                small_bytes_per_s=21e9,
                large_bytes=94_000_000,
                large_bytes_per_s=7.5e9,
                flops_per_s=64e9,
            ),
        },
        spread=0.1,
        source="measured by doctor --calibrate on a day",
    )
