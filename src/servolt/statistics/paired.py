"""Two configurations, block by block: how large the effect is, whether it is one, and how many blocks would tell."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from servolt.statistics.distributions import normal_cdf, t_quantile

__all__ = [
    "PairedComparison",
    "hodges_lehmann",
    "holm",
    "paired_comparison",
    "paired_t_power",
    "wilcoxon_p",
]

MOST_BLOCKS = 1000  # a study that needs more is another study
POWER = 0.8  # the field's habit


@dataclass(frozen=True)
class PairedComparison:
    """An effect on the log scale: `math.expm1(estimate)` is the change as a share. Positive: B is larger than A.

    `same`: both one-sided tests against the margin pass. `blocks_needed` is how many more would decide, None where
    nothing is open or no affordable number would.
    """

    estimate: float
    low: float
    high: float
    level: float
    p_value: float
    same: bool
    verdict: str  # greater, less, same or undecided, for this comparison alone
    blocks: int
    blocks_needed: int | None


def paired_comparison(
    log_ratios: Sequence[float], *, margin: float = 0.02, alpha: float = 0.05, family: int = 1
) -> PairedComparison:
    """log(B / A) of each block. Raises ValueError for fewer than two blocks: one has no spread.

    `family` is how many comparisons are decided together; it raises how many blocks can decide at all. The p-value is
    not adjusted for it: `holm` does that over the whole family.
    """
    values = np.asarray(log_ratios, dtype=float)
    if len(values) < 2:
        raise ValueError("a paired comparison needs at least two blocks")
    bound = math.log1p(margin)
    low, high = _interval(values, 1 - alpha)
    same = _lies_within(values, bound, alpha)
    p_value = wilcoxon_p(values)
    estimate = hodges_lehmann(values)
    decided = p_value * family < alpha
    verdict = "same" if same else ("greater" if estimate > 0 else "less") if decided else "undecided"
    needed = _blocks_needed(values, bound, alpha, family) if verdict == "undecided" else None
    return PairedComparison(estimate, low, high, 1 - alpha, p_value, same, verdict, len(values), needed)


def hodges_lehmann(values: Sequence[float] | NDArray[np.float64]) -> float:
    """The median of all means of two values, each with itself too."""
    return float(np.median(_pairwise_means(np.asarray(values, dtype=float))))


def wilcoxon_p(values: Sequence[float] | NDArray[np.float64]) -> float:
    """Exact two-sided p of the signed-rank test. Zeros are dropped; with ties the sign flips of mid-ranks are counted.

    >>> wilcoxon_p([1, 2, 3, 4, 5, 6])  # six pairs all of one sign: 2 / 2**6
    0.03125
    """
    kept = np.asarray(values, dtype=float)
    kept = kept[kept != 0]
    if len(kept) == 0:
        return 1.0
    # Twice the mid-ranks are whole numbers, so their sums can be counted.
    doubled = _doubled_ranks(np.abs(kept))
    ways = np.zeros(int(doubled.sum()) + 1)
    ways[0] = 1
    for rank in doubled:
        ways[rank:] += ways[:-rank].copy()
    share = ways / ways.sum()
    observed = int(doubled[kept > 0].sum())
    smaller = min(observed, len(ways) - 1 - observed)
    return min(1.0, 2 * float(share[: smaller + 1].sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p of a family that was named beforehand, in the order given.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def paired_t_power(effect: float, blocks: int, alpha: float = 0.05) -> float:
    """How often the two-sided paired t test finds an effect of so many standard deviations of the log ratios.

    The non-central t, by quadrature over the distribution of the sample's standard deviation.
    """
    df = blocks - 1
    limit = t_quantile(1 - alpha / 2, df)
    spread = 8 / math.sqrt(2 * df)
    ratios = np.linspace(max(1e-6, 1 - spread), 1 + spread, 121)  # s / sigma; sd about 1 / sqrt(2 df)
    logs = (df - 1) * np.log(ratios) - df * ratios**2 / 2
    weights = np.exp(logs - logs.max())
    shift = effect * math.sqrt(blocks)
    found = [normal_cdf(shift - limit * ratio) + normal_cdf(-shift - limit * ratio) for ratio in ratios]
    return float(np.average(found, weights=weights))


def _pairwise_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sort(np.array([(a + b) / 2 for a, b in combinations_with_replacement(values, 2)]))


def _doubled_ranks(magnitudes: NDArray[np.float64]) -> NDArray[np.int64]:
    ordered = np.sort(magnitudes)
    first = np.searchsorted(ordered, magnitudes, side="left")
    last = np.searchsorted(ordered, magnitudes, side="right")
    return (first + 1 + last).astype(np.int64)


def _interval(values: NDArray[np.float64], level: float) -> tuple[float, float]:
    """Ordered pairwise means cut off by the exact Wilcoxon distribution; too few blocks for that: t on the mean."""
    means, cut = _pairwise_means(values), _wilcoxon_cut(len(values), (1 - level) / 2)
    if cut is not None:
        return float(means[cut]), float(means[-1 - cut])
    return _t_interval(values, level)


def _wilcoxon_cut(blocks: int, tail: float) -> int | None:
    """How many of the ordered pairwise means may be cut at each end so that at most `tail` is lost there."""
    ways = np.zeros(blocks * (blocks + 1) // 2 + 1)
    ways[0] = 1
    for rank in range(1, blocks + 1):
        ways[rank:] += ways[:-rank].copy()
    cumulative = np.cumsum(ways / ways.sum())
    cut = int(np.searchsorted(cumulative, tail, side="right"))
    return cut - 1 if cut >= 1 else None


def _t_interval(values: NDArray[np.float64], level: float) -> tuple[float, float]:
    mean = float(values.mean())
    half = t_quantile((1 + level) / 2, len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return mean - half, mean + half


def _lies_within(values: NDArray[np.float64], bound: float, alpha: float) -> bool:
    """Two one-sided t tests at alpha: the interval at level 1 - 2 alpha lies inside the margin."""
    low, high = _t_interval(values, 1 - 2 * alpha)
    return -bound < low and high < bound


def _blocks_needed(values: NDArray[np.float64], bound: float, alpha: float, family: int) -> int | None:
    """Further blocks until either answer is likely, if effect and spread stay what they are."""
    mean, sd = abs(float(values.mean())), float(values.std(ddof=1))

    def enough(blocks: int) -> bool:
        if mean < bound and t_quantile(1 - alpha, blocks - 1) * sd / math.sqrt(blocks) < bound - mean:
            return True
        can_decide = family * 2.0 ** (1 - blocks) < alpha
        return can_decide and paired_t_power(mean / sd if sd else math.inf, blocks, alpha / family) >= POWER

    numbers = range(len(values) + 1, MOST_BLOCKS + 1)
    first = bisect_left(numbers, True, key=enough)  # more blocks never decide less
    return numbers[first] - len(values) if first < len(numbers) else None
