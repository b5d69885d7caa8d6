"""What a deployment was seen to do corrects what its law predicts: at the same load, near it, and far from it less.

The logarithm of measured over predicted is taken as a function of the load whose values go together: the parts of a
step may each be off by a factor of their own, and what is left changes slowly with the streams and the lengths. So one
point shifts all, two tilt it, and more bend it; where none of them is near, the prediction stays as it is. It is the
best linear estimate under that assumption (kriging). At a load that was measured, the value is what was measured.

Fitted on 1,916 runs of 155 deployments (InferenceX, aggregated, up to 8 devices, 2026-11), each predicted without its
model on its device. TPOT, median and P90 of the error over all lengths: 13 % and 40 % as predicted; after any one point
9 % and 29 %, after one of middling concurrency 8 % and 28 %, after the lowest and the highest concurrency 6 % and 19 %,
after any four 4 % and 16 %.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import Field

from servolt.document import Value
from servolt.errors import InvalidInputError
from servolt.metrics import METRICS, Basis
from servolt.workload import LoadPoint, Workload

__all__ = [
    "BELIEVED",
    "NO_SHIFT",
    "REPEAT_SPREAD",
    "Z10",
    "Corrected",
    "KnownPoint",
    "Raw",
    "Seen",
    "Shift",
    "corrected",
    "read_points",
]

Z10 = 1.2816  # of P10 and P90: standard deviations of a normal distribution
# The same deployment measured again: the middle half of repeats lies within 9.5 %, a standard deviation of 6 %.
REPEAT_SPREAD = 0.06
# What is off by more than this factor is a fault of the measurement, or of another deployment.
BELIEVED = math.log(10)
# Beyond so many, further points tell nothing new: those that share most are taken.
MOST_POINTS = 16


class Ties(NamedTuple):
    """How errors at two loads go together: shares of the doubt, as standard deviations."""

    common: float  # what is off everywhere alike
    part: float  # each part of a step by itself, times its share of it
    local: float  # what changes with the load
    stream_doublings: float  # of the streams, over which that is forgotten to 1/e
    length_doublings: float  # of the lengths
    repeats: float  # the same load measured again


TIMES = Ties(0.2, 0.4, 0.15, 4.0, 6.0, REPEAT_SPREAD)
# First tokens depend on who else came at the same time: errors go together over fewer loads, and repeats differ more.
# Of the same runs: 23 % off as predicted, 18 % after any one point, 14 % after two.
FIRST_TOKENS = Ties(0.2, 0.2, 0.3, 3.0, 4.0, 0.12)


class KnownPoint(Value):
    """One measured value of a deployment, at the one load of its workload."""

    metric: str
    workload: Workload = Field(default_factory=Workload)
    value: float = Field(gt=0, description="in the metric's own unit: seconds, tokens/s, W")
    verified: bool = Field(True, description="else it may widen an interval, and never narrows one")

    @property
    def load(self) -> LoadPoint:
        return self.workload.points[0]


class Raw(NamedTuple):
    """A prediction at one load, with P10 and P90. `shares` are those of a step's parts, where the law tells them."""

    value: float
    low: float
    high: float
    concurrency: float
    input_len: float
    output_len: float
    shares: Mapping[str, float] = {}

    @property
    def spread(self) -> float:
        """Standard deviation of the logarithm."""
        return max(math.log(self.high / self.low) / (2 * Z10), 1e-6)


class Seen(NamedTuple):
    """What was measured where `raw` was predicted. `noise` is the standard deviation of its logarithm."""

    raw: Raw
    value: float
    noise: float = REPEAT_SPREAD
    verified: bool = True

    @property
    def log_ratio(self) -> float:
        return math.log(self.value / self.raw.value)


class Shift(NamedTuple):
    """What other deployments say: added to the logarithm of all predictions, and the share of the doubt that stays."""

    log_shift: float = 0.0
    doubt: float = 1.0
    deployments: int = 0


NO_SHIFT = Shift()


class Corrected(NamedTuple):
    raw: Raw
    value: float
    low: float
    high: float
    basis: Basis
    n: int  # points that it rests on


def corrected(
    raws: Sequence[Raw], seen: Sequence[Seen], shift: Shift = NO_SHIFT, ties: Ties = TIMES
) -> list[Corrected]:
    """Each prediction of one metric of one deployment, corrected by points of that metric.

    Without points and shift they stay as they are. Points that are off by more than a factor of 10 are left out.

    >>> raw = Raw(0.010, 0.007, 0.014, concurrency=8, input_len=1024, output_len=1024)
    >>> [round(one.value, 4) for one in corrected([raw], [Seen(raw, 0.012)])]
    [0.012]
    """
    believed = [one for one in seen if abs(one.log_ratio) <= BELIEVED]
    trusted, doubtful = [one for one in believed if one.verified], [one for one in believed if not one.verified]
    return [_corrected(raw, _nearest(raw, trusted, ties), doubtful, shift, ties) for raw in raws]


def read_points(plain: Any) -> tuple[KnownPoint, ...]:
    """From what a JSON or YAML parser returned: a list of {metric, workload, value}, or {"points": [...]}.

    A workload of one point of load; without one it is Workload's own. Raises InvalidInputError.
    """
    listed = plain.get("points") if isinstance(plain, dict) else plain
    if not isinstance(listed, list) or not listed:
        raise InvalidInputError(
            "no list of measured points is in it.",
            'Write [{"metric": "tpot", "workload": {"input_tokens": 1024, "output_tokens": 256, "concurrency": 8}, '
            '"value": 0.012}].',
        )
    return tuple(_point(one, place) for place, one in enumerate(listed))


def _point(plain: Any, place: int) -> KnownPoint:
    from pydantic import ValidationError

    try:
        point = KnownPoint.model_validate(plain)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, (place, *fault["loc"])))
        raise InvalidInputError(f"point {where}: {fault['msg']}.", "A point has metric, workload and value.") from error
    if point.metric not in METRICS:
        known = ", ".join(METRICS)
        raise InvalidInputError(f"point {place}: {point.metric!r} is no metric.", f"Name one of {known}.")
    if len(point.workload.points) != 1:
        loads = len(point.workload.points)
        raise InvalidInputError(f"point {place}: its workload has {loads} loads.", "Write a point for each.")
    return point


def _corrected(raw: Raw, trusted: Sequence[Seen], doubtful: Sequence[Seen], shift: Shift, ties: Ties) -> Corrected:
    scale = math.sqrt(shift.doubt)
    mean, left = _estimate(raw, trusted, shift.log_shift, scale, ties)
    is_known = bool(trusted) or bool(shift.deployments)
    here = [one for one in trusted if _same_load(raw, one.raw)]
    spread = math.sqrt(left * raw.spread**2 * shift.doubt + (ties.repeats**2 if is_known else 0.0))
    if not is_known:
        low, high = raw.low, raw.high
    else:
        mean, spread = _between(raw, trusted, mean, ties), min(spread, max(raw.spread, ties.repeats))
        mean = _measured(here) if here else mean
        low, high = raw.value * math.exp(mean - Z10 * spread), raw.value * math.exp(mean + Z10 * spread)
    for one in doubtful:
        claimed = raw.value * math.exp(mean + (one.log_ratio - mean) * _likeness(raw, one.raw, ties))
        low, high = min(low, claimed), max(high, claimed)
    basis: Basis = "measured" if here else "calibrated" if is_known else "formula"
    return Corrected(raw, raw.value * math.exp(mean), low, high, basis, len(trusted))


def _measured(here: Sequence[Seen]) -> float:
    """What was measured at this very load stands as it is: the mean of those that are surest, by their logarithm."""
    least = min(one.noise for one in here)
    surest = [one.log_ratio for one in here if one.noise <= least]
    return sum(surest) / len(surest)


def _estimate(raw: Raw, seen: Sequence[Seen], shift: float, scale: float, ties: Ties) -> tuple[float, float]:
    """The logarithm of the correction, and the share of its variance that the points left."""
    if not seen:
        return shift, 1.0
    spreads = [one.raw.spread * scale for one in seen]
    likeness = [[_likeness(one.raw, other.raw, ties) for other in seen] for one in seen]
    covariance = [
        [
            like * spreads[i] * spreads[j] + (max(seen[i].noise, ties.repeats) ** 2 if i == j else 0.0)
            for j, like in enumerate(row)
        ]
        for i, row in enumerate(likeness)
    ]
    here = [
        _likeness(raw, one.raw, ties) * raw.spread * scale * spread for one, spread in zip(seen, spreads, strict=True)
    ]
    factor = _cholesky(covariance)
    weights = _solved(factor, here)
    mean = shift + sum(weight * (one.log_ratio - shift) for weight, one in zip(weights, seen, strict=True))
    taken = sum(weight * one for weight, one in zip(weights, here, strict=True)) / (raw.spread * scale) ** 2
    return mean, min(1.0, max(0.0, 1.0 - taken))


def _between(raw: Raw, seen: Sequence[Seen], mean: float, ties: Ties) -> float:
    """More streams never make a token faster, nor all of them together slower: between two points of the same lengths
    the value lies between theirs, or as far outside as repeats do."""
    alike = [one for one in seen if _same_lengths(raw, one.raw)]
    below = [one for one in alike if one.raw.concurrency < raw.concurrency and one.raw.value <= raw.value]
    above = [one for one in alike if one.raw.concurrency > raw.concurrency and one.raw.value >= raw.value]
    least = max((math.log(one.value / raw.value) - ties.repeats for one in below), default=-math.inf)
    most = min((math.log(one.value / raw.value) + ties.repeats for one in above), default=math.inf)
    return mean if least > most else min(max(mean, least), most)


def _likeness(one: Raw, other: Raw, ties: Ties) -> float:
    """How far the errors at two loads go together: 1 at the same load, less where other parts rule."""
    return _common(one, other, ties) / math.sqrt(_common(one, one, ties) * _common(other, other, ties))


def _common(one: Raw, other: Raw, ties: Ties) -> float:
    shares = sum(share * other.shares.get(name, 0.0) for name, share in one.shares.items())
    distance = abs(math.log2(one.concurrency / other.concurrency)) / ties.stream_doublings
    distance += abs(math.log2(one.input_len / other.input_len)) / ties.length_doublings
    distance += abs(math.log2(one.output_len / other.output_len)) / ties.length_doublings
    return ties.common**2 + ties.part**2 * shares + ties.local**2 * math.exp(-distance)


def _nearest(raw: Raw, seen: Sequence[Seen], ties: Ties) -> list[Seen]:
    return sorted(seen, key=lambda one: _likeness(raw, one.raw, ties), reverse=True)[:MOST_POINTS]


def _same_lengths(one: Raw, other: Raw) -> bool:
    return (one.input_len, one.output_len) == (other.input_len, other.output_len)


def _same_load(one: Raw, other: Raw) -> bool:
    return _same_lengths(one, other) and one.concurrency == other.concurrency


def _cholesky(matrix: Sequence[Sequence[float]]) -> list[list[float]]:
    """Lower triangle L with L L^T = matrix, which is positive definite."""
    lower: list[list[float]] = []
    for i, row in enumerate(matrix):
        found: list[float] = []
        for j in range(i + 1):
            rest = row[j] - sum(found[k] * (lower[j][k] if j < i else found[k]) for k in range(j))
            found.append(math.sqrt(max(rest, 1e-12)) if i == j else rest / lower[j][j])
        lower.append(found)
    return lower


def _solved(lower: Sequence[Sequence[float]], right: Sequence[float]) -> list[float]:
    """x with L L^T x = right."""
    middle: list[float] = []
    for row, value in zip(lower, right, strict=True):
        middle.append((value - sum(a * b for a, b in zip(row, middle, strict=False))) / row[-1])
    found = [0.0] * len(middle)
    for i in reversed(range(len(middle))):
        rest = middle[i] - sum(lower[k][i] * found[k] for k in range(i + 1, len(middle)))
        found[i] = rest / lower[i][i]
    return found
