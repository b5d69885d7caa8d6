"""Folders and configs by path, and the order in which places are asked."""

import json
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from servolt.deployment import Deployment
from servolt.errors import ModelFileError, ModelNotFoundError
from servolt.sources import find_model

GUIDE = Path(__file__).parents[2] / "src" / "servolt" / "data" / "guide"
CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}
WEIGHTS = {
    "model.embed_tokens.weight": (128, 64),
    "model.layers.0.self_attn.q_proj.weight": (64, 64),
    "model.layers.0.mlp.up_proj.weight": (96, 64),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "tiny"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    return path


def write(path: Path, names: list[str]) -> None:
    save_file({name: np.zeros(WEIGHTS[name], np.float16) for name in names}, path)


def test_a_folder_is_counted_by_its_files(folder: Path) -> None:
    write(folder / "model.safetensors", list(WEIGHTS))
    write(folder / "consolidated.safetensors", list(WEIGHTS))  # the same once more
    model = find_model(Deployment.of(str(folder)))
    assert (model.name, model.basis, model.format) == ("tiny", "header", "safetensors")
    assert model.total_params == 128 * 64 + 64 * 64 + 96 * 64
    assert model.files == (str(folder / "model.safetensors"),)


def test_an_index_says_which_files_count(folder: Path) -> None:
    names = list(WEIGHTS)
    write(folder / "a.safetensors", names[:1])
    write(folder / "b.safetensors", names[1:])
    write(folder / "other.safetensors", names)
    places = {names[0]: "a.safetensors", names[1]: "b.safetensors", names[2]: "b.safetensors"}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}), encoding="utf-8")
    model = find_model(Deployment.of(str(folder)))
    assert [Path(file).name for file in model.files] == ["a.safetensors", "b.safetensors"]
    (folder / "b.safetensors").unlink()
    with pytest.raises(ModelFileError, match=r"1 of 2 files of weights are missing, such as b\.safetensors"):
        find_model(Deployment.of(str(folder)))


def test_a_config_alone_is_a_model_without_files(folder: Path) -> None:
    for path in (folder, folder / "config.json"):
        model = find_model(Deployment.of(str(path), quantization="q8_0", dtype="float16"))
        assert (model.name, model.basis, model.files) == ("tiny", "config", ())
        assert (model.quantization, model.dtype) == ("q8_0", "float16")


def test_a_pasted_config_is_called_after_its_file(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    assert find_model(Deployment.of(str(tmp_path / "mine.json"))).name == "mine"


def test_a_folder_of_one_gguf_is_that_gguf(tmp_path: Path) -> None:
    copyfile(GUIDE / "guide-q8_0.gguf", tmp_path / "tiny-q8_0.gguf")
    assert find_model(Deployment.of(str(tmp_path))).format == "gguf"
    copyfile(GUIDE / "guide-f16.gguf", tmp_path / "tiny-f16.gguf")
    assert find_model(Deployment.of(str(tmp_path), quantization="f16")).quantization == "f16"
    with pytest.raises(ModelNotFoundError, match="with 2 GGUF files"):
        find_model(Deployment.of(str(tmp_path)))


@pytest.mark.parametrize("text", ["{", "[]", '"text"', '{"hidden_size": 0}', "\x00"])
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelFileError):
        find_model(Deployment.of(str(tmp_path / "config.json")))


def test_a_path_counts_for_more_than_a_name_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "org" / "name"
    place.mkdir(parents=True)
    (place / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert find_model(Deployment.of("org/name")).name == "name"


def test_the_catalogue_knows_published_models_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    model = find_model(Deployment.of("meta-llama/Llama-3.1-8B-Instruct"))
    assert (model.basis, model.total_params) == ("catalogue", 8_030_261_248)
    copy = find_model(Deployment.of("nvidia/Llama-3.1-8B-Instruct-FP8"))
    assert (copy.quantization, copy.total_params) == ("fp8", 8_030_261_248)
    tagged = find_model(Deployment.of("llama3.1:8b"))
    assert tagged.total_params == 8_030_261_248
