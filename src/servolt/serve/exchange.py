"""One HTTP request and its answer, on plain ASGI."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from random import getrandbits
from time import monotonic
from typing import Any

import msgspec
import orjson

from servolt.errors import ServoltError
from servolt.serve.refusal import RefusedError
from servolt.serve.request import Row

__all__ = ["JSON", "ON_LEFT", "Exchange", "Header", "Message", "Receive", "Scope", "Send"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

# A server that has this key in a request's state calls what is put there when the client leaves. Elsewhere a task waits
# for ASGI's own message, which costs each request some 15 us more.
ON_LEFT = "servolt.on_left"

MAX_BODY_BYTES = 20 * 2**20  # Ollama's cap

MAX_ROWS = 16  # of the report; clients and proxies refuse headers beyond 8 KB
MAX_ASKED_LENGTH = 80

JSON = (b"content-type", b"application/json; charset=utf-8")


class Exchange:
    """Reads the body once and writes one answer, whole or in pieces."""

    __slots__ = (
        "_asked_headers",
        "_headers",
        "_receive",
        "_send",
        "_watch",
        "busy_since",
        "cut",
        "ended",
        "gone",
        "report",
        "request_id",
        "scope",
        "started",
        "status",
        "worker",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self._asked_headers: dict[bytes, bytes] = dict(scope["headers"])
        self._headers: list[Header] = []
        self._watch: asyncio.Task[Message] | None = None
        self.started = False  # the status line has been sent
        self.ended = False  # the whole answer has been sent
        self.gone = False  # the client has left
        self.worker: asyncio.Task[None] | None = None  # who answers, where that can be cancelled
        self.cut: ServoltError | None = None  # why the gateway itself ends this answer early
        self.status = 0
        self.report: list[Row] = []
        self.busy_since: float | None = None  # waiting for the client since then: for its body, or for it to read
        self.request_id = f"{getrandbits(96):024x}"  # to find it in a log; nothing is kept safe by it

    @property
    def _state(self) -> MutableMapping[str, Any]:
        state: MutableMapping[str, Any] = self.scope.get("state") or {}
        return state

    @property
    def method(self) -> str:
        return str(self.scope["method"])

    @property
    def path(self) -> str:
        return str(self.scope["path"])

    def header(self, name: bytes) -> str | None:
        """The header of this name (in lower case)."""
        value = self._asked_headers.get(name)
        return None if value is None else value.decode("latin-1")

    def add_headers(self, headers: Iterable[Header]) -> None:
        """Sent with the answer, whatever it will be."""
        self._headers.extend(headers)

    async def body(self) -> bytes:
        """Raises RefusedError for one that is too large or encoded."""
        declared = self.header(b"content-length")
        if declared is not None and int(declared) > MAX_BODY_BYTES:
            raise _too_large()
        if (self.header(b"content-encoding") or "identity") != "identity":
            raise RefusedError("media", "The body is compressed.", "Send it without a content-encoding.")
        pieces: list[bytes] = []
        size = 0
        while True:
            self.busy_since = monotonic()
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.gone = True
                raise asyncio.CancelledError  # as if it had left a moment later
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > MAX_BODY_BYTES:
                raise _too_large()
            if not message.get("more_body"):
                self.busy_since = None
                self._watch_client()
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def reply(self, status: int, plain: Any, headers: Iterable[Header] = ()) -> None:
        """A whole answer as JSON."""
        await self.reply_bytes(status, orjson.dumps(plain), (JSON, *headers))

    async def reply_bytes(self, status: int, body: bytes, headers: Iterable[Header]) -> None:
        await self._start(status, [*headers, (b"content-length", b"%d" % len(body))])
        self.ended = True
        await self._send({"type": "http.response.body", "body": body})

    async def stream(self, content_type: bytes) -> None:
        """Opens an answer in pieces; `write` sends them and `end` closes it."""
        await self._start(200, [(b"content-type", content_type), (b"cache-control", b"no-cache")])

    async def write(self, data: bytes) -> None:
        """Waits while the client reads too slowly."""
        self.busy_since = monotonic()
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        self.busy_since = None

    async def end(self, data: bytes = b"") -> None:
        self.ended = True
        await self._send({"type": "http.response.body", "body": data})

    def unwatch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        elif ON_LEFT in self._state:
            self._state[ON_LEFT] = None

    def _watch_client(self) -> None:
        """From here on the work is cancelled as soon as the client has left."""
        worker = self.worker
        assert worker is not None

        def left() -> None:
            if not self.ended:
                self.gone = True
                worker.cancel()

        if ON_LEFT in self._state:
            self._state[ON_LEFT] = left
            return
        self._watch = asyncio.ensure_future(self._receive())
        self._watch.add_done_callback(lambda watch: None if watch.cancelled() else left())

    async def _start(self, status: int, headers: list[Header]) -> None:
        self.started = True
        self.status = status
        headers.append((b"x-request-id", self.request_id.encode()))
        if self.report:
            headers.append((b"x-servolt-report", _report(self.report)))
        headers.extend(self._headers)
        await self._send({"type": "http.response.start", "status": status, "headers": headers})


def _report(rows: list[Row]) -> bytes:
    """ASCII, and short enough for a header whatever the request held."""
    shown = [{**msgspec.structs.asdict(row), "asked": _short(row.asked)} for row in rows[:MAX_ROWS]]
    return json.dumps(shown, separators=(",", ":")).encode()


def _short(value: Any) -> Any:
    text = json.dumps(value)
    return value if len(text) <= MAX_ASKED_LENGTH else text[:MAX_ASKED_LENGTH] + "..."


def _too_large() -> RefusedError:
    return RefusedError("too_large", f"The body is larger than {MAX_BODY_BYTES:,} bytes.", "Send less.")
