"""Two plans side by side."""

import pytest

from servolt.errors import NotComparableError
from servolt.library import plan
from servolt.plan import Plan
from servolt.plan.against import PlannedChange, against

LOAD = {"concurrency": 2, "input_tokens": 64, "output_tokens": 64}


@pytest.fixture(scope="module")
def small() -> Plan:
    return plan("guide:q8_0", LOAD)


@pytest.fixture(scope="module")
def large() -> Plan:
    return plan("guide:f16", LOAD)


def test_it_says_what_differs_and_nothing_else(small: Plan, large: Plan) -> None:
    differs = {one.field: (one.first, one.other) for one in against(small, large).differs}
    assert differs == {"quantization": ("q8_0", "f16"), "model: weights": ("q8_0", "f16")}
    assert against(small, small).differs == ()


def test_exact_figures_differ_and_overlapping_ones_are_undecided(small: Plan, large: Plan) -> None:
    found = against(small, large)
    weights = next(one for one in found.memory if one.metric == "weights")
    assert (weights.overlap, weights.verdict) == (False, "worse")
    tpot = next(one for one in found.changes if one.metric == "tpot")
    assert (tpot.overlap, tpot.verdict) == (True, "undecided")
    assert tpot.change is not None
    assert tpot.change > 0


def test_the_other_way_round_the_advice_names_the_same_plan(small: Plan, large: Plan) -> None:
    there = {one.purpose: one.take for one in against(small, large).advice}
    back = {one.purpose: one.take for one in against(large, small).advice}
    swapped = {"first": "other", "other": "first", None: None}
    assert there == {purpose: swapped[take] for purpose, take in back.items()}
    assert there["fast answers to one"] == "first"


def test_advice_is_sure_only_where_the_intervals_are_apart(small: Plan, large: Plan) -> None:
    assert not any(one.sure for one in against(small, large).advice if one.take is not None)
    apart = [
        one.model_copy(update={"low": one.value * 0.999, "high": one.value * 1.001}) if one.value else one
        for one in (*small.estimates, *large.estimates)
    ]
    half = len(small.estimates)
    found = against(
        small.model_copy(update={"estimates": tuple(apart[:half])}),
        large.model_copy(update={"estimates": tuple(apart[half:])}),
    )
    fast = next(one for one in found.advice if one.purpose == "fast answers to one")
    assert (fast.take, fast.sure) == ("first", True)
    assert _of(found.changes, "output_throughput").verdict == "worse"


def test_what_does_not_fit_is_not_advised(small: Plan) -> None:
    found = against(small.model_copy(update={"verdict": "no"}), small)
    assert (found.advice[0].purpose, found.advice[0].take, found.advice[0].sure) == ("to run at all", "other", True)


def test_plans_for_two_workloads_are_not_compared(small: Plan) -> None:
    with pytest.raises(NotComparableError):
        against(small, plan("guide:q8_0", {**LOAD, "input_tokens": 65}))


def _of(changes: tuple[PlannedChange, ...], metric: str) -> PlannedChange:
    return next(one for one in changes if one.metric == metric)
