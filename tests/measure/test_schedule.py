"""The schedule: the same for everyone who asks for the same."""

import json
from itertools import islice
from typing import Any

import numpy as np
import pytest

from servolt.measure.load.schedule import Schedule
from servolt.workload import Workload


def _schedule(repetition: int = 0, vocab_size: int | None = 2048, **fields: Any) -> Schedule:
    workload = Workload(**fields)
    return Schedule(workload, workload.points[0], repetition, "m", vocab_size)


def test_the_same_workload_sends_the_same_bytes() -> None:
    assert _schedule().body(7) == _schedule().body(7)


def test_prompts_differ_from_request_to_request_and_from_window_to_window() -> None:
    bodies = {_schedule(repetition).body(index) for repetition in range(3) for index in range(-5, 50)}
    assert len({json.dumps(json.loads(body)["prompt"]) for body in bodies}) == 165


def test_prompts_have_the_asked_length_in_ids_that_no_tokenizer_reserves() -> None:
    prompts = [json.loads(_schedule(input_len=200).body(index))["prompt"] for index in range(20)]
    assert {len(prompt) for prompt in prompts} == {200}
    assert min(map(min, prompts)) >= 128
    assert max(map(max, prompts)) < 1920


def test_a_fixed_length_is_fixed_and_a_natural_one_is_a_bound() -> None:
    fixed = json.loads(_schedule(output_len=33).body(0))
    assert (fixed["max_tokens"], fixed["ignore_eos"]) == (33, True)
    natural = _schedule(output_len=33, length_control="natural")
    asked = json.loads(natural.body(0))
    assert natural.path == "/v1/chat/completions"
    assert asked["max_tokens"] == 33
    assert "ignore_eos" not in asked


def test_without_a_vocabulary_prompts_are_words() -> None:
    prompt = json.loads(_schedule(vocab_size=None, input_len=10).body(0))["prompt"]
    assert len(prompt.split()) == 10


def test_poisson_gaps_are_exponential_at_the_asked_rate() -> None:
    schedule = _schedule(arrival="poisson", request_rate=(50.0,))
    gaps = np.diff([0, *islice(schedule.arrivals_ns(), 5000)]) / 1e9
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.05)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)
    assert float((gaps > 1 / 50).mean()) == pytest.approx(np.exp(-1), abs=0.02)


def test_constant_arrivals_are_evenly_spaced() -> None:
    schedule = _schedule(arrival="constant", request_rate=(4.0,))
    assert list(islice(schedule.arrivals_ns(), 3)) == [250_000_000, 500_000_000, 750_000_000]


def test_another_seed_is_another_schedule() -> None:
    one, other = (_schedule(arrival="poisson", request_rate=(1.0,), seed=seed) for seed in (1, 2))
    assert list(islice(one.arrivals_ns(), 3)) != list(islice(other.arrivals_ns(), 3))
