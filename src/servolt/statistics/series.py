"""Dependence and steadiness of one series of samples in the order of time."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["autocorrelation", "block_length", "mser"]

INDEPENDENT_BELOW = 0.2  # a lag-1 autocorrelation that widens an interval by less than a quarter
BATCH = 5  # MSER-5: White, Cobb and Spratt 2000


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
