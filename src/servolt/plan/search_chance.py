"""How surely a configuration keeps the bounds on its times: by the intervals of its predictions, not their values."""

import math
from collections.abc import Callable, Iterator, Mapping

from servolt.plan.correction import Z10
from servolt.plan.search_limits import Constraints
from servolt.plan.steady import Steady

__all__ = ["chance_of", "has_chances", "within"]

# P10 and P90 of a metric, as factors on its value.
Factors = Callable[[str], tuple[float, float]]


def has_chances(limits: Constraints) -> bool:
    """Whether anything is bounded that errors of the predictions may break."""
    slo = limits.slo
    return limits.min_output_throughput is not None or (slo is not None and any((slo.ttft, slo.tpot, slo.e2el)))


def chance_of(limits: Constraints, state: Steady, factors: Factors) -> float:
    """That all bounds on times and on throughput are kept. The errors of one configuration go together, so that the
    least sure bound decides."""
    found = [within(value, bound, *factors(name)) for name, (value, bound) in _bounded(limits, state)]
    least = limits.min_output_throughput
    if least is not None:
        low, high = factors("output_throughput")
        found.append(within(1 / state.output_throughput, 1 / least, 1 / high, 1 / low))
    return min(found, default=1.0)


def within(value: float, bound: float, low: float, high: float) -> float:
    """The chance that a value whose P10 and P90 are these factors on it is no more than the bound.

    >>> round(within(0.010, 0.010, 0.8, 1.25), 3), round(within(0.010, 0.0125, 0.8, 1.25), 3)
    (0.5, 0.9)
    """
    room = math.log(bound / value)
    spread = (math.log(high) if room >= 0 else -math.log(low)) / Z10
    if spread <= 0:
        return float(room >= 0)
    return 0.5 * math.erfc(-room / spread / math.sqrt(2))


def _bounded(limits: Constraints, state: Steady) -> Iterator[tuple[str, tuple[float, float]]]:
    slo = limits.slo
    if slo is None:
        return
    times: Mapping[str, tuple[float, float | None]] = {
        "ttft": (state.ttft, slo.ttft),
        "tpot": (state.tpot, slo.tpot),
        "e2el": (state.e2el, slo.e2el),
    }
    for name, (value, bound) in times.items():
        if bound is not None:
            yield name, (value, bound)
