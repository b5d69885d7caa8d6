"""The configurations that no other beats in everything at the same time."""

from collections.abc import Sequence

__all__ = ["pareto"]

Axes = tuple[float, ...]


def pareto(axes: Sequence[Axes]) -> list[int]:
    """Places of those that none dominates; lower is better on each axis. Equals stay together.

    >>> pareto([(1, 4), (2, 2), (3, 3), (4, 1)])
    [0, 1, 3]
    """
    import numpy as np  # a third of the command's start, and only a search needs it

    front = np.empty((0, len(axes[0]) if axes else 0))
    kept: list[int] = []
    # Whoever dominates comes first in this order, so that nothing that is kept has to leave again.
    for place in sorted(range(len(axes)), key=lambda one: axes[one]):
        here = np.asarray(axes[place])
        below = (front <= here).all(axis=1)
        if not below.any() or not (front[below] < here).any(axis=1).any():
            front = np.vstack((front, here))
            kept.append(place)
    return sorted(kept)
