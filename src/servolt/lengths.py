"""How the lengths of requests are spread, and requests that came once and are played again."""

import math
import statistics
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

from pydantic import Field, model_validator

from servolt.document import Value

__all__ = ["Lengths", "Moments", "Trace", "TraceRequest"]

LONGEST = 2**20  # tokens, as input_len
# Points of the inverse of the distribution, by which its moments are summed: 1 in 1,000 is seen.
POINTS = 1000


class Moments(NamedTuple):
    """Of a length, and of its square."""

    mean: float
    square: float


class Lengths(Value):
    """Tokens of requests. One of: mean and cv (log-normal), min and max (uniform), quantiles, values.

    >>> Lengths(mean=512, cv=0.5).quantile(0.5)
    458
    """

    mean: float | None = Field(None, ge=1, le=LONGEST)
    cv: float | None = Field(None, ge=0, le=20, description="standard deviation over mean")
    min: int | None = Field(None, ge=1, le=LONGEST, description="none is shorter")
    max: int | None = Field(None, ge=1, le=LONGEST, description="none is longer")
    quantiles: dict[float, float] | None = Field(None, description='{"0.5": 300, "0.9": 1200}, straight between them')
    values: tuple[int, ...] | None = Field(None, description="each as likely as the others", max_length=100_000)

    @model_validator(mode="before")
    @classmethod
    def _in_short(cls, plain: Any) -> Any:
        """A list is its values; p50 and 50% are 0.5; the family may be named."""
        if isinstance(plain, list | tuple):
            return {"values": plain}
        if not isinstance(plain, dict):
            return plain
        found = dict(plain)
        family = found.pop("distribution", "lognormal" if "cv" in found else None)
        if family not in (None, "lognormal", "uniform", "fixed"):
            raise ValueError(f"no distribution is called {str(family)[:40]!r}: lognormal, uniform, quantiles, values")
        named = {name: found.pop(name) for name in list(found) if _is_quantile(name)}
        quantiles = named or found.get("quantiles")
        if isinstance(quantiles, dict):
            found["quantiles"] = {_share(str(name)): value for name, value in quantiles.items()}
        return found

    @model_validator(mode="after")
    def _is_one(self) -> "Lengths":
        ways = [self.mean is not None, self.quantiles is not None, self.values is not None]
        if sum(ways) > 1 or not (any(ways) or (self.min is not None and self.max is not None)):
            raise ValueError("give one of mean (with cv), min and max, quantiles, values")
        if self.cv is not None and self.mean is None:
            raise ValueError("cv needs a mean")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is above max")
        if self.values is not None and not (self.values and all(1 <= one <= LONGEST for one in self.values)):
            raise ValueError(f"values lie between 1 and {LONGEST:,}, and there is at least one")
        if self.quantiles is not None:
            _check_quantiles(self.quantiles)
        return self

    def quantile(self, share: float) -> int:
        """Tokens that this share of the requests does not exceed."""
        tokens = self._inverse(min(max(share, 1e-6), 1 - 1e-6))
        return round(min(max(tokens, self.min or 1, 1), self.max or LONGEST))

    def _inverse(self, share: float) -> float:
        if self.values is not None:
            return self._sorted[min(int(share * len(self._sorted)), len(self._sorted) - 1)]
        if self.quantiles is not None:
            return _between(sorted(self.quantiles.items()), share)
        if self.mean is not None:
            variance = math.log1p((self.cv or 0.0) ** 2)
            return self.mean * math.exp(statistics.NormalDist().inv_cdf(share) * math.sqrt(variance) - variance / 2)
        low, high = self.min or 1, self.max or 1
        return low + (high - low) * share

    @cached_property
    def _sorted(self) -> list[int]:
        return sorted(self.values or ())

    @cached_property
    def moments(self) -> Moments:
        if self.min is None and self.max is None:
            if self.values is not None:
                return _moments(self.values)
            if self.mean is not None:
                return Moments(self.mean, self.mean**2 * (1 + (self.cv or 0.0) ** 2))
        return _moments([self.quantile((place + 0.5) / POINTS) for place in range(POINTS)])


class TraceRequest(NamedTuple):
    arrival_s: float
    input_tokens: int
    output_tokens: int


class Trace(Value):
    """Requests that came once. The document names their file and what it held; the requests travel beside it."""

    source: str = Field(min_length=1, description="the CSV file")
    sha256: str | None = Field(None, description="of the file that was read")
    count: int | None = Field(None, ge=1, description="requests of it")
    left_out: int = Field(0, ge=0, description="of the file, requests without a token in or out")
    span_s: float | None = Field(None, gt=0, description="from the first arrival to the last")
    requests: tuple[TraceRequest, ...] = Field((), exclude=True, repr=False)


def _moments(lengths: Sequence[int]) -> Moments:
    return Moments(math.fsum(lengths) / len(lengths), math.fsum(one * one for one in lengths) / len(lengths))


def _is_quantile(name: Any) -> bool:
    return isinstance(name, str) and name[:1] in ("p", "P") and name[1:].replace(".", "", 1).isdigit()


def _share(name: str) -> float:
    """0.5 of "0.5", "p50", "50%" and "50"."""
    number = name.strip().lstrip("pP").rstrip("%")
    share = float(number)
    return share / 100 if number != name.strip() or share > 1 else share


def _check_quantiles(quantiles: dict[float, float]) -> None:
    pairs = sorted(quantiles.items())
    if len(pairs) < 2:
        raise ValueError('quantiles need two at least: {"0.5": 300, "0.9": 1200}')
    if any(not 0 <= share <= 1 for share, _ in pairs):
        raise ValueError("quantiles lie between 0 and 1")
    tokens = [value for _, value in pairs]
    if any(not 1 <= value <= LONGEST for value in tokens) or tokens != sorted(tokens):
        raise ValueError(f"the tokens of quantiles grow, from 1 to {LONGEST:,}")


def _between(pairs: Sequence[tuple[float, float]], share: float) -> float:
    """Straight between neighbours, from one token at 0; beyond the last, along the last two."""
    (low, first), (high, last) = (0.0, 1.0), pairs[0]
    for place in range(1, len(pairs)):
        if share <= high:
            break
        (low, first), (high, last) = pairs[place - 1], pairs[place]
    return first + (last - first) * (share - low) / (high - low) if high > low else last
