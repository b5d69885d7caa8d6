"""Figures of plug-ins, beside those of ours: entry points of the group `servolt.formulas`."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from servolt.deployment import Deployment
from servolt.document import Problem
from servolt.gpu import Accelerator
from servolt.metrics import METRICS
from servolt.model import Model
from servolt.plan.memory import Budget
from servolt.plan.plan import Figure, Plan
from servolt.workload import Workload

__all__ = ["Formula", "with_formulas"]

MAX_FIGURES = 64  # of one plug-in


class Formula(Protocol):
    """Arithmetic over what a plan is made of: no input, no output, the same answer each time."""

    def figures(
        self, deployment: Deployment, model: Model, accelerator: Accelerator, workload: Workload, memory: Budget
    ) -> Mapping[str, Figure]:
        """By a name like a metric's, at the workload's first load point. A figure that is not known has no value."""
        ...


def with_formulas(plan: Plan, formulas: Iterable[tuple[str, Callable[[], Formula]]]) -> Plan:
    """The plan with the figures of each plug-in, by its name. One that fails costs its own figures and nothing else."""
    found: dict[str, Figure] = {}
    problems: list[Problem] = []
    for name, load in formulas:
        try:
            theirs = _checked(
                load().figures(plan.deployment, plan.model, plan.accelerator, plan.workload, plan.memory),
                taken={*METRICS, *plan.predictions, *found},
            )
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a stranger's code raises, the plan is still ours to give
            problems.append(_failed(name, error))
        else:
            found |= theirs
    if not found and not problems:
        return plan
    return plan.model_copy(
        update={"predictions": {**plan.predictions, **found}, "problems": (*plan.problems, *problems)}
    )


def _checked(figures: object, taken: set[str]) -> dict[str, Figure]:
    """Raises ValueError for what can't stand in a plan."""
    if not isinstance(figures, Mapping):
        raise ValueError(f"it returned a {type(figures).__name__}, and no mapping of names to figures")
    if len(figures) > MAX_FIGURES:
        raise ValueError(f"it returned {len(figures)} figures, and {MAX_FIGURES} are the most")
    for name, figure in figures.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"{str(name)[:60]!r} is no name of a figure: letters, digits and _ make one")
        if name in taken:
            raise ValueError(f"{name} is a figure that the plan has already")
        if not isinstance(figure, Figure):
            raise ValueError(f"{name} is a {type(figure).__name__} and no Figure")
        if any(not math.isfinite(one) for one in (figure.value, figure.low, figure.high) if one is not None):
            raise ValueError(f"{name} is no finite number")
    return dict(figures)


def _failed(name: str, error: BaseException) -> Problem:
    said = f"{type(error).__name__}: {error}"[:300]
    return Problem(
        code="formula_failed",
        severity="warning",
        message=f"The formulas of {name!r} gave nothing: {said}.",
        remedy="Report it to those who wrote that plug-in, or uninstall it.",
    )
