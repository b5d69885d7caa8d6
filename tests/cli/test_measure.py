"""What a measurement says, and how it ends: by the command line, on the replay engine."""

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]

REPLAY = ("measure", "replay", "--engine", "replay")
# 80 ms of prefill: no token can come within the first millisecond of a window
IN_VAIN = ("measure", "replay?prefill_s_per_token=0.005", "--engine", "replay", "--duration", "0.001")
LOAD = ("--concurrency", "1", "--duration", "0.3", "--repetitions", "2", "--input-len", "16", "--output-len", "8")


@pytest.fixture
def measured(servolt: Run) -> str:
    """The id of a measurement."""
    result = servolt(*REPLAY, *LOAD, "--json")
    identity: str = json.loads(result.stdout)["id"]
    return identity


def _folder(home: Path, identity: str) -> Path:
    (found,) = (home / "home" / "data" / "measurements").glob(f"*-{identity[:12]}")
    return found


def test_natural_prompts_are_not_taken_for_contaminated_ones(servolt: Run) -> None:
    result = servolt("measure", "guide", "--natural", *LOAD, "--json")
    measurement = json.loads(result.stdout)
    assert "cache_contaminated" not in {flag["code"] for flag in measurement["validity"]["flags"]}
    assert measurement["validity"]["evidence"]["prefix_tokens_shared"] > 0  # the template's first tokens
    text = servolt("show", "latest").stdout
    assert "16 words in and the chat template, at most 8 tokens out" in text


def test_a_window_in_which_nothing_arrived_has_no_speed(servolt: Run) -> None:
    result = servolt(*IN_VAIN, "--concurrency", "1", "--repetitions", "1", "--input-len", "16")
    assert result.returncode == 4
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("output_throughput"))
    assert line.endswith("not measured")
    assert "measure for longer, with --duration" in result.stdout
    assert "0.000" not in result.stdout


def test_requests_beyond_the_context_are_a_usage_error_before_anything_starts(servolt: Run, tmp_path: Path) -> None:
    result = servolt("measure", "guide", "--max-model-len", "512", "--input-len", "500", "--output-len", "100")
    assert result.returncode == 2
    assert "longer than the context of 512" in result.stderr
    assert "Warning" not in result.stderr  # it is said once
    assert not (tmp_path / "home" / "state" / "logs").exists()


def test_a_place_that_can_not_be_written_is_told_before_anything_is_measured(servolt: Run, tmp_path: Path) -> None:
    result = servolt(*REPLAY, *LOAD, "-o", str(tmp_path / "missing" / "out.parquet"))
    assert result.returncode == 1
    assert "Nothing was measured" in result.stderr
    assert not (tmp_path / "home" / "data").exists()
    assert servolt(*REPLAY, *LOAD, "-o", str(tmp_path / "out.parquet")).returncode in (0, 4)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("out")] == ["out.parquet"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full is Linux's")
def test_a_result_that_can_not_be_written_says_where_the_measurement_is(servolt: Run) -> None:
    result = servolt(*REPLAY, *LOAD, "--json", "-o", "/dev/full")
    assert result.returncode == 1
    kept = json.loads(servolt("list", "--runs", "--json").stdout)["items"][0]["id"]
    assert f"What was measured is kept: `servolt show {kept}`" in json.loads(result.stderr.splitlines()[-1])["remedy"]


def test_the_exit_code_names_what_made_it_so(servolt: Run) -> None:
    result = servolt(*IN_VAIN, "--concurrency", "1", "--repetitions", "1", "--input-len", "16")
    assert "measured, but invalid: nothing_measured." in result.stderr
    text = " ".join(servolt("measure", "--help").stdout.split())
    assert (
        "degraded (something disturbed it: the flags say what) or invalid (its figures mean nothing: exit code 4)"
        in text
    )
    assert "Exit with 4 for a degraded measurement too" in text


def test_a_tampered_sample_is_found_by_show_and_a_truncated_one_by_list(
    servolt: Run, measured: str, tmp_path: Path
) -> None:
    file = _folder(tmp_path, measured) / "events.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    for name in (measured[:8], "latest", f"run:{measured[:6]}"):
        shown = servolt("show", name)
        assert shown.returncode == 1
        assert f"{measured[:12]} is damaged: events.parquet differs from its manifest" in shown.stderr
        assert shown.stdout == ""
    file.write_bytes(whole[:-10])
    listed = servolt("list", "--runs")
    assert [line.split()[-1] for line in listed.stdout.splitlines()] == ["verdict", "damaged"]
    assert (
        f"1 measurement is damaged: {measured[:12]} (events.parquet differs from its manifest). "
        f"`servolt show {measured[:12]}` says more."
    ) in listed.stderr
    document = json.loads(servolt("list", "--runs", "--json").stdout)
    assert [item["verdict"] for item in document["items"]] == ["damaged"]
    assert [warning["code"] for warning in document["warnings"]] == ["damaged_run"]


def test_measurements_of_another_servolt_are_counted_and_named(servolt: Run, measured: str, tmp_path: Path) -> None:
    folder = _folder(tmp_path, measured)
    file, manifest = folder / "measurement.json", folder / "manifest.json"
    text = file.read_text().replace('"servolt.measurement/1"', '"servolt.measurement/2"').encode()
    sealed = json.loads(manifest.read_text())
    sealed["files"][file.name] = {"sha256": hashlib.sha256(text).hexdigest(), "bytes": len(text)}
    file.write_bytes(text)
    manifest.write_text(json.dumps(sealed))
    listed = servolt("list", "--runs")
    assert listed.returncode == 0
    assert "no measurements yet" not in listed.stdout
    assert f"1 measurement is not readable here: {measured[:12]} (" in listed.stderr
    shown = servolt("show", measured[:12])
    assert shown.returncode == 1
    assert "A newer servolt wrote it, as servolt.measurement/2" in shown.stderr
