"""Requests for plans from elsewhere."""

from pathlib import Path

import pytest

from servolt import settings
from servolt.errors import InvalidInputError
from servolt.library import plan
from servolt.study.requests import Requests, read_request

CONFIG = {  # the fields of a small Llama's config.json
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}


@pytest.fixture
def requests() -> Requests:
    return Requests(settings.folders())


def test_a_request_is_answered_with_what_the_library_says(requests: Requests) -> None:
    load = {"concurrency": 2, "input_tokens": 64}
    found = requests.plan({"deployment": "guide:f16", "workload": load})
    expected = plan("guide:f16", load)
    assert found["schema"] == "servolt.plan/1"
    assert found["deployment_digest"] == expected.deployment_digest
    assert found["predictions"]["tpot"]["value"] == expected.predictions["tpot"].value


@pytest.mark.parametrize("deployment", [{"model": "guide"}, {"model": "guide:q8_0"}, "guide"])
def test_a_name_means_the_same_however_it_is_sent(deployment: object) -> None:
    assert read_request({"deployment": deployment}).deployment.label == "guide:q8_0"


def test_a_link_is_a_deployment_and_its_workload() -> None:
    found = read_request({"deployment": "servolt://plan?model=guide&input_len=99"})
    assert (found.deployment.label, found.workload.input_len) == ("guide:q8_0", 99)


def test_a_config_stands_for_the_models_file() -> None:
    model = read_request({"deployment": {"model": "my/own.json"}, "model_config": CONFIG}).model()
    assert model is not None
    assert model.total_params == 1_235_814_400  # meta-llama/Llama-3.2-1B, by the headers of its safetensors


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "~/.ssh/id_rsa", "./x", "../x", "a/../../b", "x.gguf", "a\\b", "C:/x", "a/b/c", "config.json"],
)
def test_no_file_of_this_machine_is_named_unless_its_owner_allows_it(name: str) -> None:
    with pytest.raises(InvalidInputError, match="owner does not open"):
        read_request({"deployment": {"model": name, "quantization": "q8_0"}})
    draft = {"method": "draft_model", "model": name}
    with pytest.raises(InvalidInputError, match="owner does not open"):
        read_request({"deployment": {"model": "guide", "speculative_config": draft}})
    assert read_request({"deployment": {"model": name, "quantization": "q8_0"}}, paths=True).deployment.model == name


def test_a_folder_named_like_a_hub_id_is_a_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    read_request({"deployment": "org/name"})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match="owner does not open"):
        read_request({"deployment": "org/name"})


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({}, "names no deployment"),
        ({"deployment": 3}, "names no deployment"),
        ({"deployment": "guide", "worklod": {}}, "worklod"),
        ({"deployment": "guide", "workload": 3}, "workload"),
        ({"deployment": "guide", "model_config": []}, "model_config"),
        ({"deployment": "guide", "measured": {"a": 1}}, "measured"),
        ({"deployment": "guide", "workload": {"concurrency": [1] * 65}}, "65 loads"),
        ({"deployment": {"model": "guide", "engine_executable": "/bin/sh"}}, "engine_executable"),
        ({"deployment": {"model": None}}, "model"),
    ],
)
def test_what_is_no_request_is_refused(request_: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        read_request(request_)
