"""Models of which only figures or a name are known."""

from typing import Any

import pytest

from servolt.errors import InvalidInputError, ModelNotFoundError
from servolt.model.card import card_model, size_in
from servolt.model.stated import stated_model


@pytest.mark.parametrize("billions", [0.3, 1, 3, 7, 13, 34, 70, 123, 405, 1000])
def test_a_size_alone_gives_a_model_of_that_size(billions: float) -> None:
    model = stated_model(round(billions * 1e9))
    assert model.total_params == pytest.approx(billions * 1e9, rel=2e-3)
    assert model.basis == "stated"
    assert len(model.layer_order) == model.num_layers


def test_what_is_stated_counts_and_what_is_not_is_named() -> None:
    model = stated_model(70_600_000_000, layers=80, hidden_size=8192, num_kv_heads=8, vocab_size=128_256)
    assert (model.num_layers, model.hidden_size, model.num_kv_heads) == (80, 8192, 8)
    # "The Llama 3 Herd of Models", table 3: 80 layers of 8192 with MLPs of 28,672.
    assert model.intermediate_size == pytest.approx(28_672, rel=5e-3)
    assert "intermediate_size" in model.unknown_fields
    assert "num_hidden_layers" not in model.unknown_fields


@pytest.mark.parametrize(("total", "active"), [(30.5, 3.3), (235, 22), (671, 37), (1026, 32), (230, 10)])
def test_a_mixture_of_experts_passes_about_what_is_stated(total: float, active: float) -> None:
    model = stated_model(round(total * 1e9), active_params=round(active * 1e9))
    assert model.total_params == pytest.approx(total * 1e9, rel=2e-3)
    assert model.active_params == pytest.approx(active * 1e9, rel=0.3)
    assert model.layers[0].experts is not None


def test_a_format_may_be_stated_too() -> None:
    plain, fewer = stated_model(8_000_000_000), stated_model(8_000_000_000, quantization="awq")
    assert plain.weights_bytes == 2 * plain.total_params
    assert fewer.quantization == "int4"
    assert fewer.weights_bytes < 0.4 * plain.weights_bytes


@pytest.mark.parametrize(
    "figures",
    [
        {"params": 0},
        {"params": 10**16},
        {"params": 8 * 10**9, "active_params": 9 * 10**9},
        {"params": 8 * 10**9, "layers": 200, "hidden_size": 16_384},
        {"params": 8 * 10**9, "num_experts": 8, "experts_per_token": 8},
    ],
)
def test_figures_that_do_not_go_together_are_refused(figures: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        stated_model(**figures)


@pytest.mark.parametrize(
    ("name", "params", "active"),
    [
        ("Llama-3.1-8B-Instruct", 8e9, None),
        ("Qwen3-235B-A22B-Instruct-2507-FP8", 235e9, 22e9),
        ("SmolLM2-135M", 135e6, None),
        ("someone/thing-1.5T-A80B", 1.5e12, 80e9),
        ("Llama-4-Scout-17B-16E-Instruct", 109e9, 17e9),
        ("Qwen3 30B A3B", 30e9, 3e9),
        ("SmallThinker-4BA0.6B-Instruct", 4e9, 0.6e9),
    ],
)
def test_a_name_states_a_size(name: str, params: float, active: float | None) -> None:
    size = size_in(name)
    assert size is not None
    assert size.params == pytest.approx(params, rel=0.01)
    assert size.active == active


def test_a_mixtral_is_smaller_than_its_name() -> None:
    # "Mixtral of Experts", arXiv 2401.04088: 46.7 B and 12.9 B; the card of 8x22B: 141 B and 39 B.
    for name, total, active in (("Mixtral-8x7B-v0.1", 46.7e9, 12.9e9), ("Mixtral-8x22B", 140.6e9, 39e9)):
        model = card_model(name)
        assert model.total_params == pytest.approx(total, rel=0.03)
        assert model.active_params == pytest.approx(active, rel=0.2)


def test_a_name_says_how_weights_are_stored() -> None:
    assert card_model("Foo-70B-AWQ").quantization == "int4"
    assert card_model("Foo-70B").basis == "card"
    assert card_model("Foo-70B", quantization="fp8").quantization == "fp8"


@pytest.mark.parametrize("name", ["deepseek-v3", "gpt-4", "Phi-3-mini-4k-instruct", "model-v2.1"])
def test_a_name_without_a_size_says_nothing(name: str) -> None:
    assert size_in(name) is None
    with pytest.raises(ModelNotFoundError, match="states no size"):
        card_model(name)
