"""Many cases as one: each field of their work becomes an array, so that one call of the formulas predicts all."""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from servolt.plan.rates import Table, rates_of, traits_of
from servolt.plan.roofline import RooflineLaw
from servolt.plan.steady import Times, room_tokens, times_of
from servolt.plan.work import Span, Work, work_of
from tools.planner.cases import Case
from tools.planner.least_squares import Array

__all__ = ["Stack", "stacked"]


class Stack(NamedTuple):
    work: Work
    traits: dict[str, Any]
    concurrency: Array
    input_len: Array
    output_len: Array
    kv_cache_tokens: Array

    def law(self, table: Table) -> RooflineLaw:
        return RooflineLaw(self.work, rates_of(table, self.traits))

    def times(self, table: Table) -> Times:
        arguments: Any = (self.input_len, self.output_len, self.concurrency, self.kv_cache_tokens, None)
        return times_of(self.law(table), *arguments)

    def part(self, mask: NDArray[np.bool_]) -> "Stack":
        return Stack(
            cast("Work", _picked(self.work, mask)),
            {name: values[mask] for name, values in self.traits.items()},
            *(values[mask] for values in self[2:]),
        )


def stacked(cases: Sequence[Case]) -> Stack:
    works = [work_of(case.deployment, case.model, case.accelerator) for case in cases]
    found = [
        traits_of(case.deployment, case.accelerator, devices=work.devices)
        for case, work in zip(cases, works, strict=True)
    ]
    names = sorted({name for traits in found for name in traits})
    contexts = [case.input_len + case.output_len / 2 for case in cases]
    kept = [
        room_tokens(work, case.accelerator, context) for case, work, context in zip(cases, works, contexts, strict=True)
    ]
    return Stack(
        work=cast("Work", _joined(works)),
        traits={name: np.array([traits.get(name, 0.0) for traits in found]) for name in names},
        concurrency=np.array([case.concurrency for case in cases]),
        input_len=np.array([case.input_len for case in cases]),
        output_len=np.array([max(case.output_len, 1.0) for case in cases]),
        kv_cache_tokens=np.array(kept),
    )


def _joined(values: Sequence[Any]) -> Any:
    """Tuples stay tuples, of arrays."""
    first = values[0]
    if isinstance(first, tuple):
        parts = [_joined([value[place] for value in values]) for place in range(len(first))]
        return type(first)(*parts) if isinstance(first, Work | Span) else tuple(parts)
    return np.array(values, dtype=float)


def _picked(value: Any, mask: NDArray[np.bool_]) -> Any:
    if isinstance(value, tuple):
        parts = [_picked(one, mask) for one in value]
        return type(value)(*parts) if isinstance(value, Work | Span) else tuple(parts)
    return value[mask]
