"""Whatever stands in a config.json, it gives a model or an error that says what is wrong."""

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servolt.errors import ModelFileError, ServoltError
from servolt.model import Model, model_from_config

from . import configs

CONFIGS = [value for name, value in vars(configs).items() if name.isupper()]
JUNK: list[Any] = [
    None,
    *(0, -1, 1, 3, 2**31, 10**18, 0.5, 1e300, float("nan"), float("inf")),
    *(True, False, "", "1", "auto", "M-M*"),
    *([], [1], [None], [-1], [1.5], ["mamba"], [[1]], [{}]),
    *({}, {"a": 1}, {"full_attention": 3}, {"rope_type": "yarn", "factor": "x"}),
]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_field_can_break_it(data: st.DataObject) -> None:
    config = copy.deepcopy(data.draw(st.sampled_from(CONFIGS)))
    for _ in range(data.draw(st.integers(1, 3))):
        place = config
        inner = [key for key, value in place.items() if isinstance(value, dict)]
        at = data.draw(st.sampled_from([None, *inner]))
        place = place if at is None else place[at]
        if place:
            place[data.draw(st.sampled_from(sorted(place)))] = data.draw(st.sampled_from(JUNK))
    asked = data.draw(st.sampled_from((None, "fp8", "q4_k_m", "nvfp4")))
    try:
        model = model_from_config(config, name="a model", quantization=asked)
    except ServoltError:
        return
    assert Model.from_json(model.to_json()) == model


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: str(config["model_type"]))
def test_a_config_of_every_kind_can_be_asked_in_every_format(config: dict[str, Any]) -> None:
    for quantization in ("fp8", "int8", "awq", "nvfp4", "mxfp4", "bitsandbytes", "q8_0", "q4_k_m", "iq2_xxs"):
        model = model_from_config(config, name="a model", quantization=quantization)
        assert 0 < model.weights_bytes < 2 * model.total_params


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("num_key_value_heads", 0, "divides the 32 attention heads and is 0"),
        ("num_key_value_heads", 3, "divides the 32 attention heads and is 3"),
        ("quantization_config", "zzz", "a group of fields and is 'zzz'"),
    ],
)
def test_what_no_model_can_have_is_refused_with_the_field(field: str, value: Any, words: str) -> None:
    with pytest.raises(ModelFileError, match=field) as caught:
        model_from_config({**LLAMA, field: value}, name="a model")
    assert words in str(caught.value)


def test_more_experts_for_a_token_than_there_are_is_refused() -> None:
    with pytest.raises(ModelFileError, match="num_experts_per_tok should be at most the 8 experts"):
        model_from_config({**LLAMA, "num_experts": 8, "num_experts_per_tok": 16}, name="a model")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("layer_types", ["warp_attention"] * 32),
        ("layer_types", ["full_attention"] * 3),
        ("dtype", "float7"),
        ("model_type", "bert"),
    ],
)
def test_what_is_not_understood_is_named_and_the_rest_is_planned(field: str, value: Any) -> None:
    model = model_from_config({**LLAMA, field: value}, name="a model")
    assert field in model.unknown_fields
    assert model.total_params == model_from_config(LLAMA, name="a model").total_params


LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "dtype": "bfloat16",
}
