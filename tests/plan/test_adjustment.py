"""Corrected states: Little's law holds, what wasn't measured follows, and known truths are recovered."""

import math
from typing import Any

import pytest

from servolt.deployment import Deployment
from servolt.plan.adjustment import Adjustment, At, adjustment, at
from servolt.plan.correction import KnownPoint, Shift
from servolt.plan.roofline import RooflineLaw, roofline_of
from servolt.plan.steady import Steady, at_request_rate, steady
from servolt.workload import Workload
from tests.plan.memory.shapes import h100, llama_3_1_8b

LENGTHS = {"input_len": 1024.0, "output_len": 256.0}


@pytest.fixture(scope="module")
def law() -> RooflineLaw:
    """Bandwidth and FLOP/s of an H100 SXM: NVIDIA H100 datasheet, 2024."""
    device = h100(bandwidth_bytes_per_s=3.35e12, flops_per_s={"bfloat16": 989e12, "fp8": 1979e12}, tdp_w=700.0)
    return roofline_of(Deployment(model="m", engine="vllm", engine_version="0.19.0"), llama_3_1_8b(), device)


def workload(streams: int = 16, **more: Any) -> Workload:
    return Workload(input_len=1024, output_len=256, concurrency=(streams,), **more)


def load(law: RooflineLaw, asked: Workload) -> At:
    point = asked.points[0]
    if point.request_rate is not None:
        state = at_request_rate(law, **LENGTHS, request_rate=point.request_rate)
        assert state is not None
        return at(law, state, asked, point.request_rate)
    return at(law, steady(law, **LENGTHS, concurrency=float(point.concurrency or 1), max_num_seqs=128.0), asked)


def factors(metric: str) -> tuple[float, float]:
    return (0.5, 2.0) if metric == "ttft" else (0.7, 1.4)


def power_w(state: Steady) -> float:
    return 400.0


def learnt(law: RooflineLaw, *points: KnownPoint, **more: Any) -> Adjustment:
    return adjustment(points, lambda asked: load(law, asked), factors, power_w=power_w, **more)


def point(metric: str, value: float, streams: int = 16, **more: Any) -> KnownPoint:
    return KnownPoint(metric=metric, workload=workload(streams), value=value, **more)


def holds_little(state: Steady) -> bool:
    e2el = state.ttft + (LENGTHS["output_len"] - 1) * state.tpot
    rate = state.concurrency * LENGTHS["output_len"] / e2el
    return math.isclose(state.e2el, e2el, rel_tol=1e-9) and math.isclose(state.output_throughput, rate, rel_tol=1e-9)


def test_the_shares_of_a_token_are_a_whole(law: RooflineLaw) -> None:
    assert sum(load(law, workload()).shares.values()) == pytest.approx(1.0)


def test_without_points_nothing_changes(law: RooflineLaw) -> None:
    here, same = load(law, workload()), learnt(law)
    assert same.state(here)[:-1] == pytest.approx(here.state[:-1])
    assert same.state(here).bottleneck == here.state.bottleneck
    interval = same.interval("output_throughput", here)
    assert (interval.low, interval.high, interval.basis, interval.n) == (0.7, 1.4, "formula", 0)
    assert same.points == 0


def test_a_slower_token_slows_all_that_follows_from_it(law: RooflineLaw) -> None:
    here = load(law, workload())
    found = learnt(law, point("tpot", here.state.tpot * 1.3))
    state = found.state(here)
    assert state.tpot == pytest.approx(here.state.tpot * 1.3, rel=0.03)
    assert state.itl / here.state.itl == pytest.approx(state.tpot / here.state.tpot)
    assert state.ttft == pytest.approx(here.state.ttft)
    assert state.output_throughput < here.state.output_throughput
    assert holds_little(state)
    assert found.interval("tpot", here).basis == "measured"
    assert found.interval("output_throughput", here).basis == "calibrated"
    low, high = found.interval("output_throughput", here)[:2]
    assert 0.7 < low < 1.0 < high < 1.4


def test_a_rate_tells_the_time_per_token(law: RooflineLaw) -> None:
    here = load(law, workload())
    state = learnt(law, point("output_throughput", here.state.output_throughput * 0.8)).state(here)
    assert state.output_throughput == pytest.approx(here.state.output_throughput * 0.8, rel=0.05)
    assert holds_little(state)


@pytest.mark.parametrize("metric", ["e2el", "request_throughput", "total_throughput", "decode_throughput"])
def test_so_do_whole_requests(law: RooflineLaw, metric: str) -> None:
    here = load(law, workload())
    value = here.state.running / here.state.tpot if metric == "decode_throughput" else getattr(here.state, metric)
    state = learnt(law, point(metric, value * (1.25 if metric == "e2el" else 0.8))).state(here)
    assert state.tpot == pytest.approx(here.state.tpot * 1.25, rel=0.12)


def test_a_first_token_is_corrected_by_itself(law: RooflineLaw) -> None:
    here = load(law, workload())
    state = learnt(law, point("ttft", here.state.ttft * 2)).state(here)
    assert state.ttft == pytest.approx(here.state.ttft * 2, rel=0.05)
    assert state.ttft_cold == pytest.approx(here.state.ttft_cold * state.ttft / here.state.ttft)
    assert state.tpot == here.state.tpot
    assert holds_little(state)


def test_streams_that_wait_wait_longer_for_slower_ones(law: RooflineLaw) -> None:
    here = load(law, workload(256))
    assert here.state.waiting_s > 0
    state = learnt(law, point("tpot", here.state.tpot * 1.3, 256)).state(here)
    assert state.waiting_s > here.state.waiting_s
    assert state.ttft > here.state.ttft
    assert holds_little(state)


def test_at_a_rate_of_requests_the_streams_change_and_the_rate_stays(law: RooflineLaw) -> None:
    here = load(law, Workload(input_len=1024, output_len=256, arrival="poisson", concurrency=(), request_rate=(2.0,)))
    state = learnt(law, point("tpot", load(law, workload()).state.tpot * 1.3)).state(here)
    assert state.request_throughput == 2.0
    assert state.concurrency > here.state.concurrency
    assert holds_little(state)


def test_power_is_corrected_and_energy_tells_it(law: RooflineLaw) -> None:
    here = load(law, workload())
    assert learnt(law, point("power", 300.0)).factor("power", here) == pytest.approx(0.75, rel=0.05)
    joules = 300.0 / here.state.output_throughput
    assert learnt(law, point("energy_per_output_token", joules)).factor("power", here) == pytest.approx(0.75, rel=0.08)
    assert learnt(law, point("energy_per_request", joules * 256)).factor("power", here) == pytest.approx(0.75, rel=0.08)


def test_a_point_from_which_nothing_follows_says_so(law: RooflineLaw) -> None:
    found = learnt(law, point("load_time", 30.0), point("cpu_seconds_per_output_token", 1.0))
    assert [problem.code for problem in found.problems] == ["unused_point", "unused_point"]
    assert found.points == 0


def test_milliseconds_taken_for_seconds_are_told(law: RooflineLaw) -> None:
    here = load(law, workload())
    found = learnt(law, point("tpot", here.state.tpot * 1000))
    (problem,) = found.problems
    assert (problem.code, problem.severity) == ("unbelievable_point", "warning")
    assert "1000 times above" in problem.message
    assert found.state(here).tpot == here.state.tpot


def test_what_others_measured_shifts_a_metric(law: RooflineLaw) -> None:
    here = load(law, workload())
    found = learnt(law, shifts={"tpot": Shift(math.log(1.1), 0.6, 2)})
    assert found.state(here).tpot == pytest.approx(here.state.tpot * 1.1)
    assert found.interval("tpot", here).basis == "calibrated"


def test_two_points_recover_a_law_that_is_off_in_one_part(law: RooflineLaw) -> None:
    """Its launches take twice as long: between the loads that were measured it comes out within 4 %."""

    def truth(streams: int) -> float:
        here = load(law, workload(streams))
        return here.state.tpot * (1 + here.shares["layers"])

    found = learnt(law, point("tpot", truth(1), 1), point("tpot", truth(128), 128))
    for streams in (2, 8, 32):
        assert found.state(load(law, workload(streams))).tpot == pytest.approx(truth(streams), rel=0.04)
