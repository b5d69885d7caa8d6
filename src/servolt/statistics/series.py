"""Dependence and steadiness of one series of samples in the order of time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servolt.statistics.distributions import t_cdf

__all__ = ["Trend", "autocorrelation", "block_length", "mser", "trend"]

INDEPENDENT_BELOW = 0.2  # a lag-1 autocorrelation that widens an interval by less than a quarter
BATCH = 5  # MSER-5: White, Cobb and Spratt 2000


@dataclass(frozen=True)
class Trend:
    """`change` is the share by which the fitted line differs between the first sample and the last."""

    change: float
    p_value: float


def autocorrelation(samples: Sequence[float] | NDArray[np.float64], lag: int = 1) -> float:
    """0 for a constant series, and for one no longer than the lag."""
    values = np.asarray(samples, dtype=float)
    centred = values - values.mean()
    total = float(centred @ centred)
    if len(values) <= lag or total <= np.finfo(float).eps * float(values @ values):
        return 0.0
    return float(centred[lag:] @ centred[:-lag]) / total


def block_length(samples: NDArray[np.float64]) -> int:
    """For a moving-block bootstrap: n^(1/3), and at least the lag where the autocorrelation has died down."""
    length = round(len(samples) ** (1 / 3)) or 1
    while length < len(samples) // 4 and autocorrelation(samples, length) > INDEPENDENT_BELOW:
        length += 1
    return length


def mser(samples: Sequence[float] | NDArray[np.float64]) -> int | None:
    """How many samples to cut off the start before the series is steady; None if no part of it is.

    MSER-5: means of batches of 5, then the cut that minimises the squared standard error of what is left. A minimum at
    half of the series or later says that it never became steady.
    """
    values = np.asarray(samples, dtype=float)
    batches = values[: len(values) // BATCH * BATCH].reshape(-1, BATCH).mean(axis=1)
    count = len(batches)
    if count < 2:
        return None
    most = count // 2
    errors = [float(np.var(batches[cut:])) / (count - cut) for cut in range(most + 1)]
    best = int(np.argmin(errors))
    return None if best == most else best * BATCH


def trend(times: Sequence[float], values: Sequence[float]) -> Trend | None:
    """A straight line through the logarithms of samples, all above 0, with Student's test of its slope.

    None for fewer than four samples: a line through three leaves one degree of freedom.

    >>> trend([0, 1, 2, 3], [1, 2, 4, 8.1]).p_value < 0.001
    True
    """
    count = len(values)
    if count < 4 or min(values) <= 0:
        return None
    x, y = np.asarray(times, dtype=float), np.log(np.asarray(values, dtype=float))
    x, y = x - x.mean(), y - y.mean()
    slope = float(x @ y / (x @ x))
    rest = y - slope * x
    error = math.sqrt(float(rest @ rest) / (count - 2) / float(x @ x))
    change = math.expm1(slope * float(x[-1] - x[0]))
    if error <= np.finfo(float).eps * abs(slope):
        return Trend(change, 0.0 if slope else 1.0)
    return Trend(change, 2 * t_cdf(-abs(slope) / error, count - 2))
