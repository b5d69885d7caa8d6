import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servolt.deployment import Deployment, Hardware, Speculation
from servolt.gpu import Accelerator
from servolt.plan.cost import Economy
from servolt.plan.known import KnownDeployments, KnownSpeed, conditions_of
from servolt.plan.memory.emulate import budget_of
from servolt.plan.search import Option, Search, search
from servolt.plan.search_front import pareto
from servolt.plan.search_learnt import Learnt
from servolt.plan.search_limits import Constraints, Objective
from servolt.plan.search_score import Room, Scorer
from servolt.plan.search_space import Space, candidates_of, layouts_of
from servolt.plan.steady import at_request_rate
from servolt.workload import Slo, Workload
from tests.plan.published import accelerator, llama_3_8b, qwen3_30b_a3b, qwen3_32b

# The rates of an H100 SXM and of an L40S, by NVIDIA's data sheets; prices are made up.
LARGE = accelerator(80, "9.0").model_copy(
    update={
        "name": "large",
        "bandwidth_bytes_per_s": 3.35e12,
        "flops_per_s": {"float16": 989e12, "bfloat16": 989e12, "fp8": 1979e12},
        "tdp_w": 700.0,
        "link_bytes_per_s": 450e9,
        "link": "NVLink4",
    }
)
SMALL = accelerator(48, "8.9").model_copy(
    update={
        "name": "small",
        "bandwidth_bytes_per_s": 0.864e12,
        "flops_per_s": {"float16": 362e12, "bfloat16": 362e12, "fp8": 733e12},
        "tdp_w": 350.0,
    }
)
PRICES = {
    "large": Economy(usd_per_device_hour=3.0, source="made up"),
    "small": Economy(usd_per_device_hour=1.0, source="made up"),
}
WORK = Workload(input_len=1024, output_len=256, concurrency=(16,))
ASKED = Deployment(model="m", max_model_len=8192)


def space(**changed: Any) -> Space:
    fields: dict[str, Any] = {"deployment": ASKED, "model": llama_3_8b(), "accelerators": (LARGE, SMALL)}
    return Space(**{**fields, "engines": ("vllm",), "counts": (1, 2), **changed})


def found(limits: Constraints | None = None, *, objective: Objective | None = None, **changed: Any) -> Search:
    return search(space(**changed), WORK, limits, PRICES, objective=objective)


def cost_of(answer: Search) -> float:
    if answer.choice is None:
        return math.inf
    return expected_cost(answer.choice)


def expected_cost(one: Option) -> float:
    """What is minimised: a bound that breaks is worth nothing."""
    return (one.figures["cost_per_million_output_tokens"].value or math.inf) / one.chance


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 6)] * 3), max_size=40))
def test_the_front_has_no_dominated_member_and_misses_none(points: list[tuple[int, ...]]) -> None:
    front = pareto(points)

    def beaten(place: int) -> bool:
        here = points[place]
        return any(other != here and all(a <= b for a, b in zip(other, here, strict=True)) for other in points)

    assert front == [place for place in range(len(points)) if not beaten(place)]


def test_nothing_that_keeps_the_bounds_beats_a_member_of_the_front() -> None:
    answer = found(loads=(1, 4, 16, 64))
    assert answer.choice in answer.front
    points = [
        (
            one.figures["e2el"].value or 0.0,
            -(one.output_throughput_per_device or 0.0),
            one.figures["cost_per_million_output_tokens"].value or 0.0,
            one.figures["energy_per_output_token"].value or 0.0,
        )
        for one in answer.front
    ]
    assert len(pareto(points)) == len(points)


@settings(max_examples=15, deadline=None)
@given(
    tpot=st.one_of(st.none(), st.floats(0.004, 0.1)),
    devices=st.one_of(st.none(), st.integers(1, 2)),
    bits=st.one_of(st.none(), st.sampled_from([8.0, 16.0])),
    power=st.one_of(st.none(), st.floats(200.0, 1500.0)),
)
def test_a_further_bound_never_makes_the_choice_better(
    tpot: float | None, devices: int | None, bits: float | None, power: float | None
) -> None:
    limits = Constraints(slo=Slo(tpot=tpot) if tpot else None, max_devices=devices, power_w=power)
    loose = cost_of(found(limits))
    assert loose >= cost_of(found())
    assert cost_of(found(limits.model_copy(update={"min_bits": bits}))) >= loose


@settings(max_examples=15, deadline=None)
@given(
    budget=st.floats(0.5, 8.0), more=st.floats(0.0, 8.0), objective=st.sampled_from(["cost", "latency", "throughput"])
)
def test_more_money_never_makes_the_choice_worse(budget: float, more: float, objective: Objective) -> None:
    def loss(usd: float) -> float:
        choice = found(Constraints(usd_per_hour=usd), objective=objective).choice
        if choice is None:
            return math.inf
        if objective == "throughput":
            return -(choice.output_throughput_per_device or 0.0)
        return choice.figures["e2el" if objective == "latency" else "cost_per_million_output_tokens"].value or math.inf

    assert loss(budget + more) <= loss(budget)


def test_what_is_chosen_is_the_best_of_all_that_keep_the_bounds() -> None:
    answer = found(Constraints(slo=Slo(tpot=0.02)))
    assert answer.choice is not None
    assert (answer.choice.figures["tpot"].value or 1.0) <= 0.02
    assert cost_of(answer) == min(expected_cost(one) for one in answer.front)
    assert answer.choice in answer.front
    assert "cheap" in answer.reasons[0]
    assert f"chance of {100 * answer.choice.chance:.0f} %" in answer.reasons[1]


def test_what_lost_says_by_how_much_and_how_surely() -> None:
    answer = found()
    roles = {other.role: other for other in answer.others}
    assert roles["next"].why.startswith("costs")
    assert roles["accelerator"].option.accelerator != (answer.choice and answer.choice.accelerator)
    assert all(other.chance is None or 0 <= other.chance <= 1 for other in answer.others)


def test_a_better_one_that_breaks_a_bound_is_named_with_the_bound() -> None:
    free = found()
    assert free.choice is not None
    tight = (free.choice.figures["tpot"].value or 1.0) * 0.9
    answer = found(Constraints(slo=Slo(tpot=tight)))
    kept_out = next(other for other in answer.others if other.role == "broken")
    assert "tpot is" in kept_out.why
    assert kept_out.option.breaks


def test_where_nothing_keeps_the_bounds_the_nearest_say_what_would_help() -> None:
    answer = found(Constraints(slo=Slo(tpot=1e-4)))
    assert answer.choice is None
    assert answer.nearest
    assert all(one.breaks for one in answer.nearest)
    assert any("tpot" in one for one in answer.helps)


def test_what_does_not_fit_is_counted_and_never_chosen() -> None:
    answer = search(space(model=qwen3_32b(), accelerators=(SMALL,), counts=(1,), quantizations=(None,)), WORK)
    assert answer.choice is None
    assert answer.considered.too_large == answer.considered.configurations
    assert "--counts" in answer.helps[0]


def test_what_a_deployment_sets_is_not_searched() -> None:
    asked = ASKED.model_copy(update={"tensor_parallel_size": 2, "kv_cache_dtype": "fp8", "max_num_seqs": 32})
    deployments = [one.deployment for one in candidates_of(space(deployment=asked))]
    assert deployments
    assert {(one.tensor_parallel_size, one.kv_cache_dtype, one.max_num_seqs) for one in deployments} == {(2, "fp8", 32)}


def test_every_layout_uses_all_devices_once() -> None:
    layouts = layouts_of(Deployment(model="m", engine="vllm"), qwen3_30b_a3b(), 8)
    assert all(layout.devices == 8 for layout in layouts)
    assert len(set(layouts)) == len(layouts)
    assert {layout.ep for layout in layouts} == {False, True}
    assert all(not layout.ep for layout in layouts_of(Deployment(model="m", engine="vllm"), llama_3_8b(), 8))


def test_less_than_8_bits_is_taken_only_where_it_is_asked() -> None:
    usual = {one.model.quantization for one in candidates_of(space())}
    asked = {one.model.quantization for one in candidates_of(space(min_bits=4.0))}
    assert usual == {"bfloat16", "fp8"}
    assert asked == {"bfloat16", "fp8", "int4"}


@pytest.mark.parametrize("model", [qwen3_32b(), qwen3_30b_a3b()], ids=lambda model: model.name)
def test_memory_that_is_remembered_is_that_of_the_configuration(model: Any) -> None:
    scorer = Scorer(WORK, Constraints(), {}, budget_of)
    for one in candidates_of(space(model=model, engines=("vllm", "sglang"), counts=(1, 4), accelerators=(LARGE,))):
        assert scorer.room(one) == Room.of(budget_of(one.deployment, one.model, one.accelerator))


def test_a_rate_of_requests_is_served_with_the_streams_that_a_plan_of_it_has() -> None:
    work = Workload(input_len=1024, output_len=256, arrival="poisson", request_rate=(2.0,), concurrency=())
    candidate = next(iter(candidates_of(space())))
    scorer = Scorer(work, Constraints(), PRICES, budget_of)
    outcome = next(scorer.outcomes(0, candidate))
    assert outcome.state is not None
    assert outcome.room is not None
    from servolt.plan.roofline import roofline_of

    planned = at_request_rate(
        roofline_of(candidate.deployment, candidate.model, candidate.accelerator),
        input_len=1024,
        output_len=256,
        request_rate=2.0,
        kv_cache_tokens=outcome.room.tokens,
        max_num_seqs=outcome.room.max_num_seqs,
    )
    assert planned is not None
    assert outcome.state.concurrency == pytest.approx(planned.concurrency, rel=5e-3)
    assert outcome.state.output_throughput == 2.0 * 256


def test_a_rate_that_is_too_high_says_how_much_can_be_served() -> None:
    work = Workload(input_len=1024, output_len=256, arrival="poisson", request_rate=(1e5,), concurrency=())
    answer = search(space(), work, None, PRICES)
    assert answer.choice is None
    assert "requests/s" in answer.helps[0]


def test_the_load_at_which_a_bound_on_times_breaks_is_found_and_none_beyond_is_tried() -> None:
    bound = Constraints(slo=Slo(tpot=0.012))
    scorer = Scorer(WORK, bound, PRICES, budget_of, loads=(1, 4, 16, 64, 256, 1024))
    outcomes = list(scorer.outcomes(0, next(iter(candidates_of(space())))))
    kept = [one.load.concurrency or 0 for one in outcomes if not one.misses]
    over = [one.load.concurrency or 0 for one in outcomes if one.misses]
    assert max(kept) < min(over) <= 1.1 * max(kept) + 1
    assert max(over) == 64


def test_a_choice_near_its_bound_gives_way_to_one_that_keeps_it_more_surely() -> None:
    """At the very bound the chance is even; a little below it costs little and is much surer."""
    answer = found(Constraints(slo=Slo(tpot=0.012)), loads=(1, 4, 16, 64, 256, 1024))
    assert answer.choice is not None
    assert answer.choice.chance > 0.6
    sure = found(Constraints(slo=Slo(tpot=0.012), min_chance=0.95), loads=(1, 4, 16, 64, 256, 1024))
    assert sure.choice is not None
    assert sure.choice.chance >= 0.95
    assert cost_of(sure) >= cost_of(answer)


def test_without_a_bound_on_times_nothing_is_left_to_chance() -> None:
    answer = found(Constraints(usd_per_hour=4.0))
    assert answer.choice is not None
    assert answer.choice.chance == 1


def test_what_was_measured_of_a_configuration_is_what_is_chosen_by() -> None:
    """The best as predicted is seen to be three times as slow, and gives way to another."""
    free = found()
    assert free.choice is not None
    choice = free.choice
    candidate = next(one for one in candidates_of(space()) if one.deployment == choice.deployment)
    slow = KnownSpeed(
        conditions=conditions_of(candidate.deployment, candidate.model, candidate.accelerator),
        metric="tpot",
        input_len=1024,
        output_len=256,
        concurrency=16,
        value=3 * (choice.figures["tpot"].value or 1.0),
        predicted=choice.figures["tpot"].value,
        date="2026-11-28T00:00:00Z",
        tool_version="1",
    )
    learnt = Learnt(KnownDeployments(speeds=(slow,)), tool_version="1")
    after = search(space(), WORK, None, PRICES, learnt=learnt)
    assert after.choice is not None
    assert after.choice.deployment != choice.deployment
    again = search(space(), WORK, None, PRICES, learnt=learnt, candidates=[candidate])
    assert again.choice is not None
    assert again.choice.figures["tpot"].basis == "measured"
    assert again.choice.figures["tpot"].value == pytest.approx(slow.value, rel=0.1)


def test_streams_that_only_wait_are_not_added() -> None:
    """Beyond what the pool holds, a request takes longer and no more of them come."""
    asked = space(accelerators=(SMALL,), counts=(1,), quantizations=(None,), loads=(16, 64, 256, 1024))
    scorer = Scorer(WORK, Constraints(), PRICES, budget_of, loads=asked.loads)
    for candidate in candidates_of(asked):
        states = [one.state for one in scorer.outcomes(0, candidate) if one.state is not None]
        rates = [state.output_throughput for state in states]
        assert states
        assert all(state.waiting_s == 0 for state in states[:-1])
        assert states[-1].waiting_s == 0 or rates[-1] > 1.03 * rates[-2]


def test_speculation_is_tried_with_the_acceptance_that_is_stated() -> None:
    """At one stream a step takes the bytes of the weights: two tokens accepted of two drafted by n-grams make it three
    tokens for one, and the prompt's time stays."""
    drafted = Speculation(method="ngram", num_speculative_tokens=2, acceptance=2.0)
    one = Workload(input_len=16, output_len=256, concurrency=(1,))
    asked = space(accelerators=(LARGE,), counts=(1,), speculations=(None, drafted), quantizations=(None,))
    answer = search(asked, one, None, PRICES, objective="latency")
    assert answer.choice is not None
    assert answer.choice.deployment.speculative_config == drafted
    plain = search(asked._replace(speculations=(None,)), one, None, PRICES, objective="latency")
    assert plain.choice is not None
    gain = (plain.choice.figures["tpot"].value or 0.0) / (answer.choice.figures["tpot"].value or 1.0)
    assert 2.5 < gain <= 3.0


def test_speculation_that_a_model_cannot_do_is_refused_with_its_reason() -> None:
    drafted = Speculation(method="mtp", num_speculative_tokens=2, acceptance=1.5)
    answer = search(space(speculations=(drafted,)), WORK, None, PRICES)
    assert answer.choice is None
    assert answer.considered.refused["no_mtp"] == answer.considered.configurations


def test_without_prices_the_throughput_of_a_device_decides() -> None:
    answer = search(space(), WORK)
    assert answer.objective == "throughput"
    assert answer.choice is not None
    best = max(one.output_throughput_per_device or 0.0 for one in answer.front)
    assert answer.choice.output_throughput_per_device == best


def test_where_power_is_not_known_energy_is_absent_and_keeps_no_cap() -> None:
    unknown = LARGE.model_copy(update={"tdp_w": None})
    answer = found(accelerators=(unknown,))
    assert answer.choice is not None
    assert "power" not in answer.choice.figures
    assert found(Constraints(power_w=1e6), accelerators=(unknown,)).choice is None


def test_the_document_reads_back() -> None:
    answer = found(Constraints(slo=Slo(tpot=0.05)))
    assert Search.from_json(answer.to_json()) == answer


def test_the_accelerator_of_a_candidate_is_that_of_its_deployment() -> None:
    counts: Mapping[str, set[int]] = {}
    for one in candidates_of(space()):
        assert isinstance(one.accelerator, Accelerator)
        assert one.deployment.hardware == Hardware(accelerator=one.accelerator.name, count=one.accelerator.count)
        counts = {**counts, one.accelerator.name: {*counts.get(one.accelerator.name, set()), one.accelerator.count}}
    assert counts == {"large": {1, 2}, "small": {1, 2}}


@pytest.mark.parametrize(("objective", "missing"), [("cost", "price"), ("energy", "power limit")])
def test_what_an_objective_needs_and_nobody_knows_is_said(objective: Objective, missing: str) -> None:
    unknown = LARGE.model_copy(update={"tdp_w": None})
    answer = search(space(accelerators=(unknown,)), WORK, objective=objective)
    assert answer.choice is None
    assert missing in answer.reasons[0]
