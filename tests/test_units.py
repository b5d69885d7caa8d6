"""People's units."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servolt.units import format_bytes, parse_bytes, parse_count, parse_duration


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("1 KB", 1000), ("1KiB", 1024), ("1.5 MiB", 1572864)])
def test_sizes(text: str, number: int) -> None:
    assert parse_bytes(text) == number


@pytest.mark.parametrize("text", ["", "GiB", "-1 GiB", "1 parsec", "1e3"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no size"):
        parse_bytes(text)


@given(st.integers(min_value=0, max_value=2**50))
def test_a_printed_size_is_read_back_within_its_rounding(number: int) -> None:
    assert parse_bytes(format_bytes(number)) == pytest.approx(number, rel=0.05, abs=0.5)


# vLLM: 1k is 1000 and 1K is 1024
@pytest.mark.parametrize(("text", "number"), [("8k", 8000), ("8K", 8192), ("0.5K", 512), ("12", 12)])
def test_counts(text: str, number: int) -> None:
    assert parse_count(text) == number


@pytest.mark.parametrize("text", ["", "1.5", "k", "-1", "1kk"])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="number"):
        parse_count(text)


# Go's time.ParseDuration
@pytest.mark.parametrize(
    ("text", "seconds"), [("300ms", 0.3), ("1h30m", 5400), ("-1", -1), ("-5m", -300), ("2.5", 2.5)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "m", "5 m", "1d", "5m x"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        parse_duration(text)
