"""`servolt run` on the built-in model."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_one_answer_goes_to_stdout_and_nothing_else(servolt: Run) -> None:
    result = servolt("run", "guide", "What is TTFT?")
    assert result.returncode == 0, result.stderr
    assert "first token" in result.stdout.lower()
    assert result.stderr == ""


def test_a_question_may_come_on_stdin(servolt: Run) -> None:
    result = servolt("run", stdin="What is TTFT?\n")
    assert "first token" in result.stdout.lower()


def test_without_a_question_there_is_no_answer(servolt: Run) -> None:
    result = servolt("run", "guide", stdin="  \n")
    assert result.returncode == 2
    assert result.stdout == ""


def test_one_token_has_no_speed(servolt: Run) -> None:
    answer = json.loads(servolt("run", "guide", "What is TTFT?", "--max-tokens", "1", "--json").stdout)
    assert answer["decode_tokens_per_s"] is None


def test_an_answer_as_json_carries_the_engines_counts(servolt: Run) -> None:
    answer = json.loads(servolt("run", "guide:f16", "What is TTFT?", "--max-tokens", "3", "--json").stdout)
    assert answer["schema"] == "servolt.answer/1"
    assert answer["usage"]["completion_tokens"] == 3
    assert answer["finish_reason"] == "length"
    assert answer["energy_j"] is None


def test_a_file_that_is_no_model_is_refused_before_an_engine_starts(servolt: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF\x03\x00\x00\x00rest")
    result = servolt("run", str(tmp_path / "broken.gguf"), "hello")
    assert result.returncode == 1
    assert "E-MOD-002" in result.stderr
    assert not list((tmp_path / "home").rglob("*.log"))


def test_an_engine_that_does_not_start_is_5_and_quotes_its_last_words(servolt: Run, tmp_path: Path) -> None:
    broken = tmp_path / "llama-server"
    broken.write_text("#!/bin/sh\necho out of luck >&2\nexit 3\n")
    broken.chmod(0o755)
    result = servolt("run", "guide", "hello", "--engine-executable", str(broken), "--threads", "1")
    assert result.returncode == 5
    assert "out of luck" in result.stderr


def test_an_engine_that_is_not_ready_in_time_is_124(servolt: Run, tmp_path: Path) -> None:
    silent = tmp_path / "llama-server"
    silent.write_text("#!/bin/sh\nexec sleep 60\n")
    silent.chmod(0o755)
    arguments = ("--engine-executable", str(silent), "--threads", "1")
    result = servolt("run", "guide", "hello", *arguments, SERVOLT_LOAD_TIMEOUT="300ms")
    assert result.returncode == 124
    assert "E-ENG-003" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")
def test_ctrl_c_stops_the_answer_and_not_the_program(tmp_path: Path) -> None:
    with _Terminal(tmp_path) as terminal:
        terminal.wait_for(b">>> ")
        terminal.type(b"Tell me a story about a fox.\n")
        terminal.wait_for(b"Once")
        terminal.interrupt()
        terminal.wait_for(b"stopped")
        terminal.type(b"What is TTFT?\n")
        terminal.wait_for(b"tok/s")
        terminal.type(b"/bye\n")
        assert terminal.process.wait(timeout=20) == 0


class _Terminal:
    """`servolt run` on a pseudo-terminal."""

    def __init__(self, tmp_path: Path) -> None:
        self._ours, theirs = pty.openpty()
        env = {**os.environ, "SERVOLT_HOME": str(tmp_path), "TERM": "dumb"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "servolt", "run"], stdin=theirs, stdout=theirs, stderr=theirs, env=env
        )
        os.close(theirs)
        self._seen = b""

    def __enter__(self) -> "_Terminal":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def type(self, text: bytes) -> None:
        self._seen = b""
        os.write(self._ours, text)

    def interrupt(self) -> None:
        self._seen = b""
        self.process.send_signal(signal.SIGINT)

    def wait_for(self, text: bytes, timeout_s: float = 30) -> None:
        deadline = time.monotonic() + timeout_s
        while text not in self._seen:
            ready, _, _ = select.select([self._ours], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{text!r} did not come, but {self._seen!r}"
            self._seen += os.read(self._ours, 65536)
