"""What a measurement is worth before a choice: how much better the choice is expected to be after it.

A configuration's true times are its predicted ones times an error. Errors go together: those of an engine, of a device
and of an engine on a device are shared, and the rest is the configuration's own. So measuring one tells of the others.

What is compared is worth, the loss turned round: tokens for a dollar, answers in a second. A choice that breaks its
bound is worth nothing.
"""

import math
import random
from collections.abc import Sequence
from typing import NamedTuple

from servolt.plan.correction import REPEAT_SPREAD

__all__ = ["Contender", "Gain", "chances", "gains", "worth_most"]

DRAWS = 256
SEED = 1
ABOUT = 0.8  # of the most that a measurement gains: so much is about as much, with so few draws
# Of the variance of the logarithm of the errors of one model, what is shared. Fitted on 1,637 published runs of 108
# deployments (2026-11): half the squared difference of two deployments' mean errors is, in the median over pairs of the
# same model, 0.022 where they share neither, 0.016 with the same engine, 0.011 on the same device, 0.004 with both.
ENGINE, DEVICE, PAIR = 0.25, 0.45, 0.1


class Contender(NamedTuple):
    """One that may be chosen. `loss` is what is minimised, as predicted."""

    engine: str
    device: str
    loss: float
    spread: float  # standard deviation of the logarithm of its times
    strain: float = 0.0  # its times over their bounds, the worst one: above 1 it breaks one
    moves: bool = True  # the loss goes with the times; else only the bounds do


class Gain(NamedTuple):
    """In the unit of the loss: what the choice is expected to get better by, and what today's one is expected to be."""

    measured: tuple[int, ...]  # places of those that are measured
    gain: float
    before: float


def gains(contenders: Sequence[Contender], *, draws: int = DRAWS, seed: int = SEED) -> list[Gain]:
    """Of measuring each of them alone. A gain is never negative: a measurement can be ignored."""
    truths = _draws(contenders, draws, seed)
    noise = _noise(draws, seed, len(contenders))
    return [_gain(contenders, (place,), truths, noise) for place in range(len(contenders))]


def worth_most(
    contenders: Sequence[Contender], effort: Sequence[float] = (), *, draws: int = DRAWS, seed: int = SEED
) -> list[Gain]:
    """The best single measurement, and the best one to make beside it; the second holds both places.

    Of those that gain about as much, the one of the least effort.
    """
    if len(contenders) < 2:
        return []
    truths, noise = _draws(contenders, draws, seed), _noise(draws, seed, len(contenders))
    places = range(len(contenders))
    first = _easiest([_gain(contenders, (place,), truths, noise) for place in places], effort)
    others = [place for place in places if place != first.measured[0]]
    second = _easiest([_gain(contenders, (first.measured[0], place), truths, noise) for place in others], effort)
    return [first, second]


def _easiest(found: Sequence[Gain], effort: Sequence[float]) -> Gain:
    most = max(one.gain for one in found)
    good = [one for one in found if one.gain >= ABOUT * most]
    return min(good, key=lambda one: (effort[one.measured[-1]] if effort else 0.0, -one.gain))


def chances(contenders: Sequence[Contender], chosen: int, *, draws: int = DRAWS, seed: int = SEED) -> list[float]:
    """Of each, the share of the draws in which it is better than the chosen one."""
    truths = _draws(contenders, draws, seed)
    own = [_worth(contenders[chosen], truth[chosen]) for truth in truths]
    return [
        sum(_worth(one, truth[place]) > base for truth, base in zip(truths, own, strict=True)) / len(truths)
        for place, one in enumerate(contenders)
    ]


def _draws(contenders: Sequence[Contender], draws: int, seed: int) -> list[list[float]]:
    """Logarithms of the errors: a list for each draw, with one for each contender."""
    source = random.Random(seed)
    keys = sorted({key for one in contenders for key in _causes(one)})
    rest = math.sqrt(1 - ENGINE - DEVICE - PAIR)
    found = []
    for _ in range(draws):
        cause = {key: source.gauss(0, 1) for key in keys}
        found.append(
            [
                one.spread
                * (
                    sum(math.sqrt(share) * cause[key] for key, share in zip(_causes(one), _SHARES, strict=True))
                    + rest * source.gauss(0, 1)
                )
                for one in contenders
            ]
        )
    return found


def _noise(draws: int, seed: int, contenders: int) -> list[list[float]]:
    """Of measuring: the same deployment twice differs by so much."""
    source = random.Random(seed + 1)
    return [[source.gauss(0, REPEAT_SPREAD) for _ in range(contenders)] for _ in range(draws)]


_SHARES = (ENGINE, DEVICE, PAIR)


def _causes(one: Contender) -> tuple[tuple[str, str], ...]:
    return ("engine", one.engine), ("device", one.device), (one.engine, one.device)


def _covariance(contenders: Sequence[Contender], one: int, other: int) -> float:
    a, b = contenders[one], contenders[other]
    shared = sum(share for share, x, y in zip(_SHARES, _causes(a), _causes(b), strict=True) if x == y)
    return a.spread * b.spread * (1.0 if one == other else shared)


def _gain(
    contenders: Sequence[Contender],
    measured: tuple[int, ...],
    truths: Sequence[Sequence[float]],
    noise: Sequence[Sequence[float]],
) -> Gain:
    """Mean over the draws of the best expected worth once the measurements are known, against that of one choice for
    all draws."""
    beliefs = [_belief(contenders, place, measured) for place in range(len(contenders))]
    sums = [0.0] * len(contenders)
    best = 0.0
    for truth, off in zip(truths, noise, strict=True):
        seen = [truth[place] + off[place] for place in measured]
        worths = [
            _expected(one, sum(w * s for w, s in zip(weights, seen, strict=True)), left)
            for one, (weights, left) in zip(contenders, beliefs, strict=True)
        ]
        sums = [total + worth for total, worth in zip(sums, worths, strict=True)]
        best += max(worths)
    today = max(sums)
    if not today:
        return Gain(measured, 0.0, 0.0)
    before, after = len(truths) / today, len(truths) / max(best, today)
    return Gain(measured, before - after, before)


def _belief(contenders: Sequence[Contender], place: int, measured: tuple[int, ...]) -> tuple[tuple[float, ...], float]:
    """Weights of what is measured in the expected logarithm of an error, and the variance that is left of it."""
    own = _covariance(contenders, place, place)
    along = [_covariance(contenders, place, one) for one in measured]
    variances = [_covariance(contenders, one, one) + REPEAT_SPREAD**2 for one in measured]
    if len(measured) == 1:
        weights: tuple[float, ...] = (along[0] / variances[0],)
    else:
        shared = _covariance(contenders, *measured)
        scale = variances[0] * variances[1] - shared**2
        weights = (
            (along[0] * variances[1] - along[1] * shared) / scale,
            (along[1] * variances[0] - along[0] * shared) / scale,
        )
    taken = sum(weight * one for weight, one in zip(weights, along, strict=True))
    return weights, max(own - taken, 0.0)


def _worth(one: Contender, error: float) -> float:
    if one.strain * math.exp(error) > 1:
        return 0.0
    return math.exp(-error) / one.loss if one.moves else 1.0 / one.loss


def _expected(one: Contender, mean: float, variance: float) -> float:
    """Of `_worth` where the logarithm of the error is normal."""
    worth = math.exp(variance / 2 - mean) / one.loss if one.moves else 1.0 / one.loss
    if one.strain <= 0:
        return worth
    # exp(-e) leans the normal distribution by its own variance.
    room = -math.log(one.strain) - mean + (variance if one.moves else 0.0)
    broken = _above(room / math.sqrt(variance)) if variance > 0 else float(room < 0)
    return worth * (1.0 - broken)


def _above(deviations: float) -> float:
    """Share of a normal distribution beyond so many standard deviations."""
    return 0.5 * math.erfc(deviations / math.sqrt(2))
