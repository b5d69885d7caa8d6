"""The formulas of a plan, computed again from the values that they state."""

import math
import re
from typing import Any

import pytest

from servolt.library import plan
from servolt.plan import Plan
from servolt.plan.explanation import Line, explanation_of
from tests.plan.test_device import deployment
from tests.plan.test_roofline import MIXTURE, law

NUMBER = r"(\d[\d.,]*(?:e[+-]?\d+)?)"
LOAD = {"input_tokens": 1024, "output_tokens": 256}


def lines(of: Plan) -> dict[str, Line]:
    return {f"{one.about} {one.name}": one for one in explanation_of(of).items}


def numbers(text: str) -> list[float]:
    return [float(one.rstrip(".,").replace(",", "")) for one in re.findall(NUMBER, text)]


def seconds(text: str) -> list[float]:
    return [float(one) for one in re.findall(NUMBER + r" s\b", text)]


@pytest.mark.parametrize("load", [{"concurrency": 8}, {"concurrency": 4000}, {"concurrency": 64}])
def test_the_terms_of_a_plan_add_up_to_its_figures(load: dict[str, Any]) -> None:
    found = lines(plan(deployment(), LOAD | load))
    step = sum(one.value or 0 for one in explanation_of(plan(deployment(), LOAD | load)).items if one.about == "step")
    for name in ("ttft", "ttft_cold", "tpot"):
        said = found[f"prediction {name}"]
        assert sum(seconds(said.formula)) == pytest.approx(said.value, rel=2e-4), said.formula
    assert seconds(found["prediction tpot"].formula)[0] == pytest.approx(step, rel=1e-4)


def test_each_term_of_a_step_follows_from_its_bytes() -> None:
    found = lines(plan(deployment(), LOAD | {"concurrency": 8}))
    weights = found["step weights"].formula
    read = sum(
        float(size) / (float(share) * float(rate))
        for size, share, rate in re.findall(NUMBER + r" B / \(" + NUMBER + " x " + NUMBER + r" B/s\)", weights)
    )
    stated = seconds(weights)
    assert read == pytest.approx(stated[0], rel=1e-3)
    power = numbers(weights)[-1]
    both = (stated[0] ** power + stated[1] ** power) ** (1 / power)
    assert both == pytest.approx(found["step weights"].value, rel=1e-3)
    kept = numbers(found["step kv_cache"].formula)
    sequences, size, _, share, rate, read_s = kept[:6]
    assert sequences * size / (share * rate) == pytest.approx(read_s, rel=1e-3)


@pytest.mark.parametrize("tokens", [1.0, 1024.0, 20_000.0])
@pytest.mark.parametrize("made", [law(), law(MIXTURE)])
def test_the_parts_of_a_prompt_are_the_prompt(tokens: float, made: Any) -> None:
    assert sum(made.prompt_terms(tokens).values()) == pytest.approx(made.prefill_s(tokens))


def test_power_load_time_and_prices_follow_from_what_is_stated() -> None:
    found = lines(plan(deployment(), LOAD | {"concurrency": 8}))
    said = numbers(found["prediction power"].formula)
    count, limit, floor, rest, one, memory, read, arithmetic, computed = said[:9]
    share = floor + rest * (one - math.exp(-(memory * read + arithmetic * math.sqrt(computed))))
    assert count * limit * share == pytest.approx(found["prediction power"].value, rel=2e-3)
    size, rate, start = numbers(found["prediction load_time"].formula)
    assert size / rate + start == pytest.approx(found["prediction load_time"].value, rel=1e-4)
    prompt, alone = numbers(found["prediction prefill_throughput"].formula)[:2]
    assert prompt / alone == pytest.approx(found["prediction prefill_throughput"].value, rel=1e-4)
    tokens, held = numbers(found["prediction kv_concurrency"].formula)[:2]
    assert tokens / held == pytest.approx(found["prediction kv_concurrency"].value, rel=1e-3)


def test_idle_power_is_stated_with_its_share() -> None:
    said = lines(plan(deployment(), LOAD | {"rate": 0.1}))
    busy, busy_w, rest, idle_w = numbers(said["prediction power"].formula)[:4]
    assert busy * busy_w + rest * idle_w == pytest.approx(said["prediction power"].value, rel=1e-3)
    assert idle_w == 70  # an H100 SXM of the catalogue
    each = numbers(said["prediction utilisation"].formula)[1]
    assert 1 - math.exp(-each) == pytest.approx(said["prediction utilisation"].value, rel=1e-3)


def test_no_figure_is_without_values() -> None:
    for load in ({"concurrency": 8}, {"rate": 0.5}, {"rate": 1e4}):
        for line in explanation_of(plan(deployment(), LOAD | load)).items:
            if line.about != "memory":
                assert re.search(r"\d", line.formula), (line.name, line.formula)
