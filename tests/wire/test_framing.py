"""The bytes on the wire, read without any client's help."""

import json
import re
from typing import Any

import pytest

MESSAGES = [{"role": "user", "content": "What is TTFT?"}]
NANOSECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")


def split(data: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers, body; chunks are put together by the rules of RFC 9112."""
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    if headers.get("transfer-encoding") != "chunked":
        assert len(body) == int(headers["content-length"])
        return int(lines[0].split()[1]), headers, body
    pieces: list[bytes] = []
    while True:
        size, _, body = body.partition(b"\r\n")
        if size == b"0":
            assert body == b"\r\n"
            return int(lines[0].split()[1]), headers, b"".join(pieces)
        pieces.append(body[: int(size, 16)])
        assert body[int(size, 16) :][:2] == b"\r\n"
        body = body[int(size, 16) + 2 :]


def ask(served: Any, path: str, plain: Any) -> tuple[int, dict[str, str], bytes]:
    return split(served.raw("POST", path, json.dumps(plain).encode()))


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
def test_ollama_streams_one_object_a_line_and_ends_with_the_counts(served: Any, path: str) -> None:
    body = {"model": "guide", "messages": MESSAGES, "prompt": "What is TTFT?", "options": {"num_predict": 6}}
    status, headers, content = ask(served, path, body)
    assert (status, headers["content-type"]) == (200, "application/x-ndjson")
    assert content.endswith(b"}\n")
    lines = [json.loads(line) for line in content.splitlines()]
    said = "message" if path == "/api/chat" else "response"
    assert all(list(line) == ["model", "created_at", said, "done"] for line in lines[:-1])
    assert all(NANOSECONDS.fullmatch(line["created_at"]) for line in lines)
    assert len(lines) == 6 + 1  # a line for each token, then the end
    end = lines[-1]
    assert [end["done"], end["done_reason"], end["eval_count"]] == [True, "length", 6]
    assert end["total_duration"] > end["prompt_eval_duration"] + end["eval_duration"] > 0
    assert end["prompt_eval_count"] > 0
    assert all(isinstance(end[name], int) for name in end if name.endswith(("_duration", "_count")))
    assert ("context" in end) == (path == "/api/generate")


@pytest.mark.parametrize("stream", [True, False])
def test_one_token_has_no_time_of_its_own(served: Any, stream: bool) -> None:
    """The engine says a microsecond, from which clients would compute a million tokens/s."""
    body = {"model": "guide", "messages": MESSAGES, "stream": stream, "options": {"num_predict": 1}}
    end = json.loads(ask(served, "/api/chat", body)[2].splitlines()[-1])
    assert end["eval_count"] == 1
    assert "eval_duration" not in end
    assert end["prompt_eval_duration"] > 0


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_a_number_that_is_none_is_no_json(served: Any, path: str, number: bytes) -> None:
    body = b'{"model":"guide","temperature":%b,"options":{"temperature":%b},"messages":%b}'
    status, _, content = split(served.raw("POST", path, body % (number, number, json.dumps(MESSAGES).encode())))
    assert status == 400
    assert b"The body is not JSON" in content


def test_openai_streams_events_in_the_order_that_its_clients_expect(served: Any) -> None:
    body = {"model": "guide", "messages": MESSAGES, "max_tokens": 4, "stream": True}
    status, headers, content = ask(served, "/v1/chat/completions", body | {"stream_options": {"include_usage": True}})
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert headers["cache-control"] == "no-cache"
    events = content.decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(event.startswith("data: ") and "\n" not in event for event in events[:-1])
    chunks = [json.loads(event[6:]) for event in events[:-2]]
    assert {(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in chunks} == {
        (chunks[0]["id"], chunks[0]["created"], "guide", "chat.completion.chunk")
    }
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert all(set(chunk["choices"][0]["delta"]) == {"content"} for chunk in chunks[1:-2])
    assert chunks[-2]["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert chunks[-1]["choices"] == []
    usage = chunks[-1]["usage"]
    assert usage["completion_tokens"] == 4
    assert usage["total_tokens"] == usage["prompt_tokens"] + 4


def test_usage_is_sent_to_those_who_ask_for_it_only(served: Any) -> None:
    body = {"model": "guide", "messages": MESSAGES, "max_tokens": 2, "stream": True}
    assert b"usage" not in ask(served, "/v1/chat/completions", body)[2]


def test_completions_stream_text(served: Any) -> None:
    body = {"model": "guide", "prompt": "What", "max_tokens": 3, "stream": True, "ignore_eos": True}
    _, _, content = ask(served, "/v1/completions", body)
    chunks = [json.loads(event[6:]) for event in content.decode().split("\n\n")[:-2]]
    assert [chunk["object"] for chunk in chunks] == ["text_completion"] * 4
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "length"]


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_an_answer_in_one_piece_has_its_length(served: Any, path: str) -> None:
    _, headers, content = ask(served, path, {"model": "guide", "messages": MESSAGES, "stream": False})
    assert headers["content-type"].startswith("application/json")
    assert int(headers["content-length"]) == len(content)


@pytest.mark.parametrize("path", ["/", "/api/tags", "/v1/models"])
def test_head_is_get_without_the_body(served: Any, path: str) -> None:
    data = served.raw("HEAD", path)
    assert data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert data.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("HEAD", "/", ""),
        ("HEAD", "/api/version", ""),
        ("OPTIONS", "/api/chat", "Origin: http://localhost:3000\r\n"),
    ],
)
def test_an_answer_without_a_body_comes_at_once_on_a_connection_that_stays_open(
    served: Any, method: str, path: str, headers: str
) -> None:
    with served.open(method, path, headers=headers) as connection:
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            piece = connection.recv(65536)
            assert piece
            data += piece
    assert data.startswith(b"HTTP/1.1 20")


def test_the_root_says_what_ollamas_clients_look_for(served: Any) -> None:
    assert split(served.raw("GET", "/"))[2] == b"Ollama is running"


def test_a_page_may_ask_before_it_asks(served: Any) -> None:
    origin = "Origin: http://localhost:3000\r\n"
    status, headers, _ = split(served.raw("OPTIONS", "/api/chat", headers=origin))
    assert status == 204
    assert headers["access-control-allow-origin"] == "http://localhost:3000"
    assert "authorization" in headers["access-control-allow-headers"]


def test_two_requests_follow_each_other_on_one_connection(served: Any) -> None:
    body = json.dumps({"model": "guide", "messages": MESSAGES, "stream": False}).encode()
    with served.open("POST", "/api/chat", body) as connection:
        for _ in range(2):
            data = b""
            while not data.endswith(b"}"):
                data += connection.recv(65536)
            assert data.startswith(b"HTTP/1.1 200")
            connection.sendall(
                b"POST /api/chat HTTP/1.1\r\nHost: x.local\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )


def test_the_same_request_says_the_same_in_both_dialects(served: Any) -> None:
    fixed = {"temperature": 0.0, "seed": 7, "top_k": 40, "top_p": 0.9, "min_p": 0.0}
    ollama = json.loads(
        ask(served, "/api/chat", {"model": "guide", "messages": MESSAGES, "stream": False, "options": fixed})[2]
    )
    openai = json.loads(ask(served, "/v1/chat/completions", {"model": "guide", "messages": MESSAGES, **fixed})[2])
    assert openai["choices"][0]["message"]["content"] == ollama["message"]["content"]
    assert openai["usage"]["completion_tokens"] == ollama["eval_count"]
    assert openai["usage"]["prompt_tokens"] == ollama["prompt_eval_count"]


def test_a_seed_repeats_an_answer_and_a_stop_ends_it(served: Any) -> None:
    body = {"model": "guide", "prompt": "A story:", "max_tokens": 30, "temperature": 1.5, "ignore_eos": True}

    def text(**more: Any) -> str:
        return str(json.loads(ask(served, "/v1/completions", body | more)[2])["choices"][0]["text"])

    first = text(seed=11)
    assert text(seed=11) == first
    assert text(seed=12) != first
    word = first.split()[3]
    stopped = json.loads(ask(served, "/v1/completions", body | {"seed": 11, "stop": [word]})[2])["choices"][0]
    assert stopped["finish_reason"] == "stop"
    assert word not in stopped["text"]
    assert first.startswith(stopped["text"])


def test_choices_and_prompts_are_counted_truly(served: Any) -> None:
    body = {"model": "guide", "prompt": ["one", [5, 6, 7]], "n": 2, "max_tokens": 3, "ignore_eos": True, "seed": 1}
    reply = json.loads(ask(served, "/v1/completions", body)[2])
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2, 3]
    assert reply["usage"]["completion_tokens"] == 12
    streamed = ask(served, "/v1/completions", body | {"stream": True, "stream_options": {"include_usage": True}})[2]
    chunks = [json.loads(event[6:]) for event in streamed.decode().split("\n\n")[:-2]]
    assert chunks[-1]["usage"]["completion_tokens"] == 12
    assert chunks[-1]["usage"]["prompt_tokens"] == reply["usage"]["prompt_tokens"]
    texts = [
        "".join(one["choices"][0]["text"] for one in chunks[:-1] if one["choices"][0]["index"] == n) for n in range(4)
    ]
    assert texts == [choice["text"] for choice in reply["choices"]]
