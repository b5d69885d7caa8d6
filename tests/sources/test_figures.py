"""Models that are given by their figures alone, in a name."""

import pytest

from servolt.deployment import Deployment
from servolt.errors import InvalidInputError
from servolt.library import plan
from servolt.sources import find_model
from servolt.sources.figures import FIGURES, name_of


def test_figures_are_a_name_that_is_a_model_again() -> None:
    name = name_of({"params": 70_600_000_000, "layers": 80, "hidden_size": 8192, "kv_heads": 8})
    model = find_model(Deployment.of(name))
    assert (model.basis, model.num_layers, model.hidden_size, model.num_kv_heads) == ("stated", 80, 8192, 8)
    assert model.total_params == pytest.approx(70.6e9, rel=1e-3)
    assert find_model(Deployment.of("stated?params=70.6B&layers=80&hidden_size=8192&kv_heads=8")) == model.model_copy(
        update={"name": "stated?params=70.6B&layers=80&hidden_size=8192&kv_heads=8"}
    )


def test_every_figure_is_a_field_that_can_be_stated() -> None:
    name = name_of(dict.fromkeys(FIGURES, 64) | {"params": 10**10, "experts_per_token": 8, "vocab_size": 10_000})
    model = find_model(Deployment.of(name))
    assert model.layers[0].experts is not None
    assert (model.layers[0].experts.num_experts, model.layers[0].experts.experts_per_token) == (64, 8)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("stated?layers=80", "the number of weights is missing"),
        ("stated?params=8B&depth=3", "'depth' is no figure"),
        ("stated?params=many", "'many' is no number"),
        ("stated?params=0", "'0' is no number above 0"),
        ("stated?params=8B&layers=-1", "'-1' is no number above 0"),
    ],
)
def test_a_figure_that_can_not_be_is_refused(name: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        find_model(Deployment.of(name))


def test_a_plan_of_figures_says_what_was_taken_as_usual() -> None:
    found = plan({"model": "stated?params=8B&layers=32", "engine": "vllm", "hardware": {"accelerator": "H100"}})
    said = " ".join(found.memory.notes)
    assert "taken as usual" in said
    assert "num_hidden_layers" not in said
