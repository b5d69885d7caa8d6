import math
import statistics
from typing import Any

import pytest

from servolt.model import Model
from servolt.plan import Constants
from servolt.plan.simulation import Outcome, simulate
from servolt.plan.speed import Law, law_of
from servolt.workload import LoadPoint, Workload


@pytest.fixture
def law(llama_100m: Model, constants: Constants) -> Law:
    return law_of(constants, llama_100m, threads=1, kv_bytes_per_token=12288, ubatch=512)


def played(
    law: Law,
    *,
    slots: int = 4,
    apart: bool = False,
    rate: float | None = None,
    streams: int | None = None,
    arrival: str | None = None,
    **load: float,
) -> Outcome:
    arrival = arrival or ("poisson" if rate else "closed")
    workload = Workload.model_validate(
        {"arrival": arrival, "request_rate": (rate,) if rate else (), "concurrency": (streams or 1,), **load}
    )
    outcome = simulate(law, workload, LoadPoint(streams, rate), slots=slots, batch_tokens=2048, apart=apart)
    assert outcome is not None
    return outcome


def test_one_stream_waits_for_nobody(law: Law) -> None:
    found = played(law, streams=1, input_len=64, output_len=33)
    assert found.tpot_mean is not None
    assert found.ttft_p50 == pytest.approx(law.constants.request_s + law.prefill_s(64))
    assert found.tpot_p50 == pytest.approx(law.decode_s(1, 64 + 33 / 2), rel=0.01)
    assert found.e2el_mean == pytest.approx(found.ttft_mean + 32 * found.tpot_mean)
    assert found.prefill_throughput == pytest.approx(64 / law.prefill_s(64))
    assert found.decode_throughput == pytest.approx(1 / law.decode_s(1, 64 + 16))


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("streams", [1, 2, 4, 16])
def test_a_closed_loop_keeps_little_s_law(law: Law, streams: int, apart: bool) -> None:
    found = played(law, streams=streams, input_len=64, output_len=64, apart=apart)
    assert found.request_throughput * found.e2el_mean == pytest.approx(streams, rel=0.1)
    assert found.output_throughput == pytest.approx(64 * found.request_throughput)


def test_streams_in_step_share_one_long_prefill_and_streams_apart_interrupt_each_other(law: Law) -> None:
    together, apart = (played(law, streams=4, apart=apart) for apart in (False, True))
    assert together.ttft_p50 > 1.5 * apart.ttft_p50
    assert (together.tpot_p50 or 0) < (apart.tpot_p50 or 0)
    assert (apart.prefill_throughput or 0) > 1.3 * (together.prefill_throughput or math.inf)


def test_streams_beyond_the_slots_wait_and_add_no_throughput(law: Law) -> None:
    full, over = played(law, streams=4), played(law, streams=12)
    assert over.ttft_p50 > 2 * full.ttft_p50
    assert over.output_throughput == pytest.approx(full.output_throughput, rel=0.3)
    assert played(law, streams=12, slots=12).ttft_p50 < over.ttft_p50


def test_thousands_of_streams_are_answered_at_once_by_little_s_law(law: Law) -> None:
    found = played(law, streams=4000)
    assert found.request_throughput * found.e2el_mean == pytest.approx(4000, rel=0.1)


def test_a_slow_open_loop_is_served_as_if_alone_and_a_fast_one_queues(law: Law) -> None:
    alone = played(law, streams=1)
    slow, fast = played(law, rate=0.01), played(law, rate=100.0)
    assert slow.ttft_p50 == pytest.approx(alone.ttft_p50, rel=0.01)
    assert fast.ttft_p50 > 10 * alone.ttft_p50
    assert slow.request_throughput == pytest.approx(0.01, rel=0.2)


def test_one_slot_with_random_arrivals_is_the_queue_of_the_textbooks(law: Law) -> None:
    """M/D/1: a request that takes S waits rho S / (2 (1 - rho)) on average (Pollaczek and Khinchine)."""
    load: dict[str, Any] = {"input_len": 256, "output_len": 1, "slots": 1}
    alone_s = played(law, streams=1, **load).ttft_mean - law.constants.request_s
    for rho in (0.2, 0.5, 0.7):
        seen = [played(law, rate=rho / alone_s, seed=seed, **load).ttft_mean for seed in range(30)]
        waited_s = statistics.fmean(seen) - law.constants.request_s - alone_s
        assert waited_s == pytest.approx(rho * alone_s / (2 * (1 - rho)), rel=0.2)


def test_evenly_spaced_requests_wait_for_nobody_and_bursts_for_half_of_their_own(law: Law) -> None:
    load: dict[str, Any] = {"input_len": 256, "output_len": 1, "slots": 1}
    alone_s = played(law, streams=1, **load).ttft_mean - law.constants.request_s
    even = played(law, rate=0.3 / alone_s, arrival="constant", **load).ttft_mean
    load |= {"rate": 0.02 / alone_s, "arrival": "burst", "burst_size": 8}
    bursts = statistics.fmean(played(law, seed=seed, **load).ttft_mean for seed in range(20))
    assert even == pytest.approx(alone_s + law.constants.request_s, rel=0.01)
    assert bursts - even == pytest.approx(3.5 * alone_s, rel=0.05)


def test_arrivals_more_random_than_poisson_wait_longer(law: Law) -> None:
    load: dict[str, Any] = {"input_len": 256, "output_len": 1, "slots": 1}
    load["rate"] = 0.5 / law.prefill_s(256)
    smooth, rough = (played(law, arrival="gamma", arrival_cv=cv, **load) for cv in (0.2, 3.0))
    assert smooth.ttft_mean < played(law, **load).ttft_mean < rough.ttft_mean


def test_the_same_seed_gives_the_same_answer(law: Law) -> None:
    assert played(law, rate=3.0) == played(law, rate=3.0)
    assert played(law, rate=3.0, seed=2) != played(law, rate=3.0)


def test_a_prompt_longer_than_a_step_takes_several(law: Law) -> None:
    found = played(law, streams=1, input_len=5000, output_len=8)
    assert found.ttft_p50 > law.prefill_s(2048) * 5000 / 2048


def test_a_load_of_too_many_steps_has_no_answer_rather_than_a_wrong_one(law: Law) -> None:
    endless = Workload(concurrency=(1,), input_len=2**20, output_len=1)
    assert simulate(law, endless, LoadPoint(1, None), slots=1, batch_tokens=16, apart=False) is None
