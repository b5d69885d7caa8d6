"""How fast this machine reads memory."""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

__all__ = ["read_bytes_per_s"]

# Larger than the last cache of most processors, small enough to be read a dozen times in the time given.
ARRAY_BYTES = 256 * 2**20
SECONDS = 0.4


def read_bytes_per_s(threads: int, *, array_bytes: int = ARRAY_BYTES, seconds: float = SECONDS) -> float:
    """Median rate at which so many threads together read an array once through."""
    parts = np.array_split(np.ones(array_bytes // 8, dtype=np.int64), threads)
    rates: list[float] = []
    with ThreadPoolExecutor(threads) as pool:
        end = time.perf_counter() + seconds
        while not rates or time.perf_counter() < end:
            start = time.perf_counter()
            # The largest element: a read of each, nothing written; numpy lets the other threads run meanwhile.
            list(pool.map(np.max, parts))
            rates.append(sum(part.nbytes for part in parts) / (time.perf_counter() - start))
    return statistics.median(rates)
