"""Robust least squares in logarithms, with a prior for each parameter: Gauss and Newton, damped as Levenberg has it."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Prior", "fitted"]

Array = NDArray[np.float64]
STEP = 1e-4  # of a parameter's logarithm, for the slope
ROUNDS = 40
ENOUGH = 1e-5  # of the sum of squares: less gain ends it


class Prior(NamedTuple):
    """Of one parameter, in logarithms: where it is expected, how surely, and what is possible."""

    centre: Array
    spread: Array
    low: Array
    high: Array


def fitted(
    errors: Callable[[Array], Array],
    prior: Prior,
    start: Array,
    *,
    scale: float,
    weights: Array | None = None,
    rounds: int = ROUNDS,
) -> Array:
    """Parameters that make the errors least.

    An error of much more than `scale` counts by its size, not by its square (soft L1).
    """
    at = np.clip(start, prior.low, prior.high)
    damping, value = 1e-2, np.inf
    held: tuple[Array, Array] | None = None
    for _ in range(rounds):
        if held is None:
            raw = errors(at)
            value = _value(raw, at, prior, scale, weights)
            held = raw, _slopes(errors, at, raw, prior)
        raw, slopes = held
        moved = np.clip(at + _move(raw, slopes, at, prior, scale, weights, damping), prior.low, prior.high)
        found = _value(errors(moved), moved, prior, scale, weights)
        if found >= value:
            damping *= 6
            if damping > 1e6:
                break
            continue
        gain = (value - found) / value
        at, held, damping = moved, None, damping / 4
        if gain < ENOUGH:
            break
    return at


def _value(raw: Array, at: Array, prior: Prior, scale: float, weights: Array | None) -> float:
    each = 2.0 * (np.sqrt(1.0 + (raw / scale) ** 2) - 1.0)
    total = float(np.sum(each if weights is None else each * weights))
    return total + float(np.sum(((at - prior.centre) / prior.spread) ** 2))


def _slopes(errors: Callable[[Array], Array], at: Array, raw: Array, prior: Prior) -> Array:
    columns = []
    for index in range(len(at)):
        step = STEP if at[index] + STEP <= prior.high[index] else -STEP
        beside = at.copy()
        beside[index] += step
        columns.append((errors(beside) - raw) / step)
    return np.stack(columns, axis=1)


def _move(
    raw: Array, slopes: Array, at: Array, prior: Prior, scale: float, weights: Array | None, damping: float
) -> Array:
    trust = 1.0 / np.sqrt(1.0 + (raw / scale) ** 2) / scale**2
    trust = trust if weights is None else trust * weights
    curvature = slopes.T @ (slopes * trust[:, None]) + np.diag(1.0 / prior.spread**2)
    gradient = slopes.T @ (raw * trust) + (at - prior.centre) / prior.spread**2
    damped = curvature + damping * np.diag(np.diag(curvature))
    return np.asarray(-np.linalg.solve(damped, gradient), dtype=np.float64)
