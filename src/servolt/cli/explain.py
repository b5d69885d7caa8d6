"""`servolt plan --explain`: where each figure comes from."""

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType

from servolt.cli.output import Output
from servolt.cli.tables import quantity, spread, table
from servolt.plan import Plan
from servolt.plan.explanation import Explanation, Line, explanation_of

__all__ = ["show_explanation"]

TITLES = {"memory": "memory of one device", "step": "a decode step", "prediction": "predicted"}


def show_explanation(plan: Plan, out: Output) -> None:
    found = explanation_of(plan)
    out.document(
        found,
        rows=[_row(line) for line in found.items],
        ids=[f"{line.name} {line.place}: {line.formula}" for line in found.items],
        human=lambda: list(_shown(found)),
    )


def _row(line: Line) -> dict[str, Any]:
    return line.model_dump(mode="json")


def _shown(found: Explanation) -> Iterator[RenderableType]:
    for about, title in TITLES.items():
        lines = [line for line in found.items if line.about == about]
        if lines:
            columns = [title, "at", "value>", "basis", "from"]
            yield table(columns, [[line.name, line.place, _value(line), line.basis, line.formula] for line in lines])
            yield ""
    for said in dict.fromkeys(line.interval for line in found.items if line.interval):
        yield f"Intervals, {said}."


def _value(line: Line) -> str:
    if line.value is None:
        return "not predicted"
    if line.low == line.high == line.value:
        return quantity(line.value, line.unit)
    return spread(line.value, line.low, line.high, line.unit)
