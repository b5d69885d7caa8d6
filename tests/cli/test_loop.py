"""The loop through the command line: plan, measure, compare, show."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from servolt.cli.schema import json_schema

Run = Callable[..., subprocess.CompletedProcess[str]]

LOAD = ("--concurrency", "1", "--duration", "0.5", "--repetitions", "2", "--input-len", "16", "--output-len", "16")


@pytest.mark.parametrize("model", ["guide", "guide:f16"])
def test_a_plan_has_intervals_and_a_basis(servolt: Run, model: str) -> None:
    plan = json.loads(servolt("plan", model, "--json").stdout)
    assert plan["schema"] == "servolt.plan/1"
    assert plan["verdict"] == "fits"
    for estimate in plan["estimates"]:
        assert estimate["low"] <= estimate["value"] <= estimate["high"]
        assert estimate["basis"] in ("formula", "calibrated", "measured")


def test_a_plan_for_people_says_what_it_rests_on(servolt: Run) -> None:
    text = servolt("plan", "guide").stdout
    assert text.startswith("guide:q8_0 · llamacpp")
    assert "FITS" in text
    assert "stated defaults" in text
    assert "servolt doctor --calibrate" in text
    assert "energy      not predicted" in text


def test_the_exported_command_is_the_one_that_serve_starts(servolt: Run) -> None:
    exported = servolt("plan", "guide", "--max-num-seqs", "2", "--export", "shell").stdout
    shown = servolt("serve", "guide", "--max-num-seqs", "2", "--dry-run").stdout.splitlines()
    # serve picks a free port each time, and an export names one
    lines = [line.replace("'{port}'", "8000") for line in shown if not line.startswith("#")]
    assert lines == [line for line in exported.splitlines() if not line.startswith("#")]
    assert "-np 2" in exported
    assert json.loads(servolt("plan", "guide", "--export", "json").stdout)["schema"] == "servolt.command/1"


def test_what_does_not_fit_is_3_under_check(servolt: Run) -> None:
    result = servolt("plan", "guide", "--max-model-len", "500000000", "--check")
    assert result.returncode == 3
    assert "E-FIT-001" in result.stderr
    assert "guide:q8_0 does not fit." in result.stderr
    assert "DOES NOT FIT" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["--kv-cache-dtype", "f5"],
        ["--concurrency", "0"],
        ["--concurrency", "1.5"],
        ["--request-rate", "-1"],
        ["--output-len", "0"],
        ["--max-model-len", "-4"],
    ],
)
def test_bad_settings_are_refused_with_a_remedy(servolt: Run, arguments: list[str]) -> None:
    result = servolt("plan", "guide", *arguments)
    assert result.returncode == 2, result.stdout
    assert result.stdout == ""
    assert "Hint:" in result.stderr


def test_a_deployment_file_is_a_model(servolt: Run, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text("model: guide\nquantization: f16\nmax_num_seqs: 2\n")
    plan = json.loads(servolt("plan", str(tmp_path / "small.yaml"), "--max-num-seqs", "3", "--json").stdout)
    assert plan["deployment"]["quantization"] == "f16"
    assert plan["deployment"]["max_num_seqs"] == 3  # a flag wins over the file


def test_measure_show_compare_and_the_next_plan(servolt: Run) -> None:
    result = servolt("measure", "guide:f16", "guide:q8_0", *LOAD, "--json")
    assert result.returncode in (0, 4), result.stderr  # 4: measured but not valid, on a busy machine
    f16, q8_0 = json.loads(result.stdout)["items"]
    assert "saved " in result.stderr

    shown = json.loads(servolt("show", f16["id"][:8], "--json").stdout)
    assert shown["id"] == f16["id"]
    assert "the same" in servolt("show", f16["id"][:8], "--recompute").stdout
    assert [row["deployment"] for row in json.loads(servolt("list", "--runs", "--json").stdout)["items"]].count(
        "guide:f16"
    ) == 1

    if result.returncode == 4:
        pytest.skip(f"the machine is too busy for a valid measurement: {result.stderr.splitlines()[-2]}")
    comparison = json.loads(servolt("compare", "--json").stdout)
    assert comparison["measurements"] == [f16["id"], q8_0["id"]]
    assert [one["field"] for one in comparison["differs"]] == ["quantization", "weights_bytes"]
    assert comparison["predictions"]
    load = ("--concurrency", "1", "--input-len", "16", "--output-len", "16")
    plan = json.loads(servolt("plan", "guide:f16", *load, "--json").stdout)
    assert {one["basis"] for one in plan["estimates"] if one["metric"] == "decode_throughput"} == {"measured"}


def test_a_changed_result_is_found_out(servolt: Run, tmp_path: Path) -> None:
    servolt("measure", "replay", "--engine", "replay", *LOAD)
    (file,) = (tmp_path / "home").rglob("measurement.json")
    file.write_text(file.read_text().replace('"unit"', '"unit" '))
    result = servolt("show", "latest", "--recompute")
    assert result.returncode == 1
    assert "E-STO-001" in result.stderr


def test_one_measurement_is_not_compared(servolt: Run) -> None:
    result = servolt("compare")
    assert result.returncode == 2
    assert "servolt measure" in result.stderr


def test_show_of_nothing_known_names_what_there_is(servolt: Run) -> None:
    result = servolt("show", "nothing")
    assert result.returncode == 1
    assert "guide:q8_0" in result.stderr


def test_a_folder_that_cannot_be_written_is_an_error_and_leaves_nothing(servolt: Run, tmp_path: Path) -> None:
    blocked = tmp_path / "home" / "data"
    blocked.parent.mkdir()
    blocked.write_text("a file where a folder should be")
    result = servolt("measure", "replay", "--engine", "replay", *LOAD)
    assert result.returncode == 1
    assert "E-STO-001" in result.stderr
    assert "Traceback" not in result.stderr


def test_doctor_names_no_host_and_says_what_is_not_known(servolt: Run) -> None:
    import socket

    text = servolt("doctor").stdout
    assert "engine llamacpp" in text
    assert "memory bandwidth           not measured" in text
    assert socket.gethostname() not in text


def test_models_are_listed_by_the_names_that_commands_take(servolt: Run) -> None:
    names = servolt("list", "-q").stdout.split()
    assert names[:2] == ["guide:q8_0", "guide:f16"]
    for name in names[:2]:
        assert servolt("show", name).returncode == 0


def test_export_writes_a_folder_that_names_its_files(servolt: Run, tmp_path: Path) -> None:
    result = servolt("export", "guide:f16", str(tmp_path / "out"), "-q")
    assert result.returncode == 0, result.stderr
    assert str(tmp_path / "out" / "model.safetensors") in result.stdout.split()
    refused = servolt("export", "guide:q8_0", str(tmp_path / "other"))
    assert refused.returncode == 2
    assert "Take the f16" in refused.stderr


def test_a_workload_file_leaves_the_rest_to_the_command(servolt: Run, tmp_path: Path) -> None:
    (tmp_path / "load.yaml").write_text("concurrency: [1]\ninput_len: 8\noutput_len: 8\n")
    arguments = ("--workload", str(tmp_path / "load.yaml"), "--quick", "--engine", "replay", "--json")
    measured = json.loads(servolt("measure", "replay", *arguments).stdout)
    assert (measured["workload"]["repetitions"], measured["workload"]["duration_s"]) == (3, 1.5)
    assert measured["workload"]["input_len"] == 8


def test_a_load_is_closed_or_open(servolt: Run) -> None:
    result = servolt("plan", "guide", "--concurrency", "4", "--request-rate", "5")
    assert result.returncode == 2
    assert "not both" in result.stderr


def test_one_deployment_has_one_digest_by_either_name(servolt: Run) -> None:
    digests = {
        json.loads(servolt("plan", name, "--json").stdout)["deployment_digest"] for name in ("guide", "guide:q8_0")
    }
    assert len(digests) == 1


def test_a_stream_of_ascii_gets_ascii(servolt: Run) -> None:
    result = servolt("plan", "guide", PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr
    assert "guide:q8_0 - llamacpp" in result.stdout


def test_an_interrupted_measurement_keeps_its_whole_blocks(tmp_path: Path) -> None:
    env = {**os.environ, "SERVOLT_HOME": str(tmp_path)}
    load = ("--concurrency", "1", "--duration", "0.3", "--repetitions", "1000", "--input-len", "8", "--output-len", "8")
    command = [sys.executable, "-m", "servolt", "measure", "replay", "--engine", "replay", *load]
    kept: list[Path] = []
    for patience_s in (5, 15, 45):  # on a busy machine the first block may take that long, and before it none is whole
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            time.sleep(patience_s)
            process.send_signal(signal.SIGINT)
            process.wait(timeout=30)
        assert process.returncode == 130
        kept = list(tmp_path.rglob("measurement.json"))
        if kept:
            break
    assert len(kept) == 1
    assert json.loads(kept[0].read_text())["windows"]


def test_the_printed_lines_carry_the_flags_of_the_plan(servolt: Run) -> None:
    text = servolt("plan", "guide:f16", "--max-model-len", "1k", "--max-num-seqs", "2").stdout
    assert "servolt serve guide:f16 --max-model-len 1000 --max-num-seqs 2" in text


def test_a_link_that_is_written_to_stays_a_link(servolt: Run, tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to(tmp_path / "plan.json")
    assert servolt("plan", "guide", "-o", str(tmp_path / "link.json")).returncode == 0
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "plan.json").read_text())["schema"] == "servolt.plan/1"


def test_what_is_printed_fits_the_published_schema(servolt: Run) -> None:
    for arguments, name in ((("plan", "guide"), "plan"), (("show", "guide"), "model")):
        Draft202012Validator(json_schema(name)).validate(json.loads(servolt(*arguments, "--json").stdout))
