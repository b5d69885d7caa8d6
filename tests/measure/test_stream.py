"""The response parser: recorded and made-up streams, at every place where the network may split them."""

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from servolt.measure.load.stream import Response

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _event(fields: dict[str, Any], end: str = "\n\n") -> bytes:
    return f"data: {json.dumps(fields, ensure_ascii=False)}{end}".encode()


def _chunked(*parts: bytes) -> bytes:
    return HEAD + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def _text(text: str, count: int | None = None, finish: str | None = None) -> dict[str, Any]:
    event: dict[str, Any] = {"choices": [{"text": text, "index": 0, "finish_reason": finish}]}
    if count is not None:
        event["timings"] = {"predicted_n": count, "prompt_n": 6, "cache_n": 2, "prompt_ms": 2.5, "predicted_ms": 1.5}
    return event


def _delta(**delta: Any) -> dict[str, Any]:
    return {"choices": [{"delta": delta, "index": 0, "finish_reason": None}]}


def _usage(prompt: int, output: int) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": output, "prompt_tokens_details": {"cached_tokens": 2}}


# As xllamacpp 2026.10 answers /v1/completions with timings_per_token: the end repeats the count and carries the usage.
COMPLETION = _chunked(
    _event(_text(" and", 1)),
    _event(_text(" thé", 2)),
    _event(_text("", 3)),  # half a character: a token without text
    _event({**_text("", 3, "length"), "usage": _usage(8, 3)}),
    b"data: [DONE]\n\n",
)


def test_an_error_of_null_is_none() -> None:
    event = {**_text(" and", 1), "error": None}
    response = _read(_chunked(_event(event), b"data: [DONE]\n\n"))
    assert (response.error, response.tokens, response.finished) == (None, [1], True)
    body = b'{"error": null, "choices": []}'
    whole = _read(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    assert (whole.done, whole.error) == (True, None)


def _read(data: bytes, splits: tuple[int, ...] = ()) -> Response:
    response = Response()
    edges = [0, *splits, len(data)]
    for time, (start, end) in enumerate(pairwise(edges)):
        response.feed(time, data[start:end])
    return response


def _facts(response: Response) -> tuple[Any, ...]:
    return (
        response.status, response.done, response.broken, response.error, response.finish_reason, response.tokens,
        response.n_in, response.n_out, response.cached, response.prefill_ms, response.keep_alive,
    )  # fmt: skip


def _streams() -> Iterator[tuple[str, bytes]]:
    yield "completion", COMPLETION
    yield (
        "crlf and comments",
        _chunked(
            b": keep alive\r\n\r\n",
            _event(_delta(role="assistant", content=None), "\r\n\r\n"),
            _event(_delta(content="日本"), "\r\n\r\n"),
            b": keep alive\r\n\r\n",
            _event({"choices": [], "usage": _usage(5, 1)}, "\r\n\r\n"),
            b"data: [DONE]\r\n\r\n",
        ),
    )
    yield "several events in a chunk", _chunked(_event(_text("a", 1)) + _event(_text("b", 2)), b"data: [DONE]\n\n")
    body = json.dumps({"error": {"message": "too long", "code": 400}}).encode()
    yield "an error", b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    yield "an error midway", _chunked(_event(_text("a", 1)), _event({"error": {"message": "out of memory"}}))


@pytest.mark.parametrize(("name", "data"), list(_streams()), ids=[name for name, _ in _streams()])
def test_every_split_reads_the_same(name: str, data: bytes) -> None:
    whole = _facts(_read(data))
    for place in range(1, len(data)):
        assert _facts(_read(data, (place,))) == whole
    assert _facts(_read(data, tuple(range(1, len(data))))) == whole


def test_a_completion_counts_by_the_running_count_and_not_by_text() -> None:
    response = _read(COMPLETION)
    assert response.tokens == [1, 1, 1]
    assert (response.n_in, response.n_out, response.cached) == (8, 3, 2)
    assert (response.prefill_ms, response.decode_ms) == (2.5, 1.5)
    assert response.cumulative
    assert response.finished
    assert response.done


def test_an_events_time_is_that_of_the_read_with_its_last_byte() -> None:
    cut = COMPLETION.index(b" th") + 2
    assert _read(COMPLETION, (cut,)).times == [0, 1, 1]


def test_a_role_is_no_token() -> None:
    stream = _chunked(
        _event(_delta(role="assistant", content="")),
        _event(_delta(content="a")),
        _event(_delta(reasoning_content="b")),
        _event(_delta(tool_calls=[{"index": 0}])),
        _event(_delta(content="")),
    )
    assert _read(stream).tokens == [1, 1, 1]


def test_several_tokens_in_one_event_are_told_by_a_usage_in_each() -> None:
    events = [_event({**_delta(content="abcd"), "usage": _usage(3, count)}) for count in (4, 8, 9)]
    assert _read(_chunked(*events)).tokens == [4, 4, 1]


def test_a_total_that_comes_with_the_end_alone_is_no_event() -> None:
    stream = _chunked(
        _event(_delta(content="abcd")),
        _event(_delta(content="efgh")),
        _event({"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": _usage(3, 8)}),
    )
    response = _read(stream)
    assert response.tokens == [1, 1]
    assert response.n_out == 8
    assert not response.cumulative


def test_the_end_token_that_a_running_count_shows_is_one() -> None:
    stream = _chunked(_event(_text("a", 1)), _event(_text("b", 2)), _event(_text("", 3, "stop")))
    assert _read(stream).tokens == [1, 1, 1]


def test_a_cut_stream_keeps_what_it_had_and_is_not_finished() -> None:
    response = _read(COMPLETION[: COMPLETION.index(b"length")])
    response.end_of_input()
    assert not response.done
    assert not response.finished
    assert response.tokens == [1, 1, 1]
    assert response.n_in == 8  # from the engine's own timings


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    body = _event(_text("a", 1)) + b"data: [DONE]\n\n"
    response = _read(b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + body)
    assert not response.done
    response.end_of_input()
    assert response.done
    assert not response.keep_alive


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        HEAD + b"zz\r\n",
        HEAD + b"5\r\nhelloworld\r\n",
        HEAD + b"10\r\ndata: not json\n\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20000,
    ],
    ids=["not HTTP", "no chunk size", "a chunk that is longer", "not JSON", "an endless head"],
)
def test_what_is_no_stream_is_called_broken(data: bytes) -> None:
    response = _read(data)
    assert response.broken
    response.feed(1, b"more")


def test_an_interim_answer_is_passed_over() -> None:
    assert _read(b"HTTP/1.1 100 Continue\r\n\r\n" + COMPLETION).tokens == [1, 1, 1]


def test_the_words_of_an_error_are_kept() -> None:
    data = b'HTTP/1.1 503 Service Unavailable\r\nContent-Length: 40\r\n\r\n{"error":{"message":"Loading model"}}    '
    response = _read(data)
    assert (response.status, response.error) == (503, "Loading model")
