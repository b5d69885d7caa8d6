"""The few distributions that the intervals need, on the standard library's gamma function."""

import math
from collections.abc import Callable
from functools import lru_cache
from statistics import NormalDist

__all__ = ["beta_cdf", "beta_quantile", "normal_cdf", "normal_quantile", "t_cdf", "t_quantile"]

_NORMAL = NormalDist()
_TINY = 1e-300


def normal_cdf(x: float) -> float:
    return _NORMAL.cdf(x)


def normal_quantile(p: float) -> float:
    return _NORMAL.inv_cdf(p)


def beta_cdf(x: float, a: float, b: float) -> float:
    """Regularised incomplete beta function I_x(a, b), by its continued fraction (Lentz's method).

    >>> round(beta_cdf(0.5, 2, 3), 10)
    0.6875
    """
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly, its mirror image converges fast
        return 1.0 - beta_cdf(1 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) / (a * _beta_fraction(x, a, b))


def _beta_fraction(x: float, a: float, b: float) -> float:
    """1 + d_1 / (1 + d_2 / (1 + ...)), Abramowitz and Stegun 26.5.8."""
    fraction, c, d = 1.0, 1.0, 0.0
    for step in range(1, 1000):
        half, odd = divmod(step, 2)
        if odd:
            term = -(a + half) * (a + b + half) * x / ((a + 2 * half) * (a + 2 * half + 1))
        else:
            term = half * (b - half) * x / ((a + 2 * half - 1) * (a + 2 * half))
        d = 1.0 / _away_from_zero(1.0 + term * d)
        c = _away_from_zero(1.0 + term / c)
        fraction *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return fraction


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def beta_quantile(p: float, a: float, b: float) -> float:
    return _root(lambda x: beta_cdf(x, a, b) - p, 0.0, 1.0)


def t_cdf(t: float, df: float) -> float:
    """Student's t."""
    tail = 0.5 * beta_cdf(df / (df + t * t), df / 2, 0.5)
    return tail if t < 0 else 1.0 - tail


@lru_cache(maxsize=4096)  # the same few levels and sizes are asked again and again
def t_quantile(p: float, df: float) -> float:
    """
    >>> round(t_quantile(0.975, 5), 4)  # any table of Student's t
    2.5706
    """
    if p == 0.5:
        return 0.0
    if p < 0.5:
        return -t_quantile(1 - p, df)
    high = 2.0
    while t_cdf(high, df) < p:
        high *= 2
    return _root(lambda t: t_cdf(t, df) - p, 0.0, high)


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Of a rising function, by bisection to the last bit or so."""
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (low, middle) if function(middle) > 0 else (middle, high)
    return (low + high) / 2
