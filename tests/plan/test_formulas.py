"""Figures of plug-ins."""

from collections.abc import Callable
from typing import Any

import pytest

from servolt.library import plan
from servolt.plan import Figure, Plan
from servolt.plan.formulas import Formula, with_formulas


class Says:
    def __init__(self, figures: Any) -> None:
        self._figures = figures

    def figures(self, *args: Any) -> Any:
        return self._figures() if callable(self._figures) else self._figures


@pytest.fixture(scope="module")
def guide() -> Plan:
    return plan("guide")


def loader(figures: Any) -> Callable[[], Formula]:
    return lambda: Says(figures)


FIGURE = Figure(value=2.0, unit="requests/GiB", basis="formula", reason="one by the other")


def test_a_figure_of_a_plugin_stands_in_the_plan_and_its_json(guide: Plan) -> None:
    found = with_formulas(guide, [("mine", loader({"requests_per_gib": FIGURE}))])
    assert found.predictions["requests_per_gib"] == FIGURE
    assert found.of_plugins == {"requests_per_gib": FIGURE}
    assert Plan.from_json(found.to_json()).predictions["requests_per_gib"] == FIGURE
    assert found.problems == guide.problems


def test_a_plugin_sees_what_the_plan_is_made_of(guide: Plan) -> None:
    class Share:
        def figures(self, deployment: Any, model: Any, accelerator: Any, workload: Any, memory: Any) -> Any:
            value = memory.weights_bytes / memory.total_bytes * workload.input_len / model.num_layers
            return {
                "made_up": Figure(value=value, unit="1", basis="formula", reason=deployment.label + accelerator.name)
            }

    found = with_formulas(guide, [("share", Share)]).predictions["made_up"]
    assert found.value == pytest.approx(
        guide.memory.weights_bytes / guide.memory.total_bytes * guide.workload.input_len / guide.model.num_layers
    )


def _fails() -> None:
    raise RuntimeError("boom")


def _leaves() -> None:
    raise SystemExit("good-bye")


def _gone() -> Formula:
    raise ImportError("no module of that name")


@pytest.mark.parametrize(
    ("load", "said"),
    [
        (loader(_fails), "boom"),
        (loader(_leaves), "good-bye"),
        (_gone, "no module"),
        (loader([1]), "no mapping"),
        (loader({"x": 1.0}), "no Figure"),
        (loader({"tpot": FIGURE}), "already"),
        (loader({"a b": FIGURE}), "no name"),
        (loader({f"x{number}": FIGURE for number in range(65)}), "the most"),
    ],
)
def test_a_failing_plugin_is_a_problem_and_costs_no_other_figure(
    guide: Plan, load: Callable[[], Formula], said: str
) -> None:
    found = with_formulas(guide, [("bad", load), ("good", loader({"fine": FIGURE}))])
    assert set(found.predictions) == {*guide.predictions, "fine"}
    problem = found.problems[-1]
    assert problem.code == "formula_failed"
    assert "'bad'" in problem.message
    assert said in problem.message
