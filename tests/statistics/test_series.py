"""Where a series becomes steady, and how much neighbours know of each other."""

import numpy as np
import pytest

from servolt.statistics import autocorrelation, mser, trend


def test_a_ramp_is_cut_and_the_steady_rest_is_kept() -> None:
    random = np.random.default_rng(1)
    ramp = np.concatenate([np.linspace(0, 100, 60), np.full(240, 100.0)]) + random.normal(0, 2, size=300)
    cut = mser(ramp)
    assert cut is not None
    assert 50 <= cut <= 80


def test_a_series_that_never_settles_has_no_steady_part() -> None:
    assert mser(np.arange(300.0)) is None


def test_the_autocorrelation_of_an_alternating_series_is_minus_one() -> None:
    assert autocorrelation([1.0, -1.0] * 200) == pytest.approx(-1, abs=0.01)


def test_a_constant_series_has_none() -> None:
    assert autocorrelation([0.1] * 50) == 0.0


def test_a_trend_has_students_p_of_its_slope() -> None:
    values = [10, 11, 10.5, 12, 12.5]
    found = trend(range(5), values)
    assert found is not None
    slope, _ = np.polyfit(np.arange(5), np.log(values), 1)
    assert found.change == pytest.approx(np.expm1(4 * slope))
    # Student's t at 3 degrees of freedom in closed form, of the slope over its standard error
    rest = np.log(values) - np.polyval(np.polyfit(np.arange(5), np.log(values), 1), np.arange(5))
    u = slope / np.sqrt(rest @ rest / 3 / 10) / np.sqrt(3)
    assert found.p_value == pytest.approx(1 - 2 / np.pi * (u / (1 + u * u) + np.arctan(u)))


def test_three_samples_and_samples_of_nothing_have_no_trend() -> None:
    assert trend([0, 1, 2], [1, 2, 3]) is None
    assert trend([0, 1, 2, 3], [1, 2, 0, 3]) is None


def test_chance_has_a_trend_as_often_as_the_p_value_says() -> None:
    random = np.random.default_rng(1)
    found = [trend(range(6), np.exp(random.normal(0, 0.1, size=6)).tolist()) for _ in range(2000)]
    assert sum(one is not None and one.p_value < 0.05 for one in found) / 2000 == pytest.approx(0.05, abs=0.015)
