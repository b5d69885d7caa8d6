"""The whole way, from the wire to the result, against the replay engine's stated law."""

import asyncio
import subprocess
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from servolt import registry
from servolt.deployment import Deployment
from servolt.engines.replay_law import Law
from servolt.host import host_facts
from servolt.measure import LoadClient, Place, RawRun, RawWindow, Target, joined, measure_window, measurement_of
from servolt.measurement import Measurement
from servolt.meters.replay import ReplayMeter
from servolt.sources import find_model
from servolt.workload import Workload

LAW = Law(step_s=0.006, step_s_per_sequence=0.002, prefill_s_per_token=0.0004)
DEPLOYMENT = Deployment(
    model="replay?step_s=0.006&step_s_per_sequence=0.002&prefill_s_per_token=0.0004", engine="replay", max_num_seqs=8
)


@pytest.fixture(scope="module")
def replay() -> Iterator[tuple[Target, subprocess.Popen[bytes]]]:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    engine, model = registry.engine("replay"), find_model(DEPLOYMENT)
    command = engine.command(DEPLOYMENT, model).at(port)
    with subprocess.Popen(command.argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        url = f"http://127.0.0.1:{port}"
        yield Target(url, "replay", None, process.pid, model.vocab_size, command.metrics_path, engine.readings), process
        process.terminate()


def _measured(target: Target, workload: Workload, meter: Any = None) -> Measurement:
    async def run() -> Measurement:
        origin_ns = time.monotonic_ns()
        raws: list[RawWindow] = []
        async with LoadClient() as client:
            for repetition in range(workload.repetitions):
                for point in workload.points:
                    place = Place(len(raws), repetition, repetition, 0)
                    raws.append(
                        await measure_window(
                            target, workload, point, place, client=client, meter=meter, origin_ns=origin_ns
                        )
                    )
        return measurement_of(
            RawRun(
                tool_version="0", created="2026-11-20T19:03:04Z", deployment=DEPLOYMENT, engine="replay",
                engine_version="1", model=None, host=host_facts(), workload=workload, meter_note="no meter",
                meter={"kind": "model", "period_s": meter.period_s} if meter else None,
                windows=tuple(raw.window for raw in raws),
            ),
            joined([raw.requests for raw in raws]),
            joined([raw.events for raw in raws]),
            (),
        )  # fmt: skip

    return asyncio.run(run())


def _value(measurement: Measurement, metric: str, statistic: str | None = None) -> float:
    found = next(one for one in measurement.results if one.metric == metric and statistic in (None, one.statistic))
    assert found.value is not None, found.reason
    return found.value


def test_one_stream_comes_back_as_the_law_says(replay: tuple[Target, Any]) -> None:
    workload = Workload(concurrency=(1,), input_len=50, output_len=10, duration_s=1.5)
    measurement = _measured(replay[0], workload)
    # medians: another program on the machine delays single tokens, the law has no part in that
    assert _value(measurement, "itl", "p50") == pytest.approx(LAW.step(1), rel=0.15)
    assert _value(measurement, "ttft_service", "p50") == pytest.approx(LAW.prefill(50), rel=0.3)
    assert _value(measurement, "prefill_throughput") == pytest.approx(1 / LAW.prefill_s_per_token, rel=0.02)
    assert _value(measurement, "decode_throughput") == pytest.approx(LAW.throughput(1), rel=0.15)
    window = measurement.windows[0]
    assert window.engine_counters["output_tokens"] == pytest.approx(
        window.metrics["output_throughput"] * (window.end_ns - window.start_ns) / 1e9, abs=12
    )
    assert window.engine_cpu_s is not None
    assert window.resident_bytes is not None
    assert not {flag.code for flag in measurement.validity.flags} & {
        "token_count_mismatch", "lengths_missed", "bundled_tokens", "cache_contaminated", "failed_requests",
    }  # fmt: skip


def test_streams_side_by_side_do_too(replay: tuple[Target, Any]) -> None:
    workload = Workload(concurrency=(4,), input_len=20, output_len=20, duration_s=1.5)
    measurement = _measured(replay[0], workload)
    assert _value(measurement, "itl", "p50") == pytest.approx(LAW.step(4), rel=0.15)
    assert _value(measurement, "output_throughput") < LAW.throughput(4)


def test_an_open_loop_offers_its_rate(replay: tuple[Target, Any]) -> None:
    workload = Workload(arrival="poisson", request_rate=(8.0,), input_len=20, output_len=5, duration_s=1.5)
    measurement = _measured(replay[0], workload)
    assert "rate_missed" not in {flag.code for flag in measurement.validity.flags}
    assert _value(measurement, "failed_share") == 0.0


def test_joules_are_those_of_the_window(replay: tuple[Target, Any]) -> None:
    meter = ReplayMeter(idle_w=20.0, period_s=0.02)
    measurement = _measured(replay[0], Workload(concurrency=(1,), duration_s=0.6, output_len=8), meter)
    window = measurement.windows[0]
    assert window.joules is not None
    # edges stand at the counter's ticks, so its step of 0.4 J is hardly seen
    assert window.joules["replay-0"] == pytest.approx(20.0 * (window.end_ns - window.start_ns) / 1e9, abs=0.21)
    energy = next(one for one in measurement.results if one.metric == "energy_per_output_token")
    assert energy.basis == "estimated"


def test_an_engine_that_dies_in_the_window_leaves_failures_and_no_crash(replay: tuple[Target, Any]) -> None:
    target, process = replay

    class Killer(ReplayMeter):
        """Read at the window's edges, so it knows when the window has begun."""

        def read(self) -> Mapping[str, float]:
            process.kill()
            return super().read()

    async def run() -> set[str]:
        workload = Workload(concurrency=(2,), output_len=50, duration_s=0.5)
        async with LoadClient() as client:
            place = Place(0, 0, 0, 0)
            raw = await measure_window(
                target, workload, workload.points[0], place, client=client, meter=Killer(), origin_ns=0
            )
        return set(raw.requests["outcome"].tolist())

    assert "failed" in asyncio.run(run())
