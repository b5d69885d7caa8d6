"""Formats, streams and terminals: what was asked is done or refused, and nothing is cut off without a word."""

import contextlib
import csv
import fcntl
import io
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from servolt.cli.ps import _remaining as remaining

Result = subprocess.CompletedProcess[str]
Run = Callable[..., Result]


def in_terminal(columns: int, *args: str, **environ: str) -> str:
    """What `servolt ARGS` writes to a terminal of so many columns."""
    ours = ("SERVOLT_", "AI_AGENT", "AGENT", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "servolt", *args], stdout=slave, stdin=slave, env={**kept, "TERM": "xterm", **environ}
    )
    os.close(slave)
    written = b""
    with contextlib.suppress(OSError):  # so Linux says that the other side is closed
        while block := os.read(master, 65536):
            written += block
    os.close(master)
    assert process.wait(timeout=60) == 0
    return written.decode().replace("\r\n", "\n")


@pytest.mark.parametrize(
    "flags",
    [
        ["--json", "--format", "csv"],
        ["--json", "-q"],
        ["-q", "--format", "md"],
        ["-o", "dirs.csv", "--json"],
        ["-o", "dirs.parquet", "-q"],
        ["-o", "dirs.JSON", "--format", "jsonl"],
    ],
)
def test_two_formats_at_once_are_a_usage_error(servolt: Run, tmp_path: Path, flags: list[str]) -> None:
    result = servolt("dirs", *(str(tmp_path / flag) if flag.startswith("dirs.") else flag for flag in flags))
    assert result.returncode == 2
    assert result.stdout == ""
    assert "exclude each other" in result.stderr
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("dirs")]


@pytest.mark.parametrize(
    "flags", [["--json", "--format", "json"], ["--json", "-o", "dirs.json"], ["-q", "-o", "a.txt"]]
)
def test_one_format_said_twice_is_no_conflict(servolt: Run, tmp_path: Path, flags: list[str]) -> None:
    assert servolt("dirs", *(str(tmp_path / flag) if "." in flag else flag for flag in flags)).returncode == 0


@pytest.mark.parametrize("flags", [["yaml", "--json"], ["shell", "-q"], ["shell", "-o", "command.json"]])
def test_an_export_and_another_format_are_a_usage_error(servolt: Run, tmp_path: Path, flags: list[str]) -> None:
    given = [str(tmp_path / flag) if flag.startswith("command.") else flag for flag in flags]
    result = servolt("plan", "guide", "--export", *given)
    assert result.returncode == 2
    assert f"--export {flags[0]}" in result.stderr


def test_an_export_goes_to_a_file_of_any_name(servolt: Run, tmp_path: Path) -> None:
    target = tmp_path / "start.sh"
    assert servolt("plan", "guide", "--export", "shell", "-o", str(target)).returncode == 0
    assert "llamacpp_runner" in target.read_text()


def test_a_schema_is_json_and_refuses_to_be_anything_else(servolt: Run) -> None:
    assert servolt("schema", "plan", "--format", "csv").returncode == 2
    assert json.loads(servolt("schema", "plan", AI_AGENT="1").stdout)["title"] == "Plan"


def test_a_closed_stdout_is_told(servolt: Run, tmp_path: Path) -> None:
    for args in ("dirs", "plan guide", "dirs --json"):
        result = subprocess.run(
            ["/bin/sh", "-c", f"exec {sys.executable} -m servolt {args} >&-"],
            capture_output=True,
            text=True,
            env={**os.environ, "SERVOLT_HOME": str(tmp_path)},
            check=False,
            timeout=60,
        )
        assert result.returncode == 1
        assert "stdout is closed" in result.stderr


def test_an_argument_that_is_no_text_here_is_told(servolt: Run) -> None:
    result = servolt("plan", "modèle.gguf", PYTHONUTF8="0", LC_ALL="C")
    assert result.returncode == 2
    assert "is no text in this locale" in result.stderr
    assert "LC_ALL" in result.stderr


def test_data_survives_a_locale_that_knows_ascii_only(servolt: Run, tmp_path: Path) -> None:
    home = str(tmp_path / "é")
    narrow = {"PYTHONUTF8": "0", "LC_ALL": "C", "SERVOLT_HOME": home}
    shown = json.loads(servolt("dirs", "--json", **narrow).stdout)["items"][0]["path"]
    assert os.fsencode(shown) == os.fsencode(f"{home}/config")
    for form in ("-q", "--format=csv", "--format=md", "--format=agent"):
        assert f"{home}/config" in servolt("dirs", form, **narrow).stdout


def test_colour_is_asked_for_and_refused_by_the_usual_names(servolt: Run) -> None:
    assert "\x1b" not in servolt("config").stdout
    assert "\x1b" in servolt("config", FORCE_COLOR="1").stdout
    assert "\x1b" not in servolt("config", FORCE_COLOR="1", NO_COLOR="1").stdout
    assert "\x1b" in in_terminal(80, "config")
    assert "\x1b" not in in_terminal(80, "config", NO_COLOR="1")
    assert "\x1b" not in in_terminal(80, "config", TERM="dumb")


@pytest.mark.parametrize("columns", [40, 70, 100])
def test_a_narrow_terminal_loses_nothing_of_a_plan(tmp_path: Path, columns: int) -> None:
    text = in_terminal(columns, "plan", "guide", NO_COLOR="1", SERVOLT_HOME=str(tmp_path))
    words = " ".join(text.split())
    assert "…" not in text
    for expected in (
        "FITS",
        "kv_cache",
        "16.0 MiB",
        "tpot p50",
        "c=4",
        "formula",
        "4 sequences x 2,048 cells x 2,048 B",
    ):
        assert expected in words or columns == 40
    for line in text.splitlines():
        if line.startswith(("prefill", "decode", "output", "ttft", "tpot", "weights")):
            assert len(line) <= columns


def test_a_plan_as_a_table_holds_the_verdict_the_memory_and_the_fixes(servolt: Run) -> None:
    result = servolt("plan", "guide", "--max-model-len", "2M", "--max-num-seqs", "64", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    kinds = [row["row"] for row in rows]
    assert kinds[0] == "verdict"
    assert rows[0]["metric"] in ("no", "tight", "fits")
    assert {row["metric"] for row in rows if row["row"] == "memory"} >= {"weights", "kv_cache", "available"}
    assert int(next(row["value"] for row in rows if row["metric"] == "kv_cache")) == 64 * 2**21 * 2048
    assert [row for row in rows if row["row"] == "fix"] if rows[0]["metric"] == "no" else True
    assert {row["metric"] for row in rows if row["row"] == "estimate"} >= {"ttft", "tpot", "output_throughput"}
    assert servolt("plan", "guide", "--format", "md").stdout.splitlines()[2].startswith("| verdict | fits |")
    assert servolt("plan", "guide", AI_AGENT="1").stdout.splitlines()[1].startswith("verdict\tfits\t")


def test_an_executable_that_is_not_there_is_told_by_the_plan(servolt: Run) -> None:
    result = servolt("plan", "guide", "--engine-executable", "/nonexistent/llama-server")
    assert result.returncode == 2
    assert "/nonexistent/llama-server is not there" in result.stderr


def test_a_file_that_does_not_fit_is_named(servolt: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / "short.yaml").write_text("model: guide\nmax_model_len: 1K\n")
    refused = servolt("plan", str(tmp_path / "empty.yaml"))
    assert refused.returncode == 2
    assert "empty.yaml" in refused.stderr
    assert "document:" not in refused.stderr
    assert servolt("plan", str(tmp_path / "short.yaml"), "-q").stdout == "fits\n"


def test_doctor_reports_damaged_documents_and_goes_on(servolt: Run, tmp_path: Path) -> None:
    data = tmp_path / "home" / "data"
    data.mkdir(parents=True)
    (data / "calibration.json").write_text("{")
    (data / "accelerator.json").write_text("[]")
    result = servolt("doctor")
    assert result.returncode == 0
    assert "calibration unreadable" in result.stdout
    assert "doctor --calibrate" in result.stderr
    warnings = json.loads(servolt("doctor", "--json").stdout)["warnings"]
    assert {one["code"] for one in warnings} == {"calibration_unreadable", "accelerator_unreadable"}


def test_doctor_says_that_its_folders_can_not_be_written(servolt: Run, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file where the folder should be")
    result = servolt("doctor", "--calibrate")
    assert result.returncode == 1
    assert "E-STO-001" in result.stderr
    assert "SERVOLT_HOME" in result.stderr


def test_a_model_that_can_not_be_used_is_listed_on_stderr_with_the_reason(servolt: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    os.mkfifo(tmp_path / "pipe.gguf")
    result = servolt("list", SERVOLT_MODELS=str(tmp_path))
    assert result.returncode == 0
    assert "guide:q8_0" in result.stdout
    assert "broken" not in result.stdout
    assert "Warning: broken can't be used" in result.stderr
    (warning,) = json.loads(servolt("list", "--json", SERVOLT_MODELS=str(tmp_path)).stdout)["warnings"]
    assert warning["code"] == "unusable_model"


def test_how_long_a_model_stays_is_told_as_a_duration() -> None:
    now = datetime.now(UTC)
    assert remaining((now + timedelta(seconds=250.4)).isoformat()) == "4 min 10 s"
    assert remaining((now - timedelta(seconds=5)).isoformat()) == "now"
    assert remaining("2318-01-01T00:00:00Z") == "never"
    assert remaining(None) == ""
