"""Intervals for means, percentiles, ratios and shares. Each says its method and how many observations it rests on."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servolt.statistics.distributions import beta_quantile, normal_cdf, normal_quantile, t_quantile
from servolt.statistics.series import INDEPENDENT_BELOW, autocorrelation, block_length

__all__ = [
    "Interval",
    "block_bootstrap",
    "clopper_pearson",
    "least_n_for_percentile",
    "mean_over_batches",
    "mean_over_runs",
    "percentile_interval",
    "percentile_over_windows",
    "ratio_of_sums",
]

LEVEL = 0.95
RUNS_FOR_BCA = 8  # fewer values than this have too few distinct resamples
RESAMPLES = 10_000
BLOCK_RESAMPLES = 2_000  # a percentile interval's limits move by about 2 % of its width at this many
BATCHES = 10  # the least that a t interval over batches is made of
SEED = 20_260_101  # resampling is part of the result, so it is the same each time

Samples = Sequence[float] | NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """`low` and `high` are None where `n` observations don't allow an interval."""

    value: float
    low: float | None
    high: float | None
    level: float
    method: str
    n: int


def mean_over_runs(values: Samples, level: float = LEVEL) -> Interval:
    """The mean of independent runs, all above 0: t on logs, and from 8 runs on the BCa bootstrap.

    t on logs is an interval of the geometric mean, exp(mean of logs +- t s / sqrt(n)), about which it lies evenly. The
    value stays the mean that people know; the two differ by the share s^2 / 2.
    """
    runs = np.asarray(values, dtype=float)
    mean = float(runs.mean())
    count = len(runs)
    if count < 2 or (count < RUNS_FOR_BCA and runs.min() <= 0):
        return Interval(mean, None, None, level, "none", count)
    if count < RUNS_FOR_BCA:
        logs = np.log(runs)
        low, high = (math.exp(limit) for limit in _t_limits(logs, level))
        # Runs that differ by factors have a mean far above the geometric one; the interval still holds the value.
        return Interval(mean, low, max(high, mean), level, "t on logs over windows, of the geometric mean", count)
    low, high = _bca_of_mean(runs, level)
    return Interval(mean, low, high, level, "BCa bootstrap over windows", count)


def _t_limits(values: NDArray[np.float64], level: float) -> tuple[float, float]:
    half = t_quantile((1 + level) / 2, len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(values.mean()) - half, float(values.mean()) + half


def _bca_of_mean(runs: NDArray[np.float64], level: float) -> tuple[float, float]:
    """Bias-corrected and accelerated limits, Efron 1987."""
    mean, count = float(runs.mean()), len(runs)
    if runs.max() - runs.min() <= 1e-12 * abs(mean):
        return mean, mean
    picks = np.random.default_rng(SEED).integers(0, count, size=(RESAMPLES, count))
    resampled = np.sort(runs[picks].mean(axis=1))
    share = float((resampled < mean).mean())
    bias = normal_quantile(min(max(share, 1 / RESAMPLES), 1 - 1 / RESAMPLES))
    left_out = (runs.sum() - runs) / (count - 1)
    pulls = left_out.mean() - left_out
    acceleration = float((pulls**3).sum() / (6 * (pulls**2).sum() ** 1.5))
    limits = []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        shifted = bias + normal_quantile(tail)
        limits.append(float(np.quantile(resampled, normal_cdf(bias + shifted / (1 - acceleration * shifted)))))
    return limits[0], limits[1]


def mean_over_batches(series: Samples, level: float = LEVEL) -> Interval:
    """The mean of one dependent series: t over batch means, the batches long enough to be nearly independent."""
    values = np.asarray(series, dtype=float)
    mean, size = float(values.mean()), 1
    while True:
        means = values[: len(values) // size * size].reshape(-1, size).mean(axis=1)
        if len(means) < BATCHES:
            return Interval(mean, None, None, level, "none", len(values))
        if abs(autocorrelation(means)) < INDEPENDENT_BELOW:
            break
        size += 1
    half = t_quantile((1 + level) / 2, len(means) - 1) * float(means.std(ddof=1)) / math.sqrt(len(means))
    return Interval(mean, mean - half, mean + half, level, "t over batch means", len(means))


def block_bootstrap(
    samples: Samples, statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]], level: float = LEVEL
) -> Interval:
    """Percentile limits from a moving-block bootstrap of samples in the order of time.

    `statistic` gets an array of shape (resamples, n) and returns one value for each row.
    """
    values = np.asarray(samples, dtype=float)
    count = len(values)
    value = float(statistic(values[None, :])[0])
    if count < 2 * BATCHES:
        return Interval(value, None, None, level, "none", count)
    length = block_length(values)
    blocks = -(-count // length)
    random = np.random.default_rng(SEED)
    results = [
        statistic(values[_block_picks(random, rows, blocks, length, count)])
        for rows in _portions(BLOCK_RESAMPLES, 4_000_000 // count + 1)
    ]
    low, high = np.quantile(np.concatenate(results), [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), level, f"moving-block bootstrap, blocks of {length}", count)


def _block_picks(random: np.random.Generator, rows: int, blocks: int, length: int, count: int) -> NDArray[np.int64]:
    starts = random.integers(0, count - length + 1, size=(rows, blocks))
    return (starts[:, :, None] + np.arange(length)).reshape(rows, -1)[:, :count]


def _portions(total: int, most: int) -> list[int]:
    """So many rows at a time that the memory stays small."""
    return [min(most, total - done) for done in range(0, total, most)]


def least_n_for_percentile(p: float) -> int:
    """Fewest observations from which quantile p is worth saying: one lies beyond it with 99 % certainty.

    >>> least_n_for_percentile(0.99)
    459
    """
    return math.ceil(math.log(0.01) / math.log(p))


def percentile_interval(samples: Samples, p: float, level: float = LEVEL) -> Interval:
    """Quantile p (linear) of samples in the order of time.

    Independent samples: between two order statistics, by the binomial distribution. Dependent: moving-block bootstrap.
    """
    values = np.asarray(samples, dtype=float)
    if abs(autocorrelation(values)) >= INDEPENDENT_BELOW:
        return block_bootstrap(values, lambda rows: np.quantile(rows, p, axis=1), level)
    value = float(np.quantile(values, p))
    ranks = _order_statistics(len(values), p, level)
    if ranks is None:
        return Interval(value, None, None, level, "none", len(values))
    ordered = np.sort(values)
    low, high = float(ordered[ranks[0] - 1]), float(ordered[ranks[1] - 1])
    return Interval(value, low, high, level, "order statistics", len(values))


def percentile_over_windows(windows: Sequence[NDArray[np.float64]], p: float, level: float = LEVEL) -> Interval:
    """Quantile p of all windows' samples together, all above 0, where the windows may differ by more than chance.

    The jackknife leaves out one window at a time, on logs. Where windows are alike it may by chance see hardly a
    difference, so the interval is never narrower than that of the samples taken together.
    """
    pooled = percentile_interval(np.concatenate(windows), p, level)
    rest = [np.concatenate([*windows[:place], *windows[place + 1 :]]) for place in range(len(windows))]
    left_out = np.array([np.quantile(samples, p) for samples in rest])
    if left_out.min() <= 0:
        return pooled
    logs, count = np.log(left_out), len(windows)
    half = t_quantile((1 + level) / 2, count - 1) * math.sqrt((count - 1) * float(logs.var()))
    low, high = pooled.value * math.exp(-half), pooled.value * math.exp(half)
    if pooled.low is None or pooled.high is None:
        return Interval(pooled.value, low, high, level, "jackknife over windows", pooled.n)
    method = f"the wider of jackknife over windows and {pooled.method}"
    return Interval(pooled.value, min(low, pooled.low), max(high, pooled.high), level, method, pooled.n)


def _order_statistics(count: int, p: float, level: float) -> tuple[int, int] | None:
    """Ranks l < u, from 1, with P(l <= Binomial(count, p) < u) >= level; None where the sample is too small."""
    k = np.arange(count + 1)
    logs = np.array([math.lgamma(count + 1) - math.lgamma(i + 1) - math.lgamma(count - i + 1) for i in k])
    cumulative = np.cumsum(np.exp(logs + k * math.log(p) + (count - k) * math.log1p(-p)))
    tail = (1 - level) / 2
    low = int(np.searchsorted(cumulative, tail, side="right"))
    high = int(np.searchsorted(cumulative, 1 - tail, side="left")) + 1
    return (low, high) if low >= 1 and high <= count else None


def clopper_pearson(successes: int, trials: int, level: float = LEVEL) -> Interval:
    """A share, exact.

    >>> interval = clopper_pearson(0, 10)
    >>> round(interval.high, 4)  # 1 - 0.025 ** (1 / 10)
    0.3085
    """
    tail = (1 - level) / 2
    low = beta_quantile(tail, successes, trials - successes + 1) if successes else 0.0
    high = beta_quantile(1 - tail, successes + 1, trials - successes) if successes < trials else 1.0
    return Interval(successes / trials, low, high, level, "Clopper-Pearson", trials)


def ratio_of_sums(numerators: Samples, denominators: Samples, level: float = LEVEL) -> Interval:
    """sum(numerators) / sum(denominators) over windows, with the jackknife's standard error."""
    top, bottom = np.asarray(numerators, dtype=float), np.asarray(denominators, dtype=float)
    count, value = len(top), float(top.sum() / bottom.sum())
    rest = bottom.sum() - bottom
    if count < 2 or rest.min() <= 0:  # with one window left out there may be no ratio
        return Interval(value, None, None, level, "none", count)
    left_out = (top.sum() - top) / rest
    variance = (count - 1) / count * float(((left_out - left_out.mean()) ** 2).sum())
    half = t_quantile((1 + level) / 2, count - 1) * math.sqrt(variance)
    return Interval(value, value - half, value + half, level, "jackknife over windows", count)
