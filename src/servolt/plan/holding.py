"""What requests of a workload hold of the KV cache while they run, and how many it holds at the same time."""

import itertools
import math
from collections.abc import Iterable
from typing import NamedTuple

from servolt.plan.arrivals import lengths_of
from servolt.workload import Workload

__all__ = ["Holding", "holding_of"]

DRAWS = 2000  # of lengths; their mean is known to 2 % at a cv of 1
Z90 = 1.2816  # of the normal distribution, one-sided


class Holding(NamedTuple):
    """Tokens that a running request holds, over its life: it grows by one each step."""

    mean: float
    deviation: float

    def requests(self, tokens: float) -> float:
        """That the cache holds on average."""
        return tokens / self.mean

    def requests_surely(self, tokens: float) -> float:
        """That fit at nine of ten moments: n m + z s sqrt(n) = tokens.

        >>> round(Holding(1000.0, 500.0).requests_surely(100_000.0), 1)
        93.8
        """
        spread = Z90 * self.deviation
        root = (math.sqrt(spread**2 + 4 * self.mean * tokens) - spread) / (2 * self.mean)
        return root**2


def holding_of(workload: Workload) -> Holding:
    """Long answers run longer, so at a moment more of the running ones are long.

    >>> holding_of(Workload(input_len=100, output_len=60))
    Holding(mean=130.0, deviation=17.320508075688775)
    """
    spread = workload.input_lengths, workload.output_lengths
    lengths: Iterable[tuple[int, int]]
    if workload.trace is not None and workload.trace.requests:
        lengths = [(one.input_tokens, one.output_tokens) for one in workload.trace.requests]
    elif spread == (None, None):
        lengths = [(workload.input_len, workload.output_len)]
    else:
        lengths = itertools.islice(lengths_of(workload), DRAWS)
    time = first = second = 0.0
    for prompt, answer in lengths:
        time += answer
        first += answer * (prompt + answer / 2)
        second += answer * (prompt**2 + prompt * answer + answer**2 / 3)
    mean = first / time
    return Holding(mean, math.sqrt(max(0.0, second / time - mean**2)))
