"""Workloads whose lengths or arrivals are spread, and traces: what is played request by request."""

import itertools
import statistics
from pathlib import Path
from typing import Any

import pytest

from servolt.deployment import Deployment
from servolt.errors import InvalidInputError
from servolt.library import plan
from servolt.plan import Plan
from servolt.plan.arrivals import lengths_of, requests_of
from servolt.plan.holding import holding_of
from servolt.plan.link import link_of, read_link
from servolt.plan.playing import Fitted, Limits, play_closed, play_open
from servolt.plan.steady import steady
from servolt.study.trace import read_trace
from servolt.workload import Lengths, Slo, TraceRequest, Workload
from tests.plan.test_device import deployment
from tests.plan.test_roofline import law

FIXED = {"input_tokens": 1024, "output_tokens": 256}
AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:51.2225670,879,55
"""


def value(of: Plan, metric: str, statistic: str | None = None) -> float:
    found = next(one for one in of.estimates if (one.metric, one.statistic) == (metric, statistic))
    assert found.value is not None
    return found.value


@pytest.mark.parametrize(
    ("given", "mean", "median"),
    [
        ({"mean": 512, "cv": 0.5}, 512, 512 / 1.25**0.5),  # log-normal: mean / sqrt(1 + cv^2)
        ({"quantiles": {"0.5": 100, "1": 300}}, (1 + 100) / 4 + (100 + 300) / 4, 100),
        ({"p50": 100, "p90": 400}, None, 100),
        ([100, 200, 600], 300, 200),
        ({"min": 10, "max": 30}, 20, 20),
    ],
)
def test_lengths_are_what_they_say(given: Any, mean: float | None, median: float) -> None:
    lengths = Lengths.model_validate(given)
    assert lengths.quantile(0.5) == pytest.approx(median, rel=0.01)
    if mean is not None:
        assert lengths.moments.mean == pytest.approx(mean, rel=0.01)
    load = Workload.from_plain({"input_tokens": given, "output_tokens": 8, "rate": 1})
    drawn = [one for one, _ in itertools.islice(lengths_of(load), 4000)]
    assert statistics.fmean(drawn) == pytest.approx(lengths.moments.mean, rel=0.05)


@pytest.mark.parametrize(
    "given",
    [
        {"mean": 0},
        {"cv": 1},
        {"mean": 5, "values": [1]},
        {"quantiles": {"0.5": 10}},
        {"quantiles": {"0.5": 10, "0.9": 5}},
        {"quantiles": {"0.5": 10, "1.2": 20}},
        [],
        [0],
        {"min": 9, "max": 3},
        {"mean": 5, "cv": 1, "distribution": "zipf"},
    ],
)
def test_lengths_that_can_not_be_are_refused(given: Any) -> None:
    with pytest.raises(InvalidInputError):
        Workload.from_plain({"input_tokens": given, "rate": 1})


@pytest.mark.parametrize(
    ("fields", "cv"),
    [
        ({"rate": 4}, 1.0),
        ({"rate": 4, "arrival": "uniform"}, 0.0),
        ({"rate": 4, "arrival": {"process": "gamma", "cv": 2}}, 2.0),
        ({"rate": 4, "arrival": {"process": "burst", "size": 8}}, (2 * 8 - 1) ** 0.5),  # of compound gaps
    ],
)
def test_arrivals_have_the_rate_and_the_spread_that_is_asked(fields: dict[str, Any], cv: float) -> None:
    load = Workload.from_plain(fields)
    times = [one.arrival_s for one in itertools.islice(requests_of(load, load.points[0], 1), 20_000)]
    gaps = [later - one for one, later in itertools.pairwise(times)]
    assert 1 / statistics.fmean(gaps) == pytest.approx(4, rel=0.06)
    assert statistics.pstdev(gaps) * 4 == pytest.approx(cv, rel=0.12, abs=1e-6)


@pytest.mark.parametrize("streams", [1, 16, 64, 200])
def test_played_streams_are_as_the_closed_form_says(streams: int) -> None:
    load = Workload.from_plain({**FIXED, "concurrency": streams})
    form = steady(law(), input_len=1024, output_len=256, concurrency=streams)
    found = play_closed(
        Fitted(law()),
        lengths_of(load),
        Limits(1024, 8192),
        streams=streams,
        request_s=law().constants.request_s,
        measured=6 * streams + 100,
    )
    assert found is not None
    assert found.tpot is not None
    assert found.tpot.mean == pytest.approx(form.tpot, rel=0.15)
    assert found.output_throughput == pytest.approx(form.output_throughput, rel=0.15)
    in_flight = found.request_throughput * found.e2el.mean  # Little's law
    assert in_flight == pytest.approx(streams, rel=0.1)


def test_a_queue_of_one_place_waits_as_an_m_d_1_queue() -> None:
    """Pollaczek and Khinchine: with fixed service times s the mean wait is r s / (2 (1 - r)), r = rate x s."""
    load = Workload.from_plain({"input_tokens": 100, "output_tokens": 100, "rate": 1})
    alone = law().step_s(sequences=0, context=0, prompt_tokens=100, prompts=1, prompt_context=50)
    service = alone + 99 * law().decode_s(1, 150)
    point = load.points[0]._replace(request_rate=0.7 / service)
    played = play_open(
        Fitted(law()), requests_of(load, point, 1), Limits(1, 8192), request_s=0.0, warmup=500, measured=8000
    )
    assert played is not None
    assert played.queue_time.mean == pytest.approx(0.7 * service / (2 * 0.3), rel=0.15)
    assert played.busy == pytest.approx(0.7, rel=0.05)


def test_a_full_cache_costs_places_and_nothing_is_lost() -> None:
    load = Workload.from_plain({"input_tokens": 100, "output_tokens": 400, "concurrency": 16})
    found = play_closed(
        Fitted(law()),
        lengths_of(load),
        Limits(64, 8192, kv_cache_tokens=3000.0),
        streams=16,
        request_s=0.0,
        measured=200,
        slo=Slo(tpot=10.0),
    )
    assert found is not None
    assert found.preemptions > 0
    assert found.requests == 200
    assert found.slo_attainment == 1.0


def test_requests_that_no_cache_holds_are_refused_and_counted() -> None:
    asked = [TraceRequest(float(n), 5000 if n == 3 else 10, 10) for n in range(6)]
    found = play_open(Fitted(law()), iter(asked), Limits(4, 8192, 1000.0), request_s=0.0, warmup=0, measured=6)
    assert found is not None
    assert (found.requests, found.refused, found.whole) == (5, 1, True)


def test_a_request_holds_its_prompt_and_half_its_answer() -> None:
    assert holding_of(Workload(input_len=1000, output_len=200)).mean == 1100
    spread = Workload.from_plain({"input_tokens": 1000, "output_tokens": [100, 300], "rate": 1})
    # Time-weighted: (100 x (1000 + 50) + 300 x (1000 + 150)) / 400.
    assert holding_of(spread).mean == pytest.approx(1125, rel=0.01)


def test_bursts_wait_longer_than_the_same_requests_evenly() -> None:
    def p90(arrival: Any) -> float:
        return value(plan(deployment(), {**FIXED, "rate": 3, "arrival": arrival}), "ttft", "p90")

    assert p90({"process": "burst", "size": 30}) > 3 * p90("poisson")


def test_spread_lengths_have_percentiles_goodput_and_their_own_room() -> None:
    spread = {"input_tokens": {"mean": 1024, "cv": 1, "max": 7000}, "output_tokens": {"p50": 200, "p99": 1000}}
    found = plan(deployment(), {**spread, "rate": 5, "slo": {"ttft": 0.2, "tpot": 0.05}})
    times = [value(found, "ttft", one) for one in ("p50", "p90", "p99")]
    assert times == sorted(times)
    assert 0 < value(found, "slo_attainment") <= 1
    assert value(found, "request_goodput") == pytest.approx(5 * value(found, "slo_attainment"))
    room = found.predictions["kv_concurrency"]
    assert room.low < room.value  # type: ignore[operator]
    assert value(found, "queue_time", "mean") >= 0
    assert value(found, "preemptions") >= 0
    method = next(one.method for one in found.estimates if one.metric == "ttft")
    assert "played" in (method or "")
    assert Plan.from_json(found.to_json()) == found


def test_the_room_for_requests_of_fixed_lengths_is_the_pool_over_what_they_hold() -> None:
    found = plan(deployment(), {**FIXED, "concurrency": 4})
    assert value(found, "kv_concurrency") == pytest.approx(found.memory.kv_cache_tokens / (1024 + 128))


def test_a_trace_is_played_as_it_came(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(AZURE)
    trace = read_trace(path)
    assert [one[1:] for one in trace.requests] == [(374, 44), (396, 109), (879, 55)]
    assert trace.span_s == pytest.approx(4.541977)
    found = plan(deployment(), {"trace": str(path)})
    assert found.workload.input_len == round((374 + 396 + 879) / 3)
    assert found.workload.trace is not None
    assert found.workload.trace.count == 3
    assert value(found, "ttft", "p99") > 0
    again = plan(found.deployment, Plan.from_json(found.to_json()).workload)
    assert again.estimates == found.estimates
    faster = plan(deployment(), {"trace": str(path), "rate": 10.0})
    assert faster.workload.request_rate == (10.0,)
    path.write_text(AZURE.replace("374", "375"))
    with pytest.raises(InvalidInputError, match="not the trace any more"):
        plan(found.deployment, found.workload)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no column"),
        ("a,b\n1,2\n", "no column"),
        ("arrival_s,input_tokens,output_tokens\n", "no request"),
        ("arrival_s,input_tokens,output_tokens\n0,x,1\n", "line 2"),
        ("arrival_s,input_tokens,output_tokens\n0,1,1\n1,1\n", "line 3"),
        ("arrival_s,input_tokens,output_tokens\nnan,1,1\n", "line 2"),
        ("arrival_s,input_tokens,output_tokens\n0,-5,1\n", "line 2"),
    ],
)
def test_a_trace_that_can_not_be_read_says_where(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=said):
        read_trace(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"rate": 2, "concurrency": [1, 4]},
        {"arrival": "closed", "rate": 2},
        {"arrival": "burst", "rate": 2},
        {"arrival": "poisson", "rate": 2, "burst_size": 3},
        {"concurrency": 2, "max_concurrency": 3},
        {"trace": "x.csv", "input_tokens": {"mean": 5, "cv": 1}},
        {"arrival": {"process": "burst", "sise": 3}, "rate": 1},
    ],
)
def test_loads_that_contradict_themselves_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        Workload.from_plain(fields)


def test_a_link_carries_spread_loads() -> None:
    load = {"input_tokens": {"mean": 512, "cv": 1}, "rate": 2, "arrival": {"process": "burst", "size": 4}}
    made = Workload.from_plain({**load, "slo": {"ttft": 0.5}, "concurrency": 16})
    assert read_link(link_of(Deployment.of("guide"), made))[1] == made


def test_this_machine_plans_plain_loads_only() -> None:
    with pytest.raises(InvalidInputError, match="named accelerator"):
        plan("guide", {"input_tokens": {"mean": 30, "cv": 1}, "concurrency": 2})
