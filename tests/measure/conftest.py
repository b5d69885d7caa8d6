"""A server whose answers a test writes itself, and runs whose truth is known."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from servolt.deployment import Deployment
from servolt.measure import RawRun, joined, measurement_of
from servolt.measure.load.client import LoadRecord
from servolt.measure.load.columns import REQUEST_COLUMNS, UNKNOWN
from servolt.measure.tables import events_table, requests_table
from servolt.measurement import Host, Measurement, Window
from servolt.results import Table
from servolt.workload import Workload

Answer = Callable[[int, dict[str, Any], asyncio.StreamWriter], Awaitable[None]]
Serve = Callable[[Answer], AbstractAsyncContextManager[str]]


@pytest.fixture(scope="session")
def serve() -> Serve:
    """`async with serve(answer) as url`: `answer(number, body, writer)` is called for each request."""
    return _serve


@asynccontextmanager
async def _serve(answer: Answer) -> AsyncIterator[str]:
    numbers = itertools.count()
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                body = json.loads(await reader.readexactly(length))
                await answer(next(numbers), body, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client left, or the test is over
        finally:
            writer.transport.abort()
            tasks.discard(task)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=2048)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.sleep(0.01)  # aborted transports close in the loop's next turn


@dataclass
class Made:
    """A made-up run of known truth: requests back to back in a closed loop, or at even distances in an open one."""

    windows: int = 4
    requests: int = 20
    ttft_s: float = 0.1
    gap_s: float = 0.01
    n_in: int = 64
    n_out: int = 11
    lag_s: float = 0.0001
    outcome: str = "completed"
    tokens_per_event: int = 1
    running_count: bool = True
    rate: float | None = None
    window: dict[str, Any] = field(default_factory=dict)
    request: dict[str, int] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    cut: int = 0  # of each window's requests, the last so many
    idle: tuple[int, ...] = ()  # windows in which no request runs
    windows_differ: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def period_s(self) -> float:
        return 1 / self.rate if self.rate else self.ttft_s + (self.n_out - 1) * self.gap_s

    @property
    def duration_s(self) -> float:
        return self.requests * self.period_s

    def record(self, number: int) -> LoadRecord:
        start_ns = round(number * 2 * self.duration_s * 1e9)
        rows, events = [], []
        for i in range(self.requests):
            s_ns = start_ns + round(i * self.period_s * 1e9)
            times = [
                s_ns + round((self.ttft_s + k * self.gap_s) * 1e9) for k in range(0, self.n_out, self.tokens_per_event)
            ]
            row = {
                "i": i, "s_ns": s_ns, "d_ns": s_ns + round(self.lag_s * 1e9), "e_ns": times[-1], "n_in": self.n_in,
                "n_out": self.n_out, "cached": 0, "prefill_ns": round((self.ttft_s - self.lag_s) * 1e9),
                "decode_ns": UNKNOWN,
                "http_status": 200, "running_count": int(self.running_count), "outcome": 0, "finish_reason": 1,
            } | self.request  # fmt: skip
            rows.append([row[name] for name in REQUEST_COLUMNS])
            left = self.n_out
            for t_ns in times:
                borne = min(left, self.tokens_per_event) if self.running_count else 1
                left -= borne
                events.append([i, t_ns, borne, 40_000])
        for cut in rows[len(rows) - self.cut :]:
            cut[REQUEST_COLUMNS.index("outcome")] = 3
        words = (self.outcome, "length", "stop", "cancelled")
        return LoadRecord(0, np.array(rows, dtype=np.int64), np.array(events, dtype=np.int64), words)

    def at(self, number: int) -> Window:
        start_ns = round(number * 2 * self.duration_s * 1e9)
        end_ns = start_ns + round((self.duration_s + 0.001) * 1e9)
        facts: dict[str, Any] = {
            "engine_cpu_s": 0.5 * self.duration_s,
            "client_busiest_cpu_s": 0.01,
            "foreign_cpu_s": 0.0,
        }
        facts |= {"usable_cores": 2, "resident_bytes": 10**8, "clock_step_ns": 0} | self.window
        facts |= self.windows_differ.get(number, {})
        return Window(
            index=number, repetition=number, block=number, position=0, concurrency=None if self.rate else 1,
            request_rate=self.rate, start_ns=start_ns, end_ns=end_ns, **facts,
        )  # fmt: skip

    def raw(self) -> RawRun:
        load: dict[str, Any] = (
            {"concurrency": (1,)} if self.rate is None else {"arrival": "constant", "request_rate": (self.rate,)}
        )
        facts: dict[str, Any] = {
            "tool_version": "0", "created": "2026-11-20T19:03:04.120Z", "deployment": Deployment(model="guide"),
            "engine": "replay", "engine_version": "1", "model": None, "meter_note": "not measured: no readable counter",
            "host": Host(
                cpu=None, architecture="x", physical_cores=2, usable_cores=2, memory_bytes=1, os="x", kernel="x",
                python="x",
            ),
            "workload": Workload(input_len=64, output_len=self.n_out, repetitions=self.windows, **load),
            "windows": tuple(self.at(number) for number in range(self.windows)),
        }  # fmt: skip
        return RawRun(**(facts | self.run))

    def tables(self) -> dict[str, Table]:
        records = [(number, self.record(number)) for number in range(self.windows) if number not in self.idle]
        return {
            "requests": joined([requests_table([record], number, 0) for number, record in records]),
            "events": joined([events_table([record], number, 0) for number, record in records]),
        }

    def measurement(self) -> Measurement:
        tables = self.tables()
        return measurement_of(self.raw(), tables["requests"], tables["events"], ())


@pytest.fixture(scope="session")
def made() -> type[Made]:
    """Known truth: `made(gap_s=0.02).measurement()`."""
    return Made
