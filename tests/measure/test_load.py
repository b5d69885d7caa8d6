"""The load client against servers that do what servers do: close, refuse, reset, stall, bundle."""

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from servolt.errors import EngineError, InvalidInputError
from servolt.measure import LoadClient, Place, RawWindow, Target, measure_window
from servolt.meters.replay import ReplayMeter
from servolt.workload import Workload

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
GAP_S = 0.005


def chunk(fields: dict[str, Any]) -> bytes:
    data = f"data: {json.dumps(fields)}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(data), data)


def tokens(count: int, grown: int | None) -> bytes:
    event: dict[str, Any] = {"choices": [{"text": "ab", "finish_reason": None}]}
    if grown is not None:
        event["usage"] = {"prompt_tokens": 64, "completion_tokens": count}
    return chunk(event)


def last(count: int) -> bytes:
    usage = {"prompt_tokens": 64, "completion_tokens": count}
    return chunk({"choices": [{"text": "", "finish_reason": "length"}], "usage": usage})


async def good(number: int, body: dict[str, Any], writer: asyncio.StreamWriter, per_event: int = 1) -> None:
    """`max_tokens` tokens, GAP_S apart, then the totals; the connection stays open."""
    writer.write(HEAD)
    for count in range(per_event, body["max_tokens"] + 1, per_event):
        await asyncio.sleep(GAP_S)
        writer.write(tokens(count, count))
    writer.write(last(body["max_tokens"]) + END)


def measure(serve: Any, answer: Any, **fields: Any) -> RawWindow:
    settings: dict[str, Any] = {"concurrency": (2,), "output_len": 8, "duration_s": 0.5, "warmup_requests": 1} | fields
    workload = Workload(**settings)

    async def run() -> RawWindow:
        async with serve(answer) as url, LoadClient() as client:
            target = Target(url, "m", vocab_size=2048)
            return await measure_window(
                target, workload, workload.points[0], Place(0, 0, 0, 0), client=client, meter=None, origin_ns=0
            )

    return asyncio.run(run())


def outcomes(raw: RawWindow) -> dict[str, int]:
    names, counts = np.unique(raw.requests["outcome"].astype(str), return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def test_a_closed_loop_keeps_its_streams_busy_and_cuts_them_at_the_end(serve: Any) -> None:
    raw = measure(serve, good)
    found = outcomes(raw)
    assert set(found) == {"completed", "cancelled"}
    assert found["cancelled"] <= 2
    complete = raw.requests["outcome"] == "completed"
    timed = complete & (raw.requests["s_ns"] >= raw.window.start_ns)
    assert set(raw.requests["n_out"][timed].tolist()) == {8}
    assert set(raw.requests["events"][timed].tolist()) == {8}
    assert raw.events["tokens"].sum() >= 8 * timed.sum()


def test_warm_up_requests_end_one_after_another(serve: Any) -> None:
    raw = measure(serve, good, concurrency=(4,))
    warm = raw.requests["i"] < 0
    assert sorted(raw.requests["n_out"][warm].tolist()) == [2, 4, 6, 8]


def test_an_open_loop_sends_on_time_whatever_the_server_does(serve: Any) -> None:
    async def stall(number: int, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if number == 10:
            await asyncio.sleep(0.2)
        await good(number, body, writer)

    raw = measure(serve, stall, arrival="constant", request_rate=(50.0,), output_len=2)
    assert set(outcomes(raw)) == {"completed"}
    gaps = np.diff(np.sort(raw.requests["s_ns"]))
    assert set(gaps.tolist()) == {20_000_000}
    lags = (raw.requests["d_ns"] - raw.requests["s_ns"]) / 1e6
    assert float(np.median(lags.compressed())) < 5
    late = (raw.requests["c1_ns"] - raw.requests["s_ns"]) / 1e9
    assert late.max() >= 0.2


def test_a_reset_midway_is_a_failure_that_keeps_its_tokens(serve: Any) -> None:
    async def reset(number: int, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if number < 3:
            await good(number, body, writer)
            return
        writer.write(HEAD + tokens(1, 1) + tokens(2, 2))
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.transport.abort()

    raw = measure(serve, reset)
    failed = raw.requests["outcome"] == "failed"
    assert failed.sum() > 3
    assert set(raw.requests["events"][failed].tolist()) == {2}


def test_a_refusal_is_told_from_a_failure_and_is_not_repeated_without_pause(serve: Any) -> None:
    async def full(number: int, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if number < 3:
            await good(number, body, writer)
            return
        writer.write(b'HTTP/1.1 503 Service Unavailable\r\nContent-Length: 22\r\n\r\n{"error":{"code":503}}')

    raw = measure(serve, full)
    found = outcomes(raw)
    assert 2 <= found["refused"] <= 2 * 0.7 / 0.05
    refused = raw.requests["outcome"] == "refused"
    assert set(raw.requests["http_status"][refused].tolist()) == {503}


def test_several_tokens_in_one_event_are_counted_as_such(serve: Any) -> None:
    async def bundled(number: int, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        await good(number, body, writer, per_event=4)

    raw = measure(serve, bundled, warmup_requests=0)
    assert set(raw.events["tokens"].tolist()) == {4}


def test_a_server_that_closes_after_each_answer_loses_no_request(serve: Any) -> None:
    async def closing(number: int, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        await good(number, body, writer)
        await writer.drain()
        writer.close()

    assert set(outcomes(measure(serve, closing))) == {"completed", "cancelled"}


def test_two_workers_share_the_requests_and_send_none_twice(serve: Any) -> None:
    async def run() -> list[set[int]]:
        workload = Workload(concurrency=(3,), output_len=4, warmup_requests=3)
        async with serve(good) as url, LoadClient() as client:
            await client.begin(
                url, None, workload, workload.points[0],
                repetition=0, model="m", vocab_size=2048, workers=2, warm_within_s=30.0,
            )  # fmt: skip
            await asyncio.sleep(0.2)
            return [set(record.requests[:, 0].tolist()) for record in await client.end(time.monotonic_ns(), 0.0)]

    first, second = asyncio.run(run())
    assert first.isdisjoint(second)
    assert min(len(first), len(second)) >= 3
    assert {-1, -2, -3} <= first | second


def test_a_client_serves_one_window_after_another(serve: Any) -> None:
    async def run() -> None:
        workload = Workload(concurrency=(1,), output_len=4, duration_s=0.1, warmup_requests=1)
        async with serve(good) as url, LoadClient() as client:
            pids = set()
            for repetition in range(3):
                target, place = Target(url, "m", vocab_size=2048), Place(repetition, repetition, 0, 0)
                window = asyncio.create_task(
                    measure_window(target, workload, workload.points[0], place, client=client, meter=None, origin_ns=0)
                )
                while not window.done():
                    pids |= set(client.pids)
                    await asyncio.sleep(0.01)
                assert outcomes(window.result())["completed"] > 1
            assert len(pids) == 1

    asyncio.run(run())


def test_a_worker_that_dies_while_it_hands_over_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    dying = (
        'import sys, os; sys.stdin.readline(); print(\'{"event": "warm", "failure": null}\', flush=True);'
        'sys.stdin.readline(); print(\'{"requests": 9, "events": 9, "words": []}\', flush=True); os._exit(7)'
    )
    start = asyncio.create_subprocess_exec

    async def started(program: str, *_: str, **pipes: Any) -> asyncio.subprocess.Process:
        return await start(program, "-c", dying, **pipes)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", started)

    async def run() -> None:
        workload = Workload(concurrency=(1,))
        async with LoadClient() as client:
            await client.begin(
                "http://127.0.0.1:9", None, workload, workload.points[0],
                repetition=0, model="m", vocab_size=None, workers=1, warm_within_s=30.0,
            )  # fmt: skip
            await client.end(time.monotonic_ns(), 0.0)

    with pytest.raises(EngineError, match="ended with code 7 while it handed over") as died:
        asyncio.run(run())
    assert died.value.remedy


def test_processor_time_that_can_not_be_read_is_unknown_and_not_0(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servolt.host.ProcessTree.cpu_s", lambda tree: None)
    window = measure(serve, good, duration_s=0.1).window
    assert (window.client_cpu_s, window.client_busiest_cpu_s, window.foreign_cpu_s) == (None, None, None)


def test_a_device_read_at_one_edge_only_leaves_the_window_without_joules(serve: Any) -> None:
    class Reset(ReplayMeter):
        readings = 0

        def read(self) -> Mapping[str, float]:
            self.readings += 1
            both = {"package-0": float(self.readings), "package-1": float(self.readings)}
            return both if self.readings < 4 else {"package-1": both["package-1"]}

    async def run() -> RawWindow:
        workload = Workload(concurrency=(1,), output_len=8, duration_s=0.1, warmup_requests=1)
        async with serve(good) as url, LoadClient() as client:
            target, place = Target(url, "m", vocab_size=2048), Place(0, 0, 0, 0)
            return await measure_window(
                target, workload, workload.points[0], place, client=client, meter=Reset(), origin_ns=0
            )

    assert asyncio.run(run()).window.joules is None


def test_a_failing_warm_up_says_the_servers_words(serve: Any) -> None:
    async def refuse(number: int, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        text = b'{"error":{"message":"context too small"}}'
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))

    with pytest.raises(EngineError, match="context too small"):
        measure(serve, refuse)


def _begin(url: str, warm_within_s: float) -> None:
    workload = Workload(concurrency=(1,))

    async def run() -> None:
        async with LoadClient() as client:
            await client.begin(
                url, None, workload, workload.points[0],
                repetition=0, model="m", vocab_size=None, workers=1, warm_within_s=warm_within_s,
            )  # fmt: skip

    asyncio.run(run())


def test_a_server_that_is_not_there_is_an_error() -> None:
    with pytest.raises(EngineError, match="refused"):
        _begin("http://127.0.0.1:9", 30.0)


def test_an_address_that_it_cannot_ask_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="without TLS"):
        _begin("https://example.org", 1.0)


def test_a_server_that_never_answers_is_given_up(serve: Any) -> None:
    async def silent(number: int, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(5)

    async def run() -> None:
        workload = Workload(concurrency=(1,))
        async with serve(silent) as url, LoadClient() as client:
            await client.begin(
                url, None, workload, workload.points[0],
                repetition=0, model="m", vocab_size=None, workers=1, warm_within_s=0.8,
            )  # fmt: skip

    with pytest.raises(EngineError, match="warm-up did not end"):
        asyncio.run(run())
