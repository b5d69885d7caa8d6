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
    assert "is taken" in result.stderr


def test_an_address_that_others_reach_needs_a_word(servolt: Run) -> None:
    result = servolt("serve", "guide", "--host", "0.0.0.0", "--port", "0")
    assert result.returncode == 2
    assert "--exposed" in result.stderr


def test_a_dry_run_prints_the_command_and_starts_nothing(servolt: Run) -> None:
    result = servolt("serve", "guide", "--dry-run")
    assert "llamacpp_runner" in result.stdout
    assert "{port}" in result.stdout


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
