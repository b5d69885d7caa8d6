"""The steady state of a closed loop."""

import pytest

from servolt.plan.steady import Saturation, at_request_rate, load_time_s, saturation, steady
from servolt.workload import Slo
from tests.plan.test_roofline import MIXTURE, law

LOAD = {"input_len": 1024.0, "output_len": 512.0}


@pytest.mark.parametrize("concurrency", [1, 7, 64, 500])
def test_littles_law_holds(concurrency: int) -> None:
    found = steady(law(), concurrency=concurrency, kv_cache_tokens=100_000, **LOAD)
    e2el = found.ttft + (LOAD["output_len"] - 1) * found.tpot
    assert found.output_throughput == pytest.approx(concurrency * LOAD["output_len"] / e2el)


def test_a_lone_request_waits_for_nobody() -> None:
    found = steady(law(), concurrency=1, **LOAD)
    assert found.waiting_s == 0
    assert found.tpot == found.itl == law().decode_s(1, 1280)


def test_what_does_not_fit_waits_and_adds_no_throughput() -> None:
    full, more = (steady(law(), concurrency=n, kv_cache_tokens=1280 * 16, **LOAD) for n in (16, 64))
    assert more.running == pytest.approx(16)
    assert more.bottleneck == "kv_capacity"
    assert more.output_throughput == pytest.approx(full.output_throughput)
    assert more.ttft > full.ttft


def test_saturation_names_what_ends_first() -> None:
    def ends(most: float, slo: Slo | None = None) -> Saturation:
        return saturation(law(), input_len=1024, output_len=512, kv_cache_tokens=128_000, max_num_seqs=most, slo=slo)

    assert ends(256) == (100, "kv_capacity")
    assert ends(64) == (64, "batch_limit")
    tight = Slo(tpot=steady(law(), concurrency=50, **LOAD).tpot)
    assert ends(256, tight).limit == "slo"
    assert ends(256, tight).concurrency == pytest.approx(50, rel=1e-3)


def test_at_a_request_rate_requests_leave_as_fast_as_they_come() -> None:
    found = at_request_rate(law(MIXTURE), request_rate=2.0, kv_cache_tokens=400_000, **LOAD)
    assert found is not None
    assert found.request_throughput == pytest.approx(2.0, rel=1e-3)
    assert at_request_rate(law(MIXTURE), request_rate=1e5, kv_cache_tokens=400_000, **LOAD) is None


def test_loading_takes_as_long_as_the_drive_needs() -> None:
    assert load_time_s("llamacpp", 10e9, storage_bytes_per_s=1e9) > 10


def test_prompts_of_others_fall_before_the_first_token_or_between_the_others_but_not_twice() -> None:
    """In one generation of a closed loop a stream meets each other stream's prompt at most once."""
    one, found = law(), steady(law(), concurrency=32, **LOAD)
    prompts_s = 31 * one.prompt_s(LOAD["input_len"])
    between_s = (found.tpot - found.itl) * LOAD["output_len"]
    assert 0 < between_s < one.constants.interference * prompts_s


def test_a_first_token_waits_longer_the_less_the_others_decode() -> None:
    """Where prompts are all that is done, one waits for half of the other streams; where they are few, for none."""
    prompt_s = law().prompt_s(1024)
    idle, full = (steady(law(), input_len=1024, output_len=n, concurrency=64) for n in (4096, 2))
    queue_s = law().constants.queue * 63 * prompt_s
    alone_s = law().constants.request_s + law().prefill_s(1024)
    assert idle.ttft - idle.itl - alone_s - queue_s < prompt_s
    assert 0.3 * 64 * prompt_s < full.ttft - full.itl - alone_s - queue_s < 0.5 * 64 * prompt_s
