"""`servolt serve`, `ps` and `stop`, as processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from servolt.cli.address import read_address

Run = Callable[..., subprocess.CompletedProcess[str]]


class Gateway:
    def __init__(self, process: subprocess.Popen[str], ready: dict[str, Any]) -> None:
        self.process, self.url, self.models = process, str(ready["url"]), ready["models"]


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    env = {**os.environ, "SERVOLT_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "servolt", "serve", "guide", "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            yield Gateway(process, json.loads(line))
        finally:
            process.kill()


def test_the_ready_line_says_where_and_what(gateway: Gateway) -> None:
    assert set(gateway.models) == {"guide", "guide:q8_0"}
    assert httpx2.get(gateway.url).text == "Ollama is running"


def test_ps_shows_what_is_loaded_and_stop_unloads_it(gateway: Gateway, servolt: Run) -> None:
    (row,) = json.loads(servolt("ps", "--json").stdout)["items"]
    assert (row["url"], row["pid"]) == (gateway.url, gateway.process.pid)
    assert row["model"].startswith("guide")
    assert servolt("stop", "guide").returncode == 0
    (row,) = json.loads(servolt("ps", "--json").stdout)["items"]
    assert row["model"] is None
    assert servolt("stop", "guide").returncode == 1


def test_stop_ends_the_server_and_its_engine(gateway: Gateway, servolt: Run) -> None:
    engines = psutil.Process(gateway.process.pid).children(recursive=True)
    assert engines
    assert servolt("stop", "-q").stdout.split() == [gateway.url]
    assert gateway.process.wait(timeout=20) == 0
    assert not [engine for engine in engines if engine.is_running() and engine.status() != psutil.STATUS_ZOMBIE]
    assert servolt("ps").stdout.startswith("no server runs")


def test_a_killed_server_leaves_no_engine_and_is_forgotten(gateway: Gateway, servolt: Run) -> None:
    engines = psutil.Process(gateway.process.pid).children(recursive=True)
    gateway.process.send_signal(signal.SIGKILL)
    gateway.process.wait(timeout=20)
    _, alive = psutil.wait_procs(engines, timeout=10)
    assert not [engine for engine in alive if engine.status() != psutil.STATUS_ZOMBIE]
    assert servolt("ps").stdout.startswith("no server runs")


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(servolt: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = servolt("serve", "guide", "--port", str(taken.getsockname()[1]))
    assert result.returncode == 1
    assert "E-NET-001" in result.stderr
    assert f"by {psutil.Process().name()} (process {os.getpid()})" in result.stderr


def test_a_port_that_another_gateway_has_names_its_models(gateway: Gateway, servolt: Run) -> None:
    result = servolt("serve", "guide", "--port", gateway.url.rpartition(":")[2])
    assert result.returncode == 1
    assert f"by servolt serve (process {gateway.process.pid}) with guide, guide:q8_0." in result.stderr


def test_an_address_that_others_reach_needs_a_word(servolt: Run) -> None:
    result = servolt("serve", "guide", "--host", "0.0.0.0", "--port", "0")
    assert result.returncode == 2
    assert "--exposed" in result.stderr


def test_a_dry_run_prints_the_command_and_starts_nothing(servolt: Run, tmp_path: Path) -> None:
    result = servolt("serve", "guide", "--dry-run", "--port", "0", "--keep-alive", "10m")
    about, names, command = result.stdout.splitlines()
    assert about == "# gateway: any free port, a model is unloaded after 10 min 0 s without a request"
    assert names == "# guide, guide:q8_0"
    assert "llamacpp_runner" in command
    assert "{port}" in command
    assert not list((tmp_path / "home").rglob("*.log"))


def test_a_dry_run_as_json_is_one_document(servolt: Run) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = ("--host", f"127.0.0.1:{port}")
    result = servolt("serve", "guide", "guide:f16", "--dry-run", "--json", *address, "--keep-alive", "-1")
    plain = json.loads(result.stdout)
    assert (plain["schema"], plain["url"], plain["keep_alive_s"]) == (
        "servolt.dry_run/1",
        f"http://127.0.0.1:{port}",
        -1.0,
    )
    assert [model["names"] for model in plain["models"]] == [["guide", "guide:q8_0"], ["guide:f16"]]
    assert all("servolt.engines.llamacpp_runner" in model["argv"] for model in plain["models"])
    assert all(model["environment"] == ["LLAMA_API_KEY"] for model in plain["models"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--host", "here:there"), "has no port between 0 and 65535"),
        (("--keep-alive", "nan"), "--keep-alive"),
        (("--keep-alive", "soon"), "--keep-alive"),
        (("--format", "csv"), "no form as csv"),
    ],
)
def test_a_dry_run_refuses_what_the_real_one_would(servolt: Run, arguments: tuple[str, ...], words: str) -> None:
    result = servolt("serve", "guide", "--dry-run", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert words in result.stderr


TOO_MUCH = ("--max-num-seqs", "100", "--max-model-len", "1M")  # 200 GiB of KV cache


@pytest.mark.parametrize("models", [("guide",), ()])
def test_what_does_not_fit_is_not_served(servolt: Run, models: tuple[str, ...]) -> None:
    result = servolt("serve", *models, *TOO_MUCH, "--port", "0")
    assert result.returncode == 3
    assert "Error [E-FIT-001]" in result.stderr
    assert "--force" in result.stderr
    forced = servolt("serve", *models, *TOO_MUCH, "--port", "0", "--force", "--dry-run")
    assert forced.returncode == 0
    assert "-np 100" in forced.stdout


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, ("127.0.0.1", None)),
        ("0.0.0.0", ("0.0.0.0", None)),
        (":8080", ("127.0.0.1", 8080)),
        ("http://localhost:8080/", ("localhost", 8080)),
        ("::1", ("::1", None)),
        ("[::1]:8080", ("::1", 8080)),
        ("[::1]", ("::1", None)),
    ],
)
def test_an_address_is_read_in_every_form(
    text: str | None, expected: tuple[str, int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    assert read_address(text, None) == expected
    assert read_address(text, 7) == (expected[0], 7)


def test_a_first_model_that_does_not_load_is_told_once(servolt: Run, tmp_path: Path) -> None:
    broken = tmp_path / "llama-server"
    broken.write_text("#!/bin/sh\necho out of luck >&2\nexit 3\n")
    broken.chmod(0o755)
    result = servolt("serve", "guide", "--port", "0", "--engine-executable", str(broken), "--threads", "1")
    assert result.returncode == 5
    assert result.stderr.count("out of luck") == 1


def test_an_engine_that_is_killed_is_reported_within_a_second(gateway: Gateway) -> None:
    (engine,) = [
        child
        for child in psutil.Process(gateway.process.pid).children()
        if "servolt.engines.llamacpp_runner" in child.cmdline()
    ]
    engine.kill()
    assert gateway.process.stderr is not None
    started = time.monotonic()
    while "SIGKILL" not in (line := gateway.process.stderr.readline()):
        assert line, "the gateway ended"
    assert time.monotonic() - started < 1.0
    answer = httpx2.post(f"{gateway.url}/api/generate", json={"model": "guide", "prompt": "What is TTFT?"}, timeout=30)
    assert answer.status_code == 200
