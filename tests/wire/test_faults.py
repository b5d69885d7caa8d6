"""Clients that leave, engines that die, signals: on the real gateway with the real engine."""

import json
import signal
import time
from typing import Any

import psutil
import pytest

LONG = {"model": "guide", "prompt": "a", "ignore_eos": True, "max_tokens": 2000}
# A grammar that keeps the model talking where a dialect has no ignore_eos.
NUMBERS = {"type": "array", "items": {"type": "integer"}, "minItems": 300}
LONG_CHAT = {"model": "guide", "messages": [{"role": "user", "content": "Count."}], "format": NUMBERS}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "unary"])
def test_the_engine_stops_within_a_second_after_its_client_left(served: Any, stream: bool) -> None:
    served.wait_until_idle(10)
    before = served.metric("vllm:generation_tokens_total")
    body = json.dumps(LONG | {"stream": stream}).encode()
    with served.open("POST", "/v1/completions", body) as connection:
        if stream:
            connection.recv(100)
        else:
            time.sleep(0.1)
    assert served.wait_until_idle(1.0) < 1.0
    made = served.metric("vllm:generation_tokens_total") - before
    assert made < 1900
    time.sleep(0.2)
    assert served.metric("vllm:generation_tokens_total") - before == made


def test_a_client_that_leaves_an_ollama_stream_stops_the_engine_too(served: Any) -> None:
    fixed = LONG_CHAT | {"options": {"temperature": 0}}
    whole = served.raw("POST", "/api/chat", json.dumps(fixed | {"stream": False}).encode())
    length = json.loads(whole.partition(b"\r\n\r\n")[2])["eval_count"]
    assert length >= 600, "300 numbers and what stands between them"
    served.wait_until_idle(10)
    before = served.metric("vllm:generation_tokens_total")
    with served.open("POST", "/api/chat", json.dumps(fixed).encode()) as connection:
        connection.recv(100)
    assert served.wait_until_idle(1.0) < 1.0
    made = served.metric("vllm:generation_tokens_total") - before
    assert made < length / 2
    time.sleep(0.2)
    assert served.metric("vllm:generation_tokens_total") - before == made


@pytest.mark.parametrize(
    ("path", "body", "marker"),
    [
        ("/v1/completions", LONG | {"stream": True}, b'"code":"engine_lost"'),
        ("/api/chat", LONG_CHAT, b'"error":"The engine was lost'),
    ],
    ids=["openai", "ollama"],
)
def test_an_engine_killed_mid_stream_is_told_and_the_next_request_works(
    own_served: Any, path: str, body: Any, marker: bytes
) -> None:
    with own_served.open("POST", path, json.dumps(body).encode()) as connection:
        data = connection.recv(100)
        own_served.engines()[0].kill()
        while not data.endswith(b"\r\n0\r\n\r\n"):
            piece = connection.recv(65536)
            assert piece, data[-500:]
            data += piece
    assert data.startswith(b"HTTP/1.1 200")
    assert marker in data
    again = own_served.raw("POST", "/v1/completions", json.dumps(LONG | {"max_tokens": 2}).encode())
    assert again.startswith(b"HTTP/1.1 200")
    assert len(own_served.engines()) == 1


def test_sigterm_lets_a_stream_finish_and_leaves_no_process(own_served: Any) -> None:
    gateway = psutil.Process(own_served.process.pid)
    with own_served.open("POST", "/v1/completions", json.dumps(LONG | {"stream": True}).encode()) as connection:
        data = connection.recv(100)
        family = gateway.children(recursive=True)
        own_served.process.send_signal(signal.SIGTERM)
        while piece := connection.recv(65536):
            data += piece
    assert data.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert b'"finish_reason":"length"' in data
    assert own_served.process.wait(10) == 0
    assert psutil.wait_procs(family, timeout=5)[1] == []


def test_a_second_signal_ends_a_stream_with_an_error(own_served: Any) -> None:
    with own_served.open("POST", "/v1/completions", json.dumps(LONG | {"stream": True}).encode()) as connection:
        data = connection.recv(100)
        own_served.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        own_served.process.send_signal(signal.SIGTERM)
        while piece := connection.recv(65536):
            data += piece
    assert b'"code":"shutting_down"' in data
    assert own_served.process.wait(10) == 0


def test_what_is_not_http_does_not_hurt(served: Any) -> None:
    for nonsense in (
        b"\x00\xff" * 500,
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /api/chat HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
    ):
        with served.open("GET", "/health") as connection:
            connection.recv(65536)
            connection.sendall(nonsense)
            connection.settimeout(5)
            connection.recv(65536)
    assert served.raw("GET", "/health").startswith(b"HTTP/1.1 200")
    assert served.process.poll() is None
