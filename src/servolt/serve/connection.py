"""HTTP/1.1 to one engine on this machine: just what the gateway needs of a client, at a cost it can afford.

A general client, aiohttp 3.14, cost about 100 us of processor time a request more (16 connections that stay open).
"""

import asyncio
import ssl
from typing import cast
from urllib.parse import urlsplit

import httptools

__all__ = ["Connection", "Connections"]

CONNECT_S = 5.0  # the engine is on this machine
SILENCE_S = 300.0  # longest pause: a prefill, or one step of a decode
IDLE_S = 4.0  # llama.cpp closes an idle connection after 5 s; a request must not meet that moment
PROBATION_S = 1.0  # a server that closes after its answer has done so by then
BUFFER_BYTES = 2**18  # what may wait for a slow reader before the engine's socket is no longer read


class Connections:
    """Those to one address. Idle ones are used again.

    llama.cpp closes a connection after each streamed answer and does not say so (xllamacpp 2026.10.11549), so the next
    request would meet the closing. Only once one has stayed open after a stream are such connections used again.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._ssl = ssl.create_default_context() if parts.scheme == "https" else None
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._opening: asyncio.Task[None] | None = None
        self._stays_open: bool | None = None  # after a stream; None until it has been seen
        self._loop = asyncio.get_running_loop()  # asked once: each asking is a system call on Python 3.11

    async def open(self) -> "Connection":
        """Raises OSError (TimeoutError among them) where nobody takes connections."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and self._loop.time() - connection.used_at < IDLE_S:
                return connection
            connection.abort()
        return await self._connect()

    async def _connect(self) -> "Connection":
        async with asyncio.timeout(CONNECT_S):
            _, made = await self._loop.create_connection(self._new, self._host, self._port, ssl=self._ssl)
        return made

    def _new(self) -> "Connection":
        return Connection(self, self._loop)

    def close(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
        for connection in list(self._all):
            connection.abort()

    def made(self, connection: "Connection") -> None:
        self._all.add(connection)

    def free(self, connection: "Connection") -> None:
        if self._stays_open or not connection.streamed:
            self._idle.append(connection)
        elif self._stays_open is None:
            self._loop.call_later(PROBATION_S, self._learn, connection)
        else:
            connection.abort()
            self._spare()

    def _spare(self) -> None:
        """Opens one for the next request, whose first token would wait for it otherwise.

        Under load others are on their way, and opening one beside them costs more than it saves.
        """
        if not self._idle and self._opening is None and len(self._all) <= 1:
            self._opening = self._loop.create_task(self._open_spare())

    async def _open_spare(self) -> None:
        try:
            self._idle.append(await self._connect())
        except OSError:
            return  # the next request finds out by itself
        finally:
            self._opening = None

    def _learn(self, connection: "Connection") -> None:
        if self._stays_open is None:
            self._stays_open = connection.is_open
        connection.abort()

    def lost(self, connection: "Connection") -> None:
        self._all.discard(connection)


class Connection(asyncio.Protocol):
    """One request at a time: `ask`, then `read` until it returns nothing, then `release`."""

    def __init__(self, pool: Connections, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self._loop = loop
        self._waiter: asyncio.Future[None] | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._error: Exception | None = None
        self.is_open = False
        self.streamed = False
        self.used_at = 0.0
        self._paused = False
        self._begin()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.is_open = True
        self.used_at = self._loop.time()
        self._pool.made(self)

    async def ask(self, request: bytes, *, stream: bool = False) -> int:
        """Sends it and returns the status. Raises OSError when the connection is lost."""
        self._begin()
        self.streamed = stream
        self._heard_at = self._loop.time()
        if self._watchdog is None:
            self._watchdog = self._loop.call_later(SILENCE_S, self._watch)
        self._transport.write(request)
        while not self._status:
            await self._more()
        return self._status

    async def read(self) -> bytes:
        """What has arrived of the body, at least one byte; nothing at its end. Raises OSError if it was cut off."""
        while not self._pieces:
            if self._complete:
                return b""
            await self._more()
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._waiting_bytes = 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return data

    async def read_all(self) -> bytes:
        pieces = []
        while data := await self.read():
            pieces.append(data)
        return b"".join(pieces)

    def release(self) -> None:
        """Gives it back, at once or as soon as the last bytes of the body are in."""
        self._released = True
        self._pieces.clear()
        if self._complete:
            self._free()

    def abort(self) -> None:
        """Closes it: the engine stops whatever it was doing for this request."""
        if self.is_open:
            self.is_open = False
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(f"not HTTP: {error}"))
            self.abort()
            return
        self._wake()
        if self._waiting_bytes > BUFFER_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self._watchdog is not None:
            self._watchdog.cancel()
        self._pool.lost(self)
        self._fail(exc or ConnectionResetError("closed by the engine"))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:  # 100 Continue is followed by the real one
            self._status = status
            self._keeps_alive = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        if not self._released:
            self._pieces.append(body)
            self._waiting_bytes += len(body)

    def on_message_complete(self) -> None:
        if not self._status:
            return
        self._complete = True
        if self._released:
            self._free()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._waiting_bytes = 0
        self._status = 0
        self._keeps_alive = False
        self._complete = False
        self._released = False
        self._paused = False
        self._heard_at = 0.0

    async def _more(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
        self._wake()

    def _free(self) -> None:
        self.used_at = self._loop.time()
        if self._keeps_alive and self.is_open:
            self._pool.free(self)
        else:
            self.abort()

    def _watch(self) -> None:
        """Ends a connection on which nothing has been heard for too long, in a request or after it."""
        left_s = self._heard_at + SILENCE_S - self._loop.time()
        if left_s > 0:
            self._watchdog = self._loop.call_later(left_s, self._watch)
            return
        self._fail(TimeoutError(f"nothing heard for {SILENCE_S:.0f} s"))
        self.abort()
