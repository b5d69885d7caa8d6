"""The questions that `benchmarks.search` asks, on made-up measurements whose answers are known."""

import pytest

from benchmarks.search.choosing import by_devices
from benchmarks.search.frontiers import Configuration, Frontier, Run, at_bound
from benchmarks.search.questions import Question, questions_of
from servolt.deployment import Deployment
from servolt.plan.search_space import Candidate, Layout
from tests.plan.published import accelerator, llama_3_8b


def configuration(devices: int, *runs: Run) -> Configuration:
    layout = Layout(devices)
    card = accelerator(80, "9.0").model_copy(update={"count": devices})
    candidate = Candidate(Deployment(model="m", engine="vllm"), llama_3_8b(), card, layout)
    return Configuration("vllm", "", devices, layout, None, {"1": list(runs)}, [candidate])


ONE = configuration(1, Run(1, 0.010, 1.0, 100.0), Run(16, 0.030, 3.0, 500.0), Run(64, 0.060, 6.0, 900.0))
TWO = configuration(2, Run(1, 0.006, 0.6, 80.0), Run(16, 0.020, 2.0, 380.0), Run(64, 0.030, 3.0, 800.0))
SHORT = configuration(4, Run(1, 0.004, 0.4, 60.0))


def questions(*configurations: Configuration) -> list[Question]:
    return list(questions_of(Frontier("made up", "m", "H100", 1024, 256, configurations)))


def test_throughput_at_a_bound_lies_between_two_loads_and_not_beyond_the_last() -> None:
    curve = [(0.010, 100.0), (0.030, 500.0)]
    assert at_bound(0.020, curve) == pytest.approx(300.0)
    assert at_bound(0.009, curve) == 0.0
    assert at_bound(1.0, curve) == 500.0


def test_the_best_within_a_bound_is_not_the_best_without_one() -> None:
    asked = [one for one in questions(ONE, TWO) if one.kind == "bound"]
    assert [one.configurations[one.best].devices for one in asked][-1] == 2
    assert all(one.worth[one.best] == max(one.worth) for one in asked)


def test_what_was_measured_below_a_bound_only_is_no_answer_to_it() -> None:
    asked = [one for one in questions(ONE, TWO, SHORT) if one.kind == "bound" and (one.bound or 0) > 0.004]
    assert asked
    assert all(SHORT not in one.configurations for one in asked)


def test_at_a_number_of_streams_all_that_ran_with_it_are_compared() -> None:
    load = next(one for one in questions(ONE, TWO, SHORT) if one.kind == "load" and one.streams == 1)
    assert list(load.worth) == [100.0, 80.0, 60.0]
    assert by_devices(load) == 0
    latency = next(one for one in questions(ONE, TWO, SHORT) if one.kind == "latency" and one.streams == 1)
    assert latency.best == 2
    assert by_devices(latency) == 2


def test_regret_is_what_is_given_up_and_a_broken_bound_has_none() -> None:
    asked = Question("bound", Frontier("", "", "", 1, 1, ()), (), (90.0, 100.0, 0.0))
    assert asked.regret(0) == pytest.approx(0.1)
    assert asked.regret(2) is None
    assert asked.regret(None) is None
