"""What shells offer, asked as shells ask."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from servolt.sources import list_models

Result = subprocess.CompletedProcess[str]
Run = Callable[..., Result]


@pytest.fixture
def complete(servolt: Run) -> Callable[..., list[str]]:
    """The values offered for the last of these words."""

    def ask(*words: str, shell: str = "bash", **environ: str) -> list[str]:
        asked = {"COMP_WORDS": "\n".join(("servolt", *words)), "COMP_CWORD": str(len(words))}
        result = servolt(_SERVOLT_COMPLETE=f"{shell}_complete", **asked, **environ)
        assert result.stderr == ""
        return [line.removeprefix("plain,") for line in result.stdout.splitlines() if line]

    return ask


@pytest.mark.parametrize("command", ["plan", "serve", "run", "measure", "show", "stop"])
def test_models_are_offered_where_a_model_is_expected(complete: Callable[..., list[str]], command: str) -> None:
    assert complete(command, "") == ["guide:f16", "guide:q8_0"]
    assert complete(command, "gui") == ["guide:f16", "guide:q8_0"]


def test_every_built_in_model_is_offered(complete: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SERVOLT_MODELS", raising=False)
    assert complete("plan", "") == sorted(deployment.label for deployment, _ in list_models())


def test_files_of_the_folder_of_models_are_offered_by_name(complete: Callable[..., list[str]], tmp_path: Path) -> None:
    (tmp_path / "Tiny-Q8_0.gguf").write_bytes(b"")
    (tmp_path / "readme.txt").write_bytes(b"")
    assert complete("plan", "t", SERVOLT_MODELS=str(tmp_path)) == ["Tiny-Q8_0"]


def test_bash_takes_a_colon_for_a_word_of_its_own(complete: Callable[..., list[str]]) -> None:
    assert complete("plan", "guide", ":") == ["f16", "q8_0"]
    assert complete("plan", "guide", ":", "q") == ["q8_0"]
    assert complete("measure", "guide", ":", "q8_0", "g") == ["guide:f16", "guide:q8_0"]
    assert complete("plan", "guide", ":", "q8_0", "") == []


def test_a_path_is_left_to_the_shell(complete: Callable[..., list[str]]) -> None:
    assert complete("plan", "./mod") == ["file,./mod"]


def test_commands_and_options_are_offered_as_before(complete: Callable[..., list[str]]) -> None:
    assert complete("pl") == ["plan"]
    assert complete("plan", "--max-model") == ["--max-model-len"]
    assert complete("plan", "--json", "gui") == ["guide:f16", "guide:q8_0"]
    assert complete("plan", "--engine", "gui") == []


def test_zsh_gets_whole_names(complete: Callable[..., list[str]]) -> None:
    assert complete("plan", "guide:q", shell="zsh") == ["plain", "guide:q8_0", "_"]


def test_nothing_heavy_is_imported_for_a_name() -> None:
    program = (
        "import os, sys; from servolt.cli.main import run\n"
        "os.environ |= {'COMP_WORDS': 'servolt\\nmeasure\\ng', 'COMP_CWORD': '2'}\n"
        "os.environ['_SERVOLT_COMPLETE'] = 'bash_complete'\n"
        "try: run([])\n"
        "except SystemExit: pass\n"
        "heavy = {'rich','pydantic','numpy','duckdb','uvicorn','httpx2','psutil','yaml','orjson','asyncio','gguf'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert result.stdout.splitlines() == ["plain,guide:f16", "plain,guide:q8_0"]
    assert (result.returncode, result.stderr) == (0, "")
