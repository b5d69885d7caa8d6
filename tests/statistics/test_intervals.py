"""Intervals hold the truth about as often as they say, also where the samples hang together."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from servolt.statistics import (
    Interval,
    block_bootstrap,
    clopper_pearson,
    least_n_for_percentile,
    mean_over_batches,
    mean_over_runs,
    normal_quantile,
    percentile_interval,
    percentile_over_windows,
    ratio_of_sums,
)


def _holds(interval: Interval, truth: float) -> bool:
    assert interval.low is not None
    assert interval.high is not None
    return interval.low <= truth <= interval.high


def _ar1(random: np.random.Generator, count: int, phi: float) -> NDArray[np.float64]:
    noise = random.normal(size=count + 100)
    values = np.zeros(count + 100)
    for place in range(1, count + 100):
        values[place] = phi * values[place - 1] + noise[place]
    return values[100:]


def test_clopper_pearson_agrees_with_the_published_example() -> None:
    # Clopper and Pearson 1934 as tabulated by Agresti and Coull 1998: 5 of 10 at 95 % is 0.187 to 0.813
    interval = clopper_pearson(5, 10)
    assert interval.low == pytest.approx(0.187, abs=5e-4)
    assert interval.high == pytest.approx(0.813, abs=5e-4)


def test_a_percentile_needs_as_many_samples_as_hold_one_beyond_it_almost_surely() -> None:
    assert [least_n_for_percentile(p) for p in (0.5, 0.9, 0.99)] == [7, 44, 459]


def test_order_statistics_of_the_median_of_ten_are_the_second_and_the_ninth() -> None:
    # Conover, Practical Nonparametric Statistics: the binomial gives 0.9785 between them
    samples = np.array([7, 4, 1, 10, 8, 3, 2, 9, 6, 5], dtype=float)
    interval = percentile_interval(samples, 0.5)
    assert interval.method == "order statistics"
    assert (interval.low, interval.high) == (2, 9)


def test_percentile_intervals_of_independent_samples_hold_the_truth() -> None:
    random = np.random.default_rng(1)
    truth = -np.log(0.1)
    hits = sum(_holds(percentile_interval(random.exponential(size=200), 0.9), truth) for _ in range(400))
    assert 0.92 <= hits / 400 <= 0.995


def test_runs_from_three_on_give_an_interval_that_holds_the_mean() -> None:
    random = np.random.default_rng(2)
    hits = sum(_holds(mean_over_runs(np.exp(random.normal(3.0, 0.05, size=4))), np.exp(3.0)) for _ in range(400))
    assert 0.92 <= hits / 400 <= 0.98


@pytest.mark.parametrize(("between", "windows", "p"), [(0.0, 4, 0.9), (0.45, 3, 0.5), (0.45, 4, 0.9), (0.45, 10, 0.5)])
def test_percentiles_hold_the_truth_also_where_the_windows_differ(between: float, windows: int, p: float) -> None:
    random = np.random.default_rng(7)
    truth = math.exp(0.3 * math.hypot(1, between) * normal_quantile(p))
    runs = [
        [np.exp(0.3 * (between * random.normal() + random.normal(size=40))) for _ in range(windows)] for _ in range(200)
    ]
    assert sum(_holds(percentile_over_windows(run, p), truth) for run in runs) / 200 >= 0.9
    if between:  # what takes all requests for independent of one another holds it far less often
        assert sum(_holds(percentile_interval(np.concatenate(run), p), truth) for run in runs) / 200 < 0.85


def test_t_on_logs_is_the_interval_of_the_geometric_mean_and_is_called_so() -> None:
    interval = mean_over_runs([1.0, 2.0, 4.0])
    half = 4.302653 * math.log(2) / math.sqrt(3)  # t(0.975, 2) from the table; the logs are ln 2 apart
    assert interval.low == pytest.approx(2.0 * math.exp(-half), rel=1e-5)
    assert interval.high == pytest.approx(2.0 * math.exp(half), rel=1e-5)
    assert "geometric mean" in interval.method
    assert interval.value == pytest.approx(7 / 3)


def test_from_eight_runs_on_it_is_the_bca_bootstrap() -> None:
    random = np.random.default_rng(3)
    intervals = [mean_over_runs(random.gamma(20.0, size=12)) for _ in range(200)]
    assert {interval.method for interval in intervals} == {"BCa bootstrap over windows"}
    assert 0.88 <= sum(_holds(interval, 20.0) for interval in intervals) / 200 <= 0.98


def test_batch_means_know_that_dependent_samples_say_less() -> None:
    random = np.random.default_rng(4)
    hits = sum(_holds(mean_over_batches(_ar1(random, 1000, 0.7)), 0.0) for _ in range(200))
    assert 0.86 <= hits / 200 <= 0.99
    # the interval for independent samples would hold it far less often
    narrow = [
        1.96 * series.std() / 1000**0.5 >= abs(series.mean())
        for series in (_ar1(random, 1000, 0.7) for _ in range(200))
    ]
    assert np.mean(narrow) < 0.75


def test_the_block_bootstrap_knows_it_too() -> None:
    random = np.random.default_rng(5)
    intervals = [block_bootstrap(_ar1(random, 300, 0.5), lambda rows: rows.mean(axis=1)) for _ in range(60)]
    assert sum(_holds(interval, 0.0) for interval in intervals) >= 50


def test_too_few_samples_give_a_value_without_an_interval() -> None:
    for interval in (
        mean_over_runs([3.0]),
        mean_over_batches([1.0, 2.0, 3.0]),
        block_bootstrap([1.0, 2.0], lambda rows: rows.mean(axis=1)),
        ratio_of_sums([1.0], [2.0]),
        percentile_interval([1.0, 2.0, 3.0], 0.9),
    ):
        assert (interval.low, interval.high) == (None, None)


def test_the_jackknife_of_a_ratio_with_equal_denominators_is_the_t_interval_of_the_mean() -> None:
    values = [3.0, 4.0, 8.0, 5.0]
    interval = ratio_of_sums(values, [1.0] * 4)
    half = 3.182446 * np.std(values, ddof=1) / 2  # t(0.975, 3) from the table
    assert interval.value == 5.0
    assert interval.high == pytest.approx(5.0 + half, rel=1e-5)


def test_a_ratio_that_rests_on_one_window_alone_has_no_interval() -> None:
    interval = ratio_of_sums([3.0, 2.0], [10.0, 0.0])
    assert (interval.value, interval.low, interval.high) == (0.5, None, None)


def test_resampling_gives_the_same_limits_each_time() -> None:
    samples = np.random.default_rng(6).normal(10, 1, size=64)
    assert mean_over_runs(samples) == mean_over_runs(samples)
    assert block_bootstrap(samples, lambda rows: rows.mean(axis=1)) == block_bootstrap(
        samples, lambda rows: rows.mean(axis=1)
    )
