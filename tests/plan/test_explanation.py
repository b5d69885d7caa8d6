"""Where the figures of a plan come from."""

import re

import pytest

from servolt.library import plan
from servolt.plan import Plan
from servolt.plan.explanation import explanation_of


@pytest.fixture(scope="module")
def guide() -> Plan:
    return plan("guide", {"concurrency": (1, 4), "input_tokens": 64, "output_tokens": 64})


def test_every_figure_of_the_plan_is_explained(guide: Plan) -> None:
    lines = explanation_of(guide).items
    assert all(line.formula for line in lines)
    assert sum(line.about == "prediction" for line in lines) == len(guide.estimates)
    assert [line.name for line in lines if line.about == "step"] == [term.name for term in guide.step]
    memory = [line for line in lines if line.about == "memory"]
    assert sum(line.value or 0 for line in memory) == guide.memory.total_bytes
    assert sum(line.share or 0 for line in memory) == pytest.approx(1)


def test_a_relation_is_stated_with_values_that_give_the_figure(guide: Plan) -> None:
    line = next(one for one in explanation_of(guide).items if one.name == "output_throughput" and one.place == "c=4")
    said = re.match(r"request_throughput (\S+) requests/s x (\d+) tokens", line.formula)
    assert said is not None
    assert float(said[1]) * int(said[2]) == pytest.approx(line.value, rel=1e-3)


def test_a_relation_that_does_not_hold_is_not_stated(guide: Plan) -> None:
    changed = [
        one.model_copy(update={"value": one.value * 2}) if one.metric == "output_throughput" and one.value else one
        for one in guide.estimates
    ]
    lines = explanation_of(guide.model_copy(update={"estimates": tuple(changed)})).items
    assert not [one for one in lines if one.name == "output_throughput" and "request_throughput" in one.formula]


def test_a_step_that_is_a_token_is_stated_as_the_sum_of_its_terms(guide: Plan) -> None:
    line = next(one for one in explanation_of(guide).items if one.name == "tpot mean" and one.place == "c=1")
    parts = [float(value) for value in re.findall(r"(\S+) s(?: \+|;|$)", line.formula)]
    assert len(parts) == len(guide.step)
    assert sum(parts) == pytest.approx(line.value, rel=0.01)
