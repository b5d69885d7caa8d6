"""Where a series becomes steady, and how much neighbours know of each other."""

import numpy as np
import pytest

from servolt.statistics import autocorrelation, mser


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
