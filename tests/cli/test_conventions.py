"""Streams, formats, exit codes and start-up of the command line."""

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from servolt.cli.main import COMMANDS
from servolt.cli.schema import DOCUMENTS, json_schema

Result = subprocess.CompletedProcess[str]
Run = Callable[..., Result]


def test_help_lists_every_command_and_the_exit_codes(servolt: Run) -> None:
    result = servolt("--help")
    assert result.returncode == 0
    assert result.stderr == ""
    for name in COMMANDS:
        assert f"  {name} " in result.stdout
    assert "130 interrupted" in result.stdout


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from servolt.cli.main import run; run(['--help']); "
        "heavy = {'rich','pydantic','numpy','duckdb','aiohttp','uvicorn','httpx2','psutil','yaml','orjson','asyncio'}; "
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert result.stderr == ""
    assert result.returncode == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_of_commands_says_what_the_command_says(name: str) -> None:
    command = importlib.import_module(f"servolt.cli.{name}").command
    assert command.name in (name, "command")
    assert command.help, "every command has a help text"
    assert [one for one in command.params if one.name == "as_json"], "every command has --json"


@pytest.mark.parametrize("args", [["nope"], ["dirs", "--nope"], ["plan", "guide", "--threads", "many"]])
def test_a_usage_error_is_2_and_stdout_stays_empty(args: list[str], servolt: Run) -> None:
    result = servolt(*args)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Error [E-USE-001]")
    assert "Traceback" not in result.stderr


def test_an_error_under_json_is_one_object_on_stderr(servolt: Run) -> None:
    result = servolt("plan", "no-such-model", "--json")
    assert result.returncode == 1
    assert result.stdout == ""
    error = json.loads(result.stderr)
    assert (error["schema"], error["code"]) == ("servolt.error/1", "E-MOD-001")
    assert error["remedy"]


def test_formats_of_a_list(servolt: Run) -> None:
    plain = json.loads(servolt("dirs", "--json").stdout)
    assert plain["schema"] == "servolt.dirs/1"
    assert len(plain["items"]) == 4
    assert servolt("dirs", "-q").stdout.split() == [item["path"] for item in plain["items"]]
    assert servolt("dirs", "--format", "csv").stdout.startswith("name,path\n")
    assert servolt("dirs", AI_AGENT="1").stdout.startswith("name\tpath\n")
    assert "\x1b" not in servolt("dirs").stdout


def test_a_file_takes_its_format_from_its_ending(servolt: Run, tmp_path: Path) -> None:
    target = tmp_path / "dirs.json"
    result = servolt("dirs", "-o", str(target))
    assert result.stdout == ""
    assert json.loads(target.read_text())["schema"] == "servolt.dirs/1"
    refused = servolt("dirs", "-o", str(tmp_path / "dirs.doc"))
    assert refused.returncode == 2


def test_a_file_that_cannot_be_written_is_an_error_with_a_remedy(servolt: Run, tmp_path: Path) -> None:
    result = servolt("dirs", "-o", str(tmp_path / "missing" / "dirs.json"))
    assert result.returncode == 1
    assert "E-STO-001" in result.stderr


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_each_document_has_a_valid_json_schema(name: str) -> None:
    schema = json_schema(name)
    Draft202012Validator.check_schema(schema)
    assert f"servolt.{name}/1" in json.dumps(schema)
