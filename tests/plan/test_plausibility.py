"""What can't be is left out and told; what is possible is not.

Llama-3.1-8B in 16 bits is 16.06 GB, of which 1.05 GB are the table of embeddings (its config.json); an H100 SXM reads
3.35 TB/s, does 989 TFLOP/s in 16 bits and draws 700 W (NVIDIA H100 datasheet, 2024).
"""

from typing import Any

import pytest

from servolt.deployment import Deployment
from servolt.gpu import Accelerator
from servolt.plan import Plan
from servolt.plan.correction import KnownPoint
from servolt.plan.device import make_device_plan
from servolt.workload import Workload
from tests.plan.memory.shapes import h100, llama_3_1_8b

LEAST_TPOT = (16.06e9 - 1.05e9) / 3.35e12


def device(**more: Any) -> Accelerator:
    return h100(bandwidth_bytes_per_s=3.35e12, flops_per_s={"bfloat16": 989e12, "fp8": 1979e12}, tdp_w=700.0, **more)


def point(metric: str, value: float, streams: int = 1) -> KnownPoint:
    return KnownPoint(metric=metric, value=value, workload=workload(streams))


def workload(*streams: int) -> Workload:
    return Workload(input_len=1024, output_len=256, concurrency=streams)


def planned(*points: KnownPoint, streams: int = 1, **more: Any) -> Plan:
    deployment = Deployment(**{"model": "m", "engine": "vllm", "engine_version": "0.19.0", **more})
    return make_device_plan(deployment, llama_3_1_8b(), device(), workload(streams), points=points)


def codes(plan: Plan) -> list[str]:
    return [problem.code for problem in plan.problems if problem.code.endswith(("_point", "_points"))]


@pytest.mark.parametrize(
    ("impossible", "most"),
    [
        (point("tpot", 0.004), f"the least is {LEAST_TPOT:.3g}"),
        (point("output_throughput", 300.0), "the most is"),
        (point("output_throughput", 90_000.0, 256), "the most is"),
        (point("prefill_throughput", 90_000.0), "the most is"),
        (point("power", 900.0), "the most is 700"),
    ],
)
def test_what_is_faster_than_the_hardware_is_left_out_and_told(impossible: KnownPoint, most: str) -> None:
    plan, cold = planned(impossible), planned()
    (problem,) = (one for one in plan.problems if one.code == "impossible_point")
    assert most in problem.message
    assert "quantization" in problem.remedy
    assert plan.predictions["tpot"].value == cold.predictions["tpot"].value


@pytest.mark.parametrize(
    "possible",
    [point("tpot", 0.0052), point("output_throughput", 180.0), point("power", 690.0), point("tpot", 0.03, 256)],
)
def test_what_is_possible_counts(possible: KnownPoint) -> None:
    assert codes(planned(possible)) == []


def test_guessed_tokens_may_come_faster_than_the_weights_are_read() -> None:
    speculation = {"method": "eagle3", "num_speculative_tokens": 3, "acceptance": 2.0}
    assert "impossible_point" not in codes(planned(point("tpot", 0.004), speculative_config=speculation))


@pytest.mark.parametrize(
    "points",
    [
        [point("tpot", 0.012, 4), point("tpot", 0.007, 32)],
        [point("tpot", 0.010, 8), point("output_throughput", 1200.0, 8)],
        [point("tpot", 0.010, 64), point("output_throughput", 800.0, 64)],
        [point("tpot", 0.010, 32), point("ttft", 0.1, 32), point("output_throughput", 2000.0, 32)],
    ],
)
def test_points_that_contradict_each_other_are_told(points: list[KnownPoint]) -> None:
    assert "contradictory_points" in codes(planned(*points))


@pytest.mark.parametrize(
    "points",
    [
        [point("tpot", 0.008, 4), point("tpot", 0.0076, 8), point("tpot", 0.012, 64)],
        [point("tpot", 0.010, 8), point("ttft", 0.06, 8), point("output_throughput", 780.0, 8)],
    ],
)
def test_points_that_go_together_are_not(points: list[KnownPoint]) -> None:
    assert codes(planned(*points)) == []


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("tpot", 0.0102),
        ("ttft", 0.2),
        ("output_throughput", 1100.0),
        ("power", 555.0),
        ("energy_per_output_token", 0.5),
    ],
)
def test_a_plan_of_a_measured_load_says_what_was_measured_and_that_it_was(metric: str, value: float) -> None:
    plan = planned(point(metric, value, 16), streams=16)
    found = plan.predictions[metric]
    assert found.value == pytest.approx(value, rel=1e-6)
    assert found.basis == "measured"
    assert found.low is not None
    assert found.high is not None
    assert found.low < value < found.high
    (said,) = (one for one in plan.estimates if one.metric == metric)
    assert said.method is not None
    assert said.method.startswith("the measured value itself")
    others = {name: one.basis for name, one in plan.predictions.items() if name != metric}
    assert "measured" not in others.values()


def test_elsewhere_it_says_how_it_was_moved() -> None:
    plan = planned(point("tpot", 0.0102, 16), streams=64)
    (said,) = (one for one in plan.estimates if one.metric == "tpot")
    assert said.basis == "calibrated"
    assert said.method is not None
    assert "how much repeats differ" in said.method


def test_a_rate_is_itself_beside_a_measured_first_token() -> None:
    points = point("ttft", 0.3, 16), point("output_throughput", 1000.0, 16)
    figures = planned(*points, streams=16).predictions
    assert figures["output_throughput"].value == pytest.approx(1000.0, rel=1e-6)
    assert figures["ttft"].value == pytest.approx(0.3, rel=1e-6)
