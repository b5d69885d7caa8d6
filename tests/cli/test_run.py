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


# 100 sequences of a million tokens are 200 GiB of KV cache: more than any machine that runs these tests has free.
TOO_MUCH = ("--max-num-seqs", "100", "--max-model-len", "1M")


def test_what_does_not_fit_is_not_started_and_says_what_would(servolt: Run, tmp_path: Path) -> None:
    result = servolt("run", "guide", "hello", *TOO_MUCH)
    assert (result.returncode, result.stdout) == (3, "")
    assert "Error [E-FIT-001]: guide:q8_0 does not fit. It takes 201." in result.stderr
    assert "GiB are missing" in result.stderr
    assert "--max-num-seqs" in result.stderr.partition("Hint: ")[2]
    assert "--force starts it all the same." in result.stderr
    assert not list((tmp_path / "home").rglob("*.log"))


def test_what_would_fit_does(servolt: Run) -> None:
    """The remedy's own numbers are taken at their word."""
    remedy = servolt("run", "guide", "hello", *TOO_MUCH).stderr.partition("Hint: ")[2].split()
    fewer = remedy[remedy.index("--max-num-seqs") + 1]
    plan = servolt("plan", "guide", "--max-num-seqs", fewer, "--max-model-len", "1M", "-q")
    assert plan.stdout.strip() in ("fits", "tight")


def test_force_starts_it_all_the_same(servolt: Run, tmp_path: Path) -> None:
    tried = tmp_path / "llama-server"
    tried.write_text("#!/bin/sh\necho tried it >&2\nexit 3\n")
    tried.chmod(0o755)
    own = ("--engine-executable", str(tried), "--threads", "1")
    assert servolt("run", "guide", "hello", *TOO_MUCH, *own).returncode == 3
    result = servolt("run", "guide", "hello", *TOO_MUCH, *own, "--force")
    assert result.returncode == 5
    assert "Warning: guide:q8_0 does not fit." in result.stderr
    assert "tried it" in result.stderr


def test_numbers_beyond_the_engines_own_are_refused_before_it_starts(servolt: Run, tmp_path: Path) -> None:
    result = servolt("run", "guide", "hello", "--max-num-seqs", "2", "--max-model-len", "2000000000", "--force")
    assert result.returncode == 2
    assert "llama.cpp counts to 2,147,483,647" in result.stderr
    assert not list((tmp_path / "home").rglob("*.log"))


def test_what_was_calibrated_is_not_needed_for_an_answer(servolt: Run, tmp_path: Path) -> None:
    damaged = tmp_path / "home" / "data"
    damaged.mkdir(parents=True)
    for name in ("accelerator.json", "calibration.json"):
        (damaged / name).write_text('{"schema": "servolt.accelerator/0"')
    result = servolt("run", "guide", "What is TTFT?")
    assert (result.returncode, result.stderr) == (0, "")
    assert "first token" in result.stdout


@pytest.mark.parametrize("value", ["nan", "NaN", "inf", "-inf", "-1", "101"])
def test_a_temperature_that_is_none_is_a_usage_error(servolt: Run, value: str) -> None:
    result = servolt("run", "guide", "hello", "--temperature", value)
    assert result.returncode == 2
    assert "'--temperature'" in result.stderr


def test_stdin_stands_before_the_prompt(servolt: Run) -> None:
    exact = ("--temperature", "0", "--json")
    both = json.loads(servolt("run", "guide", "TTFT?", *exact, stdin="What is").stdout)
    whole = json.loads(servolt("run", "guide", "What is TTFT?", *exact).stdout)
    assert (both["usage"], both["content"]) == (whole["usage"], whole["content"])


@pytest.mark.parametrize("form", [("--format", "csv"), ("--format", "md"), ("-q",), ("-o", "answer.csv")])
def test_a_form_that_an_answer_does_not_have_is_a_usage_error(servolt: Run, form: tuple[str, ...]) -> None:
    result = servolt("run", "guide", "hello", *form)
    assert (result.returncode, result.stdout) == (2, "")
    assert "an answer has no form as" in result.stderr


def test_an_answer_can_be_written_to_a_file(servolt: Run, tmp_path: Path) -> None:
    result = servolt("run", "guide", "What is TTFT?", "-o", str(tmp_path / "answer.txt"))
    assert (result.returncode, result.stdout) == (0, "")
    assert "first token" in (tmp_path / "answer.txt").read_text(encoding="utf-8")


def test_an_answer_that_the_context_ends_says_so(servolt: Run) -> None:
    asked = ("--max-model-len", "256", "--temperature", "0")

    def tokens(times: int) -> int:
        answer = json.loads(servolt("run", "guide", "What is TTFT? " * times, *asked, "--json").stdout)
        return int(answer["usage"]["prompt_tokens"])

    once, each = tokens(1), (tokens(11) - tokens(1)) // 10
    cut = servolt("run", "guide", "What is TTFT? " * (1 + (252 - once) // each), *asked)
    assert cut.returncode == 0, cut.stderr
    assert "There is no room in the context" in cut.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")
def test_a_conversation_outlives_its_context(tmp_path: Path) -> None:
    with _Terminal(tmp_path, "guide", "--max-model-len", "256", "--temperature", "0") as terminal:
        terminal.wait_for(b">>> ")
        for _ in range(12):
            terminal.ask(b"What is TPOT?")
            if b"oldest turns are left out" in terminal.seen:
                break
        assert b"The context of 256 tokens is full" in terminal.seen
        terminal.ask(b"What is TTFT? " * 90)
        assert b"The question alone is too long" in terminal.seen
        assert b"/clear" in terminal.seen
        terminal.ask(b"What is TTFT?")
        assert b"first token" in terminal.seen
        terminal.type(b"/bye\n")
        assert terminal.process.wait(timeout=20) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")
def test_ctrl_c_stops_the_answer_and_not_the_program(tmp_path: Path) -> None:
    slow = ("replay?step_s=0.05", "--engine", "replay")  # its answers take more than a second
    with _Terminal(tmp_path, *slow) as terminal:
        terminal.wait_for(b">>> ")
        terminal.type(b"Go on.\n")
        terminal.wait_for(b"Go on.\r\n ")  # its answers begin with a space
        terminal.interrupt()
        terminal.wait_for(b"stopped\r\n>>> ")
        terminal.ask(b"Go on.")
        assert b" tokens" in terminal.seen
        terminal.type(b"/bye\n")
        assert terminal.process.wait(timeout=20) == 0


class _Terminal:
    """`servolt run` on a pseudo-terminal."""

    def __init__(self, tmp_path: Path, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        env = {**os.environ, "SERVOLT_HOME": str(tmp_path), "TERM": "dumb"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "servolt", "run", *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=env
        )
        os.close(theirs)
        self.seen = b""

    def __enter__(self) -> "_Terminal":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def type(self, text: bytes) -> None:
        self.seen = b""
        os.write(self._ours, text)

    def ask(self, question: bytes) -> None:
        """Up to the next prompt."""
        self.type(question + b"\n")
        self.wait_for(b"\n>>> ")

    def interrupt(self) -> None:
        self.seen = b""
        self.process.send_signal(signal.SIGINT)

    def wait_for(self, text: bytes, timeout_s: float = 30) -> None:
        deadline = time.monotonic() + timeout_s
        while text not in self.seen:
            ready, _, _ = select.select([self._ours], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{text!r} did not come, but {self.seen!r}"
            self.seen += os.read(self._ours, 65536)
