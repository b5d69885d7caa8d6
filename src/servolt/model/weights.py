"""Weights one by one, before they are put into the parts of a Model."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from servolt.model.layers import Component, Part, Sharding

__all__ = ["Stored", "Weight", "matrix", "parts_of", "vector"]


class Weight(NamedTuple):
    """`module` is its name in a checkpoint, which lists of exclusions use."""

    module: str
    component: Component
    rows: int
    columns: int = 1
    sharding: Sharding = "tensor"
    copies: int = 1
    linear: bool = True  # a matrix that is multiplied with: what quantisation replaces
    dtype: str = ""  # where it is fixed, whatever the rest is in

    @property
    def elements(self) -> int:
        return self.rows * self.columns * self.copies


class Stored(NamedTuple):
    """How a weight lies in memory."""

    dtype: str
    bytes: float


def matrix(
    module: str, component: Component, rows: int, columns: int, sharding: Sharding = "tensor", copies: int = 1
) -> Weight:
    return Weight(module, component, rows, columns, sharding, copies)


def vector(
    module: str, size: int, component: Component = "other", sharding: Sharding = "tensor", copies: int = 1
) -> Weight:
    """Biases, scales of norms, and what else isn't quantised."""
    return Weight(module, component, size, 1, sharding, copies, linear=False)


def parts_of(weights: Iterable[Weight], stored: Callable[[Weight], Stored]) -> tuple[Part, ...]:
    """One for each component, type and sharding, in the order in which they first come."""
    sums: dict[tuple[Component, str, Sharding], tuple[int, float]] = {}
    for weight in weights:
        if not weight.elements:
            continue
        dtype, size = stored(weight)
        key = weight.component, dtype, weight.sharding
        parameters, total = sums.get(key, (0, 0.0))
        sums[key] = parameters + weight.elements, total + size
    return tuple(
        Part(component=component, parameters=parameters, bytes=total, dtype=dtype, sharding=sharding)
        for (component, dtype, sharding), (parameters, total) in sums.items()
    )
