"""Ollama's options and keep_alive."""

from typing import Any

import pytest

from servolt.serve.durations import keep_alive_s
from servolt.serve.ollama.options import check_context, response_format, sampling_of
from servolt.serve.refusal import RefusedError


def test_what_is_not_set_has_ollamas_default() -> None:
    sampling, rows = sampling_of(None)
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.repeat_penalty) == (0.8, 40, 0.9, 1.0)
    assert sampling.max_tokens is None
    assert rows == []


def test_every_sampler_reaches_the_engine() -> None:
    asked = {"temperature": 0, "top_k": 5, "top_p": 0.5, "min_p": 0.1, "seed": 7, "num_predict": 3, "stop": ["a"]}
    sampling, rows = sampling_of(asked)
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p) == (0.0, 5, 0.5, 0.1)
    assert (sampling.seed, sampling.max_tokens, sampling.stop) == (7, 3, ["a"])
    assert rows == []


@pytest.mark.parametrize("num_predict", [-1, -2, 0])
def test_no_limit_is_no_limit(num_predict: int) -> None:
    assert sampling_of({"num_predict": num_predict})[0].max_tokens is None


def test_what_is_not_honoured_is_reported() -> None:
    _, rows = sampling_of({"num_gpu": 1, "mirostat_tau": 5.0})
    assert [(row.parameter, row.action) for row in rows] == [("num_gpu", "dropped"), ("mirostat_tau", "dropped")]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": "hot"}, 'option "temperature" must be of type float32'),
        ({"top_k": 1.5}, 'option "top_k" must be of type integer'),
        ({"seed": True}, 'option "seed" must be of type integer'),
        ({"stop": "a"}, 'option "stop" must be of type array'),
        ({"use_mmap": 1}, 'option "use_mmap" must be of type boolean'),
        ({"temperature": -0.1}, "temperature must be between 0 and 100"),
        ({"top_p": 1.1}, "top_p must be between 0 and 1"),
        ({"num_predict": 1e300}, "num_predict must be a number of tokens up to 2,147,483,647, or -1 for no limit"),
        ({"num_predict": -3}, "-2 and 0 mean the same as -1"),
        ({"seed": 2**70}, "seed must be between"),
        ({"stop": ["x"] * 65}, "at most 64"),
        ({"stop": [""]}, "1 to 1024 characters"),
        ({"stop": ["x" * 1025]}, "1 to 1024 characters"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(RefusedError, match=words.replace("(", r"\(")):
        sampling_of(options)


@pytest.mark.parametrize("seed", [-5, 2**32 - 1, 2**32, 2**63 - 1])
def test_a_seed_is_never_the_engines_word_for_random(seed: int) -> None:
    assert sampling_of({"seed": seed})[0].seed not in (None, -1, 2**32 - 1)


def test_more_context_than_there_is_stands_in_the_report() -> None:
    assert check_context({"num_ctx": 2048}, 2048) == []
    assert [(row.asked, row.effective) for row in check_context({"num_ctx": 8192}, 2048)] == [(8192, 2048)]
    with pytest.raises(RefusedError):
        check_context({"num_ctx": 0}, 2048)


# Forms of Go's durations and of plain seconds, as Ollama's documentation gives them.
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        (0, 0.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("300ms", 0.3),
        (-1, -1.0),
        ("24h", 86400.0),
    ],
)
def test_keep_alive_takes_seconds_and_durations(value: Any, seconds: float | None) -> None:
    assert keep_alive_s(value) == seconds


@pytest.mark.parametrize("value", [1e300, float("inf"), float("nan"), "100000h"])
def test_a_keep_alive_beyond_all_bounds_is_for_ever(value: float) -> None:
    assert keep_alive_s(value) == -1.0


@pytest.mark.parametrize("value", ["soon", True, [], {"a": 1}, "nan", "inf"])
def test_a_keep_alive_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(RefusedError):
        keep_alive_s(value)


def test_a_format_is_json_or_a_schema() -> None:
    assert response_format("json") == {"type": "json_object"}
    assert response_format({"type": "object"})["json_schema"]["schema"] == {"type": "object"}
    assert response_format("") is None
    with pytest.raises(RefusedError):
        response_format("xml")
