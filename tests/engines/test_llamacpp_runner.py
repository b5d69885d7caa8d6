"""The process of llama.cpp, as its supervisor and its user see it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from servolt.cores import physical_cores

GUIDE = Path(__file__).parents[2] / "src" / "servolt" / "data" / "guide" / "guide-q8_0.gguf"
RUNNER = (sys.executable, "-m", "servolt.engines.llamacpp_runner")


@contextmanager
def runner(*flags: str, key: str = "") -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    argv = (*RUNNER, "-m", str(GUIDE), "--port", "0", "--cache-ram", "0", "-lv", "1", *flags)
    environment = {**os.environ, "LLAMA_API_KEY": key}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=environment, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def get(url: str, key: str = "") -> Any:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def test_it_says_what_holds_once_it_can_answer() -> None:
    with runner("-np", "2", "-c", "1000", "-ctk", "q8_0", "-ctv", "q8_0") as (process, told):
        assert told["event"] == "ready"
        assert told["pid"] == process.pid
        assert told["threads"] == max(1, physical_cores() - 1)
        assert (told["max_num_seqs"], told["kv_cache_dtype"]) == (2, "q8_0")
        assert told["max_model_len"] == 512, "500 asked; the engine rounds up to 256"
        slots = get(told["url"] + "/slots")
        assert [slot["n_ctx"] for slot in slots] == [512, 512]


def test_no_layer_goes_to_a_gpu_unless_it_is_said() -> None:
    with runner() as (_, told):
        assert told["gpu_layers"] == 0
    with runner("-ngl", "3", "--no-op-offload") as (_, told):
        assert told["gpu_layers"] == 3


def test_threads_that_are_asked_for_are_taken() -> None:
    with runner("-t", "2", "-tb", "2") as (_, told):
        assert (told["threads"], told["threads_batch"]) == (2, 2)


def test_the_key_comes_by_the_environment() -> None:
    with runner(key="one-key") as (_, told):
        assert get(told["url"] + "/props", "one-key")["total_slots"] == 1
        with pytest.raises(urllib.error.HTTPError, match="401"):
            get(told["url"] + "/props", "another")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_at_once_even_while_it_answers(number: int) -> None:
    with runner("-c", "2048") as (process, told):
        port = int(told["url"].rpartition(":")[2])
        body = json.dumps({"prompt": [5, 6, 7], "max_tokens": 2000, "ignore_eos": True, "stream": True}).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(head + body)
            assert client.recv(100)
            began = time.monotonic()
            process.send_signal(number)
            assert process.wait(10) == 0
            assert time.monotonic() - began < 5, "freeing the server would take it 30 s"


def test_a_file_that_is_no_model_is_an_exit_code_and_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(GUIDE.read_bytes()[:100_000])
    done = subprocess.run((*RUNNER, "-m", str(path), "--port", "0"), capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "not within the file bounds" in done.stderr
    assert "llama.cpp did not start" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--no-such-flag",), "unrecognized arguments"),
        (("-ctk", "fp8"), "llama.cpp has no ggml_type called fp8"),
        (("--pooling", "sum"), "invalid choice"),
    ],
)
def test_a_flag_it_does_not_know_is_refused(flags: tuple[str, ...], reason: str) -> None:
    done = subprocess.run((*RUNNER, "-m", str(GUIDE), *flags), capture_output=True, text=True, timeout=30)
    assert done.returncode != 0
    assert reason in done.stderr


def test_it_imports_little_since_every_start_waits_for_it() -> None:
    program = "import sys, servolt.engines.llamacpp_runner; print(*sys.modules)"
    loaded = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True, check=True).stdout.split()
    assert not {"pydantic", "asyncio", "http.client", "importlib.metadata", "xllamacpp"} & set(loaded)
    assert [name for name in loaded if name.startswith("servolt")] == [
        "servolt",
        "servolt.engines",
        "servolt.cores",
        "servolt.engines.llamacpp_runner",
    ]
