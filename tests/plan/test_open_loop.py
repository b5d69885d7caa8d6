"""Plans of open loops: what idle time costs, and loads that are too much."""

from typing import Any

import pytest

from servolt.catalogue import find_accelerator
from servolt.library import plan
from servolt.plan import Plan
from tests.plan.test_device import deployment

LENGTHS = {"input_tokens": 1024, "output_tokens": 256}


def made(*, hardware: dict[str, Any] | None = None, settings: dict[str, Any] | None = None, **load: Any) -> Plan:
    on = {"hardware": hardware} if hardware else {}
    return plan(deployment(**on, **(settings or {})), LENGTHS | load)


def value(of: Plan, metric: str) -> float:
    found = of.predictions[metric].value
    assert found is not None
    return found


def test_an_empty_hour_draws_idle_power() -> None:
    """Of an H100 SXM in the catalogue: 70 W."""
    rare = made(rate=1e-4)
    assert find_accelerator("H100 SXM").idle_w == 70
    assert value(rare, "power") == pytest.approx(70, rel=0.01)
    assert value(rare, "utilisation") < 0.001
    assert value(rare, "idle_energy_share") > 0.99
    assert value(rare, "energy_per_request") == pytest.approx(70 / 1e-4, rel=0.01)


@pytest.mark.parametrize("rate", [0.01, 0.3, 2.0, 20.0])
def test_joules_are_those_at_work_and_those_that_wait(rate: float) -> None:
    found = made(rate=rate)
    power, share = value(found, "power"), value(found, "idle_energy_share")
    waiting = (1 - value(found, "utilisation")) * 70
    assert power * share == pytest.approx(waiting, rel=1e-6)
    assert value(found, "energy_per_request") == pytest.approx(power / rate, rel=1e-3)
    assert value(found, "energy_per_output_token") == pytest.approx(power / rate / 256, rel=1e-3)
    assert found.predictions["power"].low < power < found.predictions["power"].high  # type: ignore[operator]


def test_more_requests_never_draw_less_power_and_never_cost_more_joules_each() -> None:
    plans = [made(rate=rate) for rate in (0.01, 0.1, 0.5, 1.0, 4.0, 16.0)]
    watts = [value(one, "power") for one in plans]
    joules = [value(one, "energy_per_output_token") for one in plans]
    assert watts == sorted(watts)
    assert joules == sorted(joules, reverse=True)


def test_devices_that_the_deployment_does_not_use_draw_idle_power() -> None:
    """Seven of eight H100 without work: 7 x 70 W."""
    one = made(concurrency=8)
    eight = made(concurrency=8, hardware={"accelerator": "NVIDIA H100 80GB HBM3", "count": 8})
    assert value(eight, "power") - value(one, "power") == pytest.approx(7 * 70, rel=0.01)
    assert value(eight, "utilisation") == pytest.approx(1 / 8)


def test_copies_without_a_stream_draw_idle_power() -> None:
    hardware = {"accelerator": "NVIDIA H100 80GB HBM3", "count": 8}
    alone = made(concurrency=1)
    copies = made(concurrency=1, hardware=hardware, settings={"data_parallel_size": 8})
    assert value(copies, "power") - value(alone, "power") == pytest.approx(7 * 70, rel=0.01)


def test_a_load_that_is_too_much_has_all_figures_that_do_not_grow() -> None:
    fullest, too_much = made(concurrency=4096), made(rate=1e4)
    capacity = value(too_much, "saturation_request_rate")
    assert value(too_much, "request_throughput") == pytest.approx(capacity)
    assert value(too_much, "output_throughput") == pytest.approx(capacity * 256)
    assert value(too_much, "utilisation") == 1
    assert value(too_much, "power") == pytest.approx(value(fullest, "power"), rel=0.05)
    assert value(too_much, "energy_per_output_token") == pytest.approx(
        value(too_much, "power") / value(too_much, "output_throughput")
    )
    for metric in ("tpot", "ttft_cold", "load_time", "saturation_concurrency", "prefill_throughput"):
        assert value(too_much, metric) > 0
    for metric in ("ttft", "e2el"):
        assert too_much.predictions[metric].value is None
        assert "grows" in (too_much.predictions[metric].reason or "")
    problem = next(one for one in too_much.problems if one.code == "overload")
    assert f"{1e4 / capacity:.3g} times" in problem.message
    assert not [one for one in made(rate=capacity * 0.99).problems if one.code == "overload"]


def test_a_rate_with_a_concurrency_is_a_rate_with_a_cap() -> None:
    capped, closed = made(rate=20.0, concurrency=8), made(concurrency=8)
    assert value(capped, "request_throughput") == pytest.approx(value(closed, "request_throughput"))
    assert "8 requests in flight" in next(one.message for one in capped.problems if one.code == "overload")
    free, wide = made(rate=2.0), made(rate=2.0, concurrency=64)
    assert value(free, "tpot") == pytest.approx(value(wide, "tpot"))


def test_what_leaves_is_what_comes_unless_it_may_be_too_much() -> None:
    few = made(rate=1.0).predictions["request_throughput"]
    assert (few.low, few.value, few.high) == pytest.approx((1, 1, 1), rel=1e-5)
    most = value(made(rate=1.0), "saturation_request_rate")
    near = made(rate=0.99 * most).predictions["request_throughput"]
    assert near.low is not None
    assert near.low < 0.95 * most


def test_the_curve_says_throughput_against_streams_and_against_rates() -> None:
    curve = made(concurrency=8).throughput_curve
    assert [one.concurrency for one in curve][:4] == [1, 2, 4, 8]
    assert list(curve) == sorted(curve, key=lambda one: one.output_throughput)
    at_rate = made(rate=curve[3].request_rate)
    assert value(at_rate, "output_throughput") == pytest.approx(curve[3].output_throughput, rel=1e-3)
    assert curve[-1].concurrency == pytest.approx(value(at_rate, "saturation_concurrency"))


def test_a_bound_on_latency_lowers_the_rate_that_holds() -> None:
    free, bound = made(concurrency=8), made(concurrency=8, slo={"tpot": 0.01})
    assert value(bound, "saturation_request_rate") < value(free, "saturation_request_rate")
    assert "slo" in (bound.predictions["saturation_request_rate"].reason or "")
