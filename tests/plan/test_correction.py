"""The arithmetic of corrections: what follows from its assumptions, and that it recovers a law that is off."""

import math
from typing import Any

import pytest

from servolt.errors import InvalidInputError
from servolt.plan.correction import REPEAT_SPREAD, Z10, Raw, Seen, Shift, corrected, read_points

STREAMS = (1, 4, 16, 64, 256)


def raw(streams: float, value: float = 0.010, input_len: int = 1024, **more: Any) -> Raw:
    """Off by a factor of 1.5 one time in five."""
    return Raw(value, value / 1.5, value * 1.5, streams, input_len, 1024, **more)


def law(streams: float) -> float:
    return 0.008 * (1 + streams / 60)


RAWS = [raw(streams, law(streams)) for streams in STREAMS]


def width(one: Any) -> float:
    return math.log(one.high / one.low)


def test_without_points_predictions_stay_as_they_are() -> None:
    for before, after in zip(RAWS, corrected(RAWS, []), strict=True):
        assert (after.value, after.low, after.high, after.basis, after.n) == (*before[:3], "formula", 0)


def test_one_point_shifts_all_and_most_where_it_was_measured() -> None:
    after = corrected(RAWS, [Seen(RAWS[2], RAWS[2].value * 1.4)])
    ratios = [one.value / one.raw.value for one in after]
    assert max(ratios) == ratios[2] == pytest.approx(1.4, rel=0.02)
    assert all(1.15 < ratio < 1.4 for ratio in (ratios[0], ratios[-1]))
    assert [one.basis for one in after] == ["calibrated", "calibrated", "measured", "calibrated", "calibrated"]


def test_two_points_tilt_what_lies_between() -> None:
    after = corrected(RAWS, [Seen(RAWS[0], RAWS[0].value * 1.3), Seen(RAWS[4], RAWS[4].value * 0.8)])
    ratios = [one.value / one.raw.value for one in after]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[0] == pytest.approx(1.3, rel=0.03)
    assert ratios[4] == pytest.approx(0.8, rel=0.03)


def test_intervals_narrow_with_points_and_never_below_what_repeats_differ_by() -> None:
    points = [Seen(one, one.value * 1.2) for one in RAWS]
    widths = [width(corrected([RAWS[2]], points[:many])[0]) for many in range(6)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] >= 2 * Z10 * REPEAT_SPREAD
    repeats = corrected([RAWS[2]], [points[2]] * 16)[0]
    assert width(repeats) >= 2 * Z10 * REPEAT_SPREAD


def test_a_point_says_less_of_other_lengths() -> None:
    far = raw(16, input_len=65536)
    near, other = corrected([RAWS[2], far], [Seen(RAWS[2], RAWS[2].value * 1.4)])
    assert near.value / near.raw.value > other.value / other.raw.value > 1.0
    assert width(near) < width(other) < math.log(1.5**2) + 0.2


def test_a_law_that_is_surer_of_itself_is_moved_less() -> None:
    sure, near = (Raw(0.010, 0.0098, 0.0102, streams, 1024, 1024) for streams in (16, 12))
    assert corrected([near], [Seen(sure, 0.013)])[0].value < 0.0105


def test_at_a_measured_load_the_value_is_what_was_measured() -> None:
    twice = [Seen(RAWS[2], 0.0118), Seen(RAWS[2], 0.0122)]
    for others in ([], [Seen(RAWS[0], law(1) * 2)]):
        (found,) = corrected([RAWS[2]], [*others, Seen(RAWS[2], 0.012)])
        assert found.value == pytest.approx(0.012)
        assert found.basis == "measured"
        assert found.low < 0.012 < found.high
    (found,) = corrected([RAWS[2]], twice)
    assert found.value == pytest.approx(math.sqrt(0.0118 * 0.0122))
    assert corrected([RAWS[3]], twice)[0].basis == "calibrated"


def test_each_part_of_a_step_is_off_by_a_factor_of_its_own() -> None:
    """Launches take 40 % longer than predicted, all else is right: a few streams show it, and many hardly change."""
    few = raw(1, 0.010, shares={"layers": 0.9, "weights": 0.1})
    many = raw(256, 0.040, shares={"layers": 0.1, "weights": 0.3, "prefill": 0.6})
    alike = raw(2, 0.0102, shares={"layers": 0.88, "weights": 0.12})
    near, far = corrected([alike, many], [Seen(few, 0.010 * 1.36)])
    blind = corrected([many._replace(shares={})], [Seen(few._replace(shares={}), 0.0136)])[0]
    assert near.value / near.raw.value > 1.25
    assert far.value < blind.value


def test_more_streams_never_make_a_token_faster_than_fewer_were_measured() -> None:
    flat = [raw(streams, 0.010 + streams * 1e-6) for streams in STREAMS]
    after = corrected(flat, [Seen(flat[1], 0.0150), Seen(flat[2], 0.0151)])
    assert after[4].value >= 0.0151 * math.exp(-REPEAT_SPREAD) * 0.999


def test_a_point_off_by_more_than_ten_is_a_fault_and_left_out() -> None:
    after = corrected(RAWS, [Seen(RAWS[0], RAWS[0].value * 1000)])
    assert [one.value for one in after] == [one.value for one in RAWS]


def test_what_is_not_verified_widens_and_moves_nothing() -> None:
    claim = Seen(RAWS[2], RAWS[2].value * 3, verified=False)
    before, after = corrected([RAWS[2]], [])[0], corrected([RAWS[2]], [claim])[0]
    assert after.value == before.value
    assert after.low == before.low
    assert after.high == pytest.approx(RAWS[2].value * 3)
    assert after.basis == "formula"
    agreeing = corrected([RAWS[2]], [Seen(RAWS[2], RAWS[2].value, verified=False)])[0]
    assert width(agreeing) == pytest.approx(width(before)), "one that agrees narrows nothing either"


def test_other_deployments_shift_and_leave_most_of_the_doubt() -> None:
    (after,) = corrected([RAWS[2]], [], Shift(math.log(1.2), 0.8, 3))
    assert after.value == pytest.approx(RAWS[2].value * 1.2)
    assert after.basis == "calibrated"
    assert 0.8 * width(RAWS[2]) < width(after) <= width(RAWS[2]) * 1.01


def test_a_hundred_points_are_no_burden() -> None:
    points = [Seen(raw(1 + place, law(1 + place)), law(1 + place) * 1.1) for place in range(100)]
    after = corrected(RAWS, points)
    assert all(one.value / one.raw.value == pytest.approx(1.1, rel=0.03) for one in after[1:4])
    assert max(one.n for one in after) <= 16


def test_points_are_read_in_the_short_form_of_a_workload() -> None:
    (point,) = read_points(
        [{"metric": "tpot", "workload": {"input_tokens": 1024, "output_tokens": 256, "concurrency": 8}, "value": 0.012}]
    )
    assert (point.metric, point.value, point.verified) == ("tpot", 0.012, True)
    assert (point.workload.input_len, point.workload.output_len, point.load.concurrency) == (1024, 256, 8)


@pytest.mark.parametrize(
    ("plain", "said"),
    [
        ("text", "no list"),
        ([], "no list"),
        ([{"metric": "tpot"}], "0.value"),
        ([{"metric": "speed", "value": 1.0}], "no metric"),
        ([{"metric": "tpot", "value": -1.0}], "0.value"),
        ([{"metric": "tpot", "value": math.nan}], "0.value"),
        ([{"metric": "tpot", "value": 1, "workload": {"concurrency": [1, 2]}}], "2 loads"),
        ([{"metric": "tpot", "value": 1, "workload": {"concurrency": 0}}], "concurrency"),
        ([{"metric": "tpot", "value": 1, "units": "ms"}], "units"),
        ([7], "point 0"),
    ],
)
def test_points_that_can_not_be_read_say_which_and_why(plain: Any, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        read_points(plain)
