"""`servolt calibrate` as a user runs it."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Result = subprocess.CompletedProcess[str]
Run = Callable[..., Result]

LOG = """\
srv    load_model: loading model 'guide-q8_0.gguf'
load_tensors:   CPU_Mapped model buffer size =     3.33 MiB
llama_context: n_seq_max     = 4
llama_context: n_ctx         = 8192
llama_context: n_ctx_seq     = 2048
llama_kv_cache:        CPU KV buffer size =    16.00 MiB
sched_reserve:        CPU compute buffer size =     8.27 MiB
"""


@pytest.fixture
def log(tmp_path: Path) -> str:
    path = tmp_path / "engine.log"
    path.write_text(LOG)
    return str(path)


def test_a_log_shows_what_was_predicted_and_what_was_logged(servolt: Run, log: str) -> None:
    result = servolt("calibrate", "guide", "--log", log)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["term", "predicted", "logged", "ratio"] in lines
    assert ["kv_cache", "16.0", "MiB", "16.0", "MiB", "1.000"] in lines
    assert ["kv_cache_tokens", "8,192", "8,192", "1.000"] in lines


def test_what_is_known_is_listed_and_forgotten(servolt: Run, log: str) -> None:
    (row,) = servolt("calibrate", "guide", "--log", log, "-q").stdout.split()
    listed = json.loads(servolt("calibrate", "--list", "--json").stdout)
    assert (listed["schema"], [item["id"] for item in listed["items"]]) == ("servolt.known_rows/1", [row])
    assert servolt("calibrate", "--forget", row[:6], "-q").stdout.split() == [row]
    assert "nothing is known yet" in servolt("calibrate", "--list").stdout


def test_results_of_others_are_imported_and_said_to_be_theirs(servolt: Run, tmp_path: Path) -> None:
    table = tmp_path / "results.csv"
    table.write_text("engine,model,gpu,concurrency,isl,osl,tpot_ms\nvllm,guide,H100 SXM,8,512,128,0.9\n")
    result = servolt("calibrate", "--import", str(table), "--unverified", "--format", "csv")
    assert result.returncode == 0, result.stderr
    assert "imported, unverified" in result.stdout
    assert "tpot 0.0009 at c=8" in result.stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "nothing to learn from is named"),
        (["--list", "--forget", "all"], "--list and --forget exclude each other"),
        (["--log", "no-such-file.log"], "can't be read"),
        (["--forget", "feed"], "nothing is known under"),
        (["guide", "--log", str(Path(__file__).with_name("conftest.py"))], "no line of it"),
        (["--import", __file__], "row 1|CSV|no row|longer than"),
        (["guide", "--deployment", "x.yaml", "--log", __file__], "named twice"),
    ],
)
def test_what_can_not_be_done_is_a_usage_error(servolt: Run, args: list[str], said: str) -> None:
    result = servolt("calibrate", *args)
    assert result.returncode == 2
    assert result.stdout == ""
    assert any(part in result.stderr for part in said.split("|")), result.stderr
    assert result.stderr.startswith("Error [E-USE-001]")
    assert "Traceback" not in result.stderr


def test_the_store_is_a_document_with_a_schema(servolt: Run) -> None:
    schema = json.loads(servolt("schema", "known").stdout)
    assert "memory" in schema["properties"]


def test_a_folder_of_results_is_read_whole_and_the_device_stands_beside(servolt: Run, tmp_path: Path) -> None:
    run = {"completed": 8, "total_input_tokens": 4096, "total_output_tokens": 1024, "request_rate": "inf"}
    for streams in (4, 8):
        plain = {**run, "max_concurrency": streams, "median_tpot_ms": 0.9}
        (tmp_path / f"c{streams}.json").write_text(json.dumps(plain))
    result = servolt("calibrate", "guide", "--accelerator", "H100", "--import", str(tmp_path), "--format", "csv")
    assert result.returncode == 0, result.stderr
    assert "tpot 0.0009 at c=4" in result.stdout
    assert "tpot 0.0009 at c=8" in result.stdout
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no results" in servolt("calibrate", "--import", str(empty)).stderr
