"""Who knows which model, and what is said of one that nobody knows."""

import os
from pathlib import Path
from shutil import copyfile

import pytest

from servolt.deployment import Deployment
from servolt.errors import ModelFileError, ModelNotFoundError
from servolt.sources import find_model, list_models, resolved, survey_models
from servolt.sources.builtin import Builtin
from servolt.sources.local import Local

GUIDE = Path(__file__).parents[2] / "src" / "servolt" / "data" / "guide"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the setting `models`, with two quantizations of one model and one other."""
    models = tmp_path / "models"
    models.mkdir()
    copyfile(GUIDE / "guide-q8_0.gguf", models / "Tiny-Q8_0.gguf")
    copyfile(GUIDE / "guide-f16.gguf", models / "Tiny-F16.gguf")
    copyfile(GUIDE / "guide-f16.gguf", models / "other.gguf")
    monkeypatch.setenv("SERVOLT_MODELS", str(models))
    return models


def test_the_guide_is_q8_0_unless_asked_otherwise() -> None:
    assert find_model(Deployment.of("guide")).quantization == "q8_0"
    assert find_model(Deployment.of("guide:latest")).quantization == "q8_0"
    assert find_model(Deployment.of("guide:F16")).quantization == "f16"


def test_weights_the_guide_does_not_have_are_named_with_those_it_has() -> None:
    with pytest.raises(ModelNotFoundError, match=r"guide has no weights as q4_0. There are q8_0 and f16"):
        find_model(Deployment.of("guide:q4_0"))


def test_a_model_that_nobody_knows_is_named_with_those_that_are_known() -> None:
    with pytest.raises(ModelNotFoundError, match=r"no model is called 'gpt-9' here.*guide:q8_0, guide:f16"):
        find_model(Deployment.of("gpt-9"))


def test_the_replay_model_is_stated_and_not_listed() -> None:
    model = find_model(Deployment.of("replay?step_s=0.1"))
    assert (model.format, model.basis, model.files) == ("replay", "stated", ())
    assert Builtin().names() == ["guide:q8_0", "guide:f16"]


def test_a_path_is_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GUIDE)
    absolute = find_model(Deployment.of(str(GUIDE / "guide-f16.gguf")))
    assert find_model(Deployment.of("guide-f16.gguf")) == find_model(Deployment.of("./guide-f16.gguf")) == absolute
    assert absolute.files == (str(GUIDE / "guide-f16.gguf"),)
    monkeypatch.setenv("HOME", str(GUIDE))
    assert find_model(Deployment.of("~/guide-f16.gguf")) == absolute


def test_a_path_that_holds_no_model_says_why(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"none\.gguf is not there"):
        find_model(Deployment.of(str(tmp_path / "none.gguf")))
    with pytest.raises(ModelNotFoundError, match="is a folder"):
        find_model(Deployment.of(f"{tmp_path}/"))
    (tmp_path / "text.gguf").write_text("hello", encoding="utf-8")
    with pytest.raises(ModelFileError, match="is no GGUF file"):
        find_model(Deployment.of(str(tmp_path / "text.gguf")))


def test_a_file_of_another_quantization_than_asked_is_refused() -> None:
    path = str(GUIDE / "guide-f16.gguf")
    assert find_model(Deployment(model=path, quantization="f16")).quantization == "f16"
    with pytest.raises(ModelNotFoundError, match="holds f16, and q8_0 is asked"):
        find_model(Deployment(model=path, quantization="q8_0"))


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("other", "other.gguf"),
        ("tiny:q8_0", "Tiny-Q8_0.gguf"),
        ("Tiny-f16", "Tiny-F16.gguf"),
        ("TINY:F16", "Tiny-F16.gguf"),
    ],
)
def test_a_name_is_looked_up_in_the_folder_of_models(folder: Path, name: str, file: str) -> None:
    assert find_model(Deployment.of(name)).files == (str(folder / file),)


def test_a_name_that_fits_many_files_is_refused_with_all_of_them(folder: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="tiny may be Tiny-F16, Tiny-Q8_0"):
        find_model(Deployment.of("tiny"))


def test_a_name_of_the_folder_that_is_not_there_is_none(folder: Path) -> None:
    assert Local().find(Deployment.of("ti")) is None
    assert Local().find(Deployment.of("tiny:q4_0")) is None
    assert Local().find(Deployment.of("..")) is None


def test_every_model_that_is_listed_can_be_found_by_its_name(folder: Path) -> None:
    (folder / "broken.gguf").write_bytes(b"GGUF")
    names = [deployment.label for deployment, _ in list_models()]
    assert names == ["guide:q8_0", "guide:f16", "Tiny-F16", "Tiny-Q8_0", "other"]
    assert all(find_model(deployment) == model for deployment, model in list_models())


def test_a_folder_of_models_that_is_not_there_holds_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SERVOLT_MODELS", str(tmp_path / "none"))
    assert Local().names() == []


def test_what_is_no_regular_file_is_passed_over(folder: Path) -> None:
    os.mkfifo(folder / "pipe.gguf")  # who opens it waits for a writer
    (folder / "endless.gguf").symlink_to("/dev/zero")
    (folder / "dangling.gguf").symlink_to("nowhere")
    (folder / "folder.gguf").mkdir()
    assert Local().names() == ["Tiny-F16", "Tiny-Q8_0", "other"]
    assert survey_models().faults == []
    with pytest.raises(ModelNotFoundError, match="is no regular file"):
        find_model(Deployment.of(str(folder / "pipe.gguf")))


def test_a_file_that_is_no_model_is_named_with_the_reason(folder: Path) -> None:
    (folder / "broken.gguf").write_bytes(b"GGUF")
    models, faults = survey_models()
    assert "broken" not in [deployment.label for deployment, _ in models]
    assert [one.code for one in faults] == ["unusable_model"]
    assert faults[0].message.startswith("broken can't be used: ")
    assert "cut off" in faults[0].message


def test_a_name_that_is_no_text_hides_no_other_model(folder: Path) -> None:
    copyfile(GUIDE / "guide-f16.gguf", os.fsencode(folder) + b"/mod\xe8le.gguf")
    models, faults = survey_models()
    assert len(models) == 5
    assert "Rename the file" in faults[0].remedy
    assert faults[0].message.isprintable()
    assert resolved(Deployment.of("guide")).quantization == "q8_0"
    with pytest.raises(ModelNotFoundError, match="no model is called"):
        find_model(Deployment.of("gpt-9"))


def test_names_that_differ_in_their_case_only_are_two_models(folder: Path) -> None:
    copyfile(GUIDE / "guide-q8_0.gguf", folder / "OTHER.gguf")
    assert survey_models().faults == []
    assert [find_model(Deployment.of(name)).quantization for name in ("other", "OTHER")] == ["f16", "q8_0"]
