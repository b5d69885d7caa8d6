"""Where a setting comes from."""

from pathlib import Path

import pytest

from servolt import settings
from servolt.errors import InvalidInputError


def test_a_flag_wins_over_all(tmp_path: Path) -> None:
    found = settings.resolve("model", "mine", environ={"SERVOLT_MODEL": "other"}, cwd=tmp_path)
    assert (found.value, found.origin) == ("mine", "flag")


def test_precedence_from_environment_to_default(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "below").mkdir(parents=True)
    (project / "servolt.toml").write_text('keep_alive = "7m"\n')
    home = tmp_path / "home"
    (home / "config").mkdir(parents=True)
    (home / "config" / "config.toml").write_text('keep_alive = "6m"\nmax_queue = 3\n')
    environ = {
        "SERVOLT_HOME": str(home),
        "OLLAMA_KEEP_ALIVE": "5s",
        "OLLAMA_MAX_QUEUE": "9",
        "OLLAMA_NUM_PARALLEL": "2",
    }

    def value(name: str, **more: str) -> object:
        return settings.resolve(name, environ={**environ, **more}, cwd=project / "below").value

    assert value("keep_alive", SERVOLT_KEEP_ALIVE="8m") == 480
    assert value("keep_alive") == 420  # the project's file, found upward
    assert value("max_queue") == 3  # the user's file
    assert value("max_num_seqs") == 2  # Ollama's variable
    assert value("load_timeout") == 300  # the default


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.0.0.0", "0.0.0.0:11434"),
        ("127.0.0.1:80", "127.0.0.1:80"),
        (":1234", "127.0.0.1:1234"),
        ("http://localhost:99/", "localhost:99"),
    ],
)
def test_the_address_takes_ollamas_forms(text: str, value: str, tmp_path: Path) -> None:
    assert settings.resolve("host", environ={"OLLAMA_HOST": text}, cwd=tmp_path).value == value


def test_a_bad_value_names_its_place(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="OLLAMA_MAX_QUEUE"):
        settings.resolve("max_queue", environ={"OLLAMA_MAX_QUEUE": "many"}, cwd=tmp_path)


@pytest.mark.parametrize("content", ["model = ", 'modle = "guide"\n'])
def test_a_bad_file_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "servolt.toml").write_text(content)
    with pytest.raises(InvalidInputError, match=r"servolt\.toml"):
        settings.resolve("model", environ={"SERVOLT_HOME": str(tmp_path)}, cwd=tmp_path)


def test_one_variable_moves_all_folders(tmp_path: Path) -> None:
    found = settings.folders({"SERVOLT_HOME": str(tmp_path)})
    assert {found.config.parent, found.data.parent, found.cache.parent, found.state.parent} == {tmp_path}


@pytest.mark.parametrize("written", ["true", "[1]", "{a = 1}", "2026-01-01"])
def test_a_value_that_is_neither_text_nor_a_number_is_refused_with_its_place(tmp_path: Path, written: str) -> None:
    (tmp_path / "servolt.toml").write_text(f"model = {written}\n")
    with pytest.raises(InvalidInputError, match=r"servolt\.toml: .* is neither text nor a number"):
        settings.resolve("model", environ={}, cwd=tmp_path)
