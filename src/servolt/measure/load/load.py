"""The load of one worker: requests in a closed or an open loop, until told to stop.

It sends, stamps and reads, and judges nothing.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, islice

from servolt.measure.load.connection import Connection
from servolt.measure.load.schedule import Schedule
from servolt.measure.load.stream import Response

__all__ = ["Address", "Load", "Request"]

BACK_OFF_S = 0.05  # after a failure in a closed loop, so that a dead server is not asked a million times
AIM_EARLY_S = 0.002  # loop timers have steps of 1 ms: wake before the deadline and turn the loop until it


@dataclass(frozen=True)
class Address:
    """Where the requests go."""

    host: str
    port: int
    path: str
    api_key: str | None = field(repr=False)
    family: int
    resolved: tuple[str, int]

    def head(self, length: int) -> bytes:
        key = f"Authorization: Bearer {self.api_key}\r\n" if self.api_key else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (
            f"POST {self.path} HTTP/1.1\r\nHost: {host}:{self.port}\r\n{key}Content-Type: application/json\r\n"
            f"Accept: text/event-stream\r\nContent-Length: {length}\r\n\r\n"
        ).encode()


@dataclass(eq=False)
class Request:
    """Times are CLOCK_MONOTONIC in ns."""

    index: int
    body: bytes
    scheduled_ns: int
    sent_ns: int | None = None
    end_ns: int | None = None
    outcome: str | None = None
    on_used_connection: bool = False
    response: Response = field(default_factory=Response)
    lags: list[int | None] = field(default_factory=list)


class Load:
    """`share` is (this worker, workers): a worker takes every workers-th request, so none waits for another's queue."""

    def __init__(
        self, schedule: Schedule, address: Address, share: tuple[int, int], on_warm: Callable[[], None]
    ) -> None:
        self.requests: list[Request] = []
        self.failure: str | None = None  # why warm-up can't succeed
        self._schedule, self._address, self._on_warm = schedule, address, on_warm
        self._worker, self._workers = share
        self._loop = asyncio.get_running_loop()
        self._idle: list[Connection] = []
        self._busy: dict[Connection, Request] = {}
        self._opening: set[asyncio.Task[None]] = set()
        self._end_ns: int | None = None
        self._drained = asyncio.Event()
        self._warm = False
        self._keep_alive = True
        self._running = 0
        self._ended = 0
        self._indices = count(self._worker, self._workers)
        self._pacing: asyncio.Task[None] | None = None
        self._slots = len(range(self._worker, schedule.point.concurrency or 0, self._workers))
        self._warmups = self._share_of_warmup()
        self._warmups_launched = 0

    def start(self) -> None:
        if self._schedule.point.request_rate is None:
            now_ns = time.monotonic_ns()
            for _ in range(self._slots):
                self._launch_next(now_ns)
        else:
            self._pacing = asyncio.create_task(self._pace(time.monotonic_ns()))
        self._check_warm()

    async def stop(self, end_ns: int, drain_s: float) -> None:
        """Nothing is scheduled from `end_ns` on. After `drain_s` what still runs is cancelled, and marked so."""
        self._end_ns = end_ns
        if self._pacing is not None:
            self._pacing.cancel()
        if drain_s > 0 and self._running:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._drained.wait(), drain_s)
        opening = list(self._opening)
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        for connection, request in list(self._busy.items()):
            self._end(connection, request, time.monotonic_ns(), "cancelled")
        for connection in self._idle:
            connection.close()
        await asyncio.sleep(0)  # lets the cancelled ones close, so that the server stops its work on them

    def _share_of_warmup(self) -> int:
        """A closed loop's warm-up gives every stream at least one request; 0 stays 0."""
        asked = self._schedule.workload.warmup_requests
        return max(self._slots, -(-asked // self._workers)) if asked else 0

    async def _pace(self, origin_ns: int) -> None:
        """Open loop: each request at its own time, however many are still running."""
        ahead = islice(self._schedule.arrivals_ns(), self._worker, None, self._workers)
        warmups = self._schedule.workload.warmup_requests
        for index, arrival_ns in zip(self._indices, ahead, strict=False):
            body = self._schedule.body(index - warmups)
            due_ns = origin_ns + arrival_ns
            await asyncio.sleep(max(0.0, (due_ns - time.monotonic_ns()) / 1e9 - AIM_EARLY_S))
            while time.monotonic_ns() < due_ns:  # noqa: ASYNC110 - the clock sets no event; sockets are read meanwhile
                await asyncio.sleep(0)
            self._launch(Request(index - warmups, body, due_ns))

    def _launch_next(self, now_ns: int) -> None:
        """Closed loop: the stream that became free at `now_ns` takes the next request."""
        if self._end_ns is not None:
            return
        if self._warmups_launched < self._warmups:
            place = self._warmups_launched * self._workers + self._worker
            self._warmups_launched += 1
            request = Request(-1 - place, self._schedule.body(-1 - place, self._staggered(place)), now_ns)
        else:
            index = next(self._indices)
            request = Request(index, self._schedule.body(index), now_ns)
        self._launch(request)

    def _staggered(self, place: int) -> int:
        """First requests end one after another, so that the streams don't march in step and prefill all at once."""
        streams, output_len = self._schedule.point.concurrency or 1, self._schedule.workload.output_len
        return max(1, round(output_len * (place % streams + 1) / streams))

    def _launch(self, request: Request) -> None:
        self._running += 1
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                request.on_used_connection = True
                self._send(connection, request)
                return
        self._launch_anew(request)

    def _open_ahead(self) -> None:
        """A stream is about to end: what follows it finds its connection open."""
        if self._idle or self._end_ns is not None:
            return
        connection = Connection(self._received)
        with suppress(OSError):  # the request itself will say so
            if connection.open(self._address.family, self._address.resolved):
                self._idle.append(connection)
                return
        connection.close()

    def _launch_anew(self, request: Request) -> None:
        request.on_used_connection = False
        connection = Connection(self._received)
        try:
            is_open = connection.open(self._address.family, self._address.resolved)
        except OSError as error:
            self._unreachable(connection, request, error)
            return
        if is_open:
            self._send(connection, request)
        else:
            task = self._loop.create_task(self._wait_and_send(connection, request))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _wait_and_send(self, connection: Connection, request: Request) -> None:
        try:
            await connection.opened()
        except OSError as error:
            self._unreachable(connection, request, error)
        except asyncio.CancelledError:
            connection.close()
            self._over(request, time.monotonic_ns(), "cancelled")
            raise
        else:
            self._send(connection, request)

    def _unreachable(self, connection: Connection, request: Request, error: OSError) -> None:
        connection.close()
        self._over(request, time.monotonic_ns(), "failed", error.strerror or str(error))

    def _send(self, connection: Connection, request: Request) -> None:
        self._busy[connection] = request
        data = self._address.head(len(request.body)) + request.body
        request.sent_ns = time.monotonic_ns()
        connection.send(data)

    def _received(self, connection: Connection, t_ns: int, lag_ns: int | None, data: bytes) -> None:
        request = self._busy.get(connection)
        if request is None:
            return
        response = request.response
        if data:
            response.feed(t_ns, data)
        else:
            response.end_of_input()
        request.lags += [lag_ns] * (len(response.times) - len(request.lags))
        if response.finished and not response.done and not self._keep_alive and self._slots:
            self._open_ahead()
        if response.done or response.broken:
            self._end(connection, request, t_ns, _outcome(response))
        elif not data and response.status is None and request.on_used_connection:
            # The server had closed it though it said it would not (llama.cpp does after each stream): not this
            # request's fault, and a reason to begin the next ones on connections of their own.
            self._keep_alive = False
            del self._busy[connection]
            self._launch_anew(request)
        elif not data:
            self._end(connection, request, t_ns, "failed")

    def _end(self, connection: Connection, request: Request, t_ns: int, outcome: str) -> None:
        del self._busy[connection]
        if request.response.done and request.response.keep_alive and self._keep_alive and outcome != "cancelled":
            self._idle.append(connection)
        else:
            self._loop.call_soon(connection.close)  # after the stream's next request has left
        self._over(request, t_ns, outcome)

    def _over(self, request: Request, t_ns: int, outcome: str, words: str | None = None) -> None:
        request.end_ns, request.outcome = t_ns, outcome
        request.body = b""
        self.requests.append(request)
        if outcome in ("failed", "refused") and not self._warm:
            self.failure = words or request.response.error or request.response.broken or "the connection ended"
        self._running -= 1
        self._ended += 1
        self._check_warm()
        if self._end_ns is not None:
            if not self._running:
                self._drained.set()
        elif self._schedule.point.request_rate is None:
            if outcome == "completed":
                self._launch_next(t_ns)
            else:
                self._loop.call_later(BACK_OFF_S, self._launch_late)

    def _launch_late(self) -> None:
        self._launch_next(time.monotonic_ns())

    def _check_warm(self) -> None:
        if not self._warm and (self.failure is not None or self._ended >= self._warmups):
            self._warm = True
            self._on_warm()


def _outcome(response: Response) -> str:
    if response.status in (429, 503):
        return "refused"
    good = response.status == 200 and response.finished and not response.error and not response.broken
    return "completed" if good else "failed"
