"""The engine's bytes as events, however they are cut."""

import json
from collections.abc import Iterable

import pytest

from servolt.errors import EngineError, EngineLostError
from servolt.serve.events import Counts, Delta, Event, Finished, answer_of
from servolt.serve.reading import MAX_EVENT_BYTES, EventReader, refusal_of
from servolt.serve.refusal import RefusedError

# Recorded from xllamacpp 2026.10.11549, ids and fingerprints shortened.
CHAT = (
    'data: {"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}]}\n\n'
    'data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"é\\n"}}]}\n\n'
    'data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":" 世界"}}]}\n\n'
    'data: {"choices":[{"finish_reason":"length","index":0,"delta":{}}]}\n\n'
    'data: {"choices":[],"usage":{"completion_tokens":5,"prompt_tokens":14,"total_tokens":19,'
    '"prompt_tokens_details":{"cached_tokens":2}},"timings":{"prompt_ms":2.582,"predicted_ms":2.234}}\n\n'
    "data: [DONE]\n\n"
).encode()
COMPLETION = (
    b'data: null\n\ndata: {"choices":[{"text":" the","index":0,"logprobs":null,"finish_reason":null}]}\n\n'
    b'data: {"choices":[{"text":"","index":0,"finish_reason":"stop"}],"usage":{"completion_tokens":1,'
    b'"prompt_tokens":1}}\n\ndata: [DONE]\n\n'
)


def read(pieces: Iterable[bytes]) -> list[Event]:
    reader = EventReader()
    events = [event for piece in pieces for event in reader.feed(piece)]
    return events if reader.done else events + reader.close()


def test_a_stream_reads_the_same_wherever_it_is_cut() -> None:
    whole = read([CHAT])
    assert [event.text for event in whole if isinstance(event, Delta)] == ["é\n", " 世界"]
    assert all(read([CHAT[:cut], CHAT[cut:]]) == whole for cut in range(len(CHAT)))
    assert read([CHAT[place : place + 1] for place in range(len(CHAT))]) == whole


def test_counts_and_durations_are_the_engines_own() -> None:
    end = read([CHAT])[-1]
    assert isinstance(end, Finished)
    assert (end.reason, end.counts) == ("length", Counts(14, 5, 2))
    assert (end.durations.prefill_s, end.durations.decode_s) == pytest.approx((0.002582, 0.002234))


def test_a_completion_brings_its_usage_with_the_end() -> None:
    answer = answer_of(read([COMPLETION]))
    assert (answer.text, answer.finished.reason, answer.finished.counts) == (" the", "stop", Counts(1, 1, None))


def test_a_stream_without_done_is_whole_if_it_said_why_it_ended() -> None:
    assert isinstance(read([COMPLETION.replace(b"data: [DONE]\n\n", b"")])[-1], Finished)


def test_what_the_engine_did_not_count_is_none() -> None:
    end = read([b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'])[-1]
    assert isinstance(end, Finished)
    assert end.counts is None
    assert end.durations.decode_s is None


@pytest.mark.parametrize("usage", ["{}", '{"prompt_tokens":3}', '{"completion_tokens":3}', "null"])
def test_half_a_count_is_none(usage: str) -> None:
    told = f'data: {{"choices":[{{"delta":{{}},"finish_reason":"stop"}}],"usage":{usage}}}\n\ndata: [DONE]\n\n'
    end = read([told.encode()])[-1]
    assert isinstance(end, Finished)
    assert end.counts is None


def test_an_end_that_has_no_name_is_never_told_as_a_stop() -> None:
    told = b'data: {"choices":[{"delta":{},"finish_reason":"abort"}]}\n\ndata: [DONE]\n\n'
    with pytest.raises(EngineError, match="'abort'"):
        read([told])


@pytest.mark.parametrize(
    "stream",
    [
        CHAT[:200],
        b"",
        b"data: [DONE]\n\n",
        b"data: {not json}\n\n",
        b'data: {"choices":5}\n\n',
        b'data: {"choices":[{"delta":{"content":"\xff\xfe"}}]}\n\n',
        b'data: {"choices":' + b"[" * 100_000 + b"\n\n",
    ],
)
def test_garbage_and_an_early_end_are_a_lost_engine(stream: bytes) -> None:
    with pytest.raises(EngineLostError):
        read([stream])


def test_a_line_without_end_is_not_kept_for_ever() -> None:
    with pytest.raises(EngineLostError):
        read([b"x" * 2**16] * (MAX_EVENT_BYTES // 2**16 + 1))


@pytest.mark.parametrize("line", [b'error: {"message":"broken"}\n', b'data: {"error":{"message":"broken"}}\n\n'])
def test_an_error_inside_a_stream_is_raised(line: bytes) -> None:
    with pytest.raises(EngineError, match="broken"):
        read([line])


def test_a_prompt_that_is_too_long_says_how_long_it_is() -> None:
    fault = {"code": 400, "message": "…", "type": "exceed_context_size_error", "n_prompt_tokens": 6008, "n_ctx": 1024}
    error = refusal_of(400, json.dumps({"error": fault}).encode())
    assert isinstance(error, RefusedError)
    assert error.kind == "overflow"
    assert "6008" in str(error)
    assert "1024" in str(error)


def test_an_embeddings_input_that_is_too_long_says_so_too() -> None:
    # Recorded from xllamacpp 2026.10.11549.
    text = "input (1026 tokens) is too large to process. increase the physical batch size (current batch size: 64)"
    error = refusal_of(500, json.dumps({"error": {"code": 500, "message": text, "type": "server_error"}}).encode())
    assert isinstance(error, RefusedError)
    assert error.kind == "overflow"
    assert "has 1026 tokens and the context holds 64" in str(error)


@pytest.mark.parametrize("content", [b"", b"<html>", b'{"error":7}', b"null", b"\xff"])
def test_a_refusal_that_can_not_be_read_is_still_an_error(content: bytes) -> None:
    assert "500" in str(refusal_of(500, content))
