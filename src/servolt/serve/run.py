"""The gateway as a process: an address, signals, and a file that says where it is."""

import asyncio
import errno
import gc
import ipaddress
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson
import psutil
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from servolt.errors import AddressError, InvalidInputError, StorageError
from servolt.serve.access import Access
from servolt.serve.exchange import ON_LEFT
from servolt.serve.fleet import Fleet
from servolt.serve.gateway import Gateway

__all__ = ["DEFAULT_PORT", "Listener", "is_loopback", "listen", "serve"]

DEFAULT_PORT = 11434  # Ollama's
PORTS_TRIED = 100
BACKLOG = 2048  # uvicorn's own default
DRAIN_S = 30.0  # LiteLLM's patience; long answers of a small machine fit in
IDLE_CONNECTION_S = 75  # longer than the clients' own pools keep a connection, so that they close first


@dataclass(frozen=True)
class Listener:
    """A socket that is bound already, so that nobody can take the port before the server starts."""

    socket: socket.socket
    host: str
    port: int
    moved: bool  # the default port was taken

    @property
    def url(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def listen(host: str = "127.0.0.1", port: int | None = None, *, exposed: bool = False) -> Listener:
    """Port None is 11434 or the next free one; 0 is any; another one is that one or AddressError.

    Raises InvalidInputError for an address that others can reach, unless `exposed` says that this is meant.
    """
    if not is_loopback(host) and not exposed:
        raise InvalidInputError(
            f"{host} can be reached from other machines, and the gateway has no keys yet: anyone could use it.",
            "Listen on 127.0.0.1, or say --exposed if that network is trusted.",
        )
    for candidate in [port] if port is not None else range(DEFAULT_PORT, DEFAULT_PORT + PORTS_TRIED):
        bound = _bind(host, candidate)
        if bound is not None:
            actual = int(bound.getsockname()[1])
            return Listener(bound, host, actual, moved=port is None and actual != DEFAULT_PORT)
    taken = f"Port {port} is taken" if port is not None else f"All ports from {DEFAULT_PORT} on are taken"
    raise AddressError(f"{taken} on {host}.", "Choose another with --port, or leave --port out.")


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def serve(
    fleet: Fleet,
    listener: Listener,
    *,
    state_folder: Path,
    origins: Sequence[str] = (),
    drain_s: float = DRAIN_S,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Until SIGTERM or SIGINT: then it drains and stops all engines; a second signal does not wait."""
    gateway = Gateway(fleet, Access(loopback=is_loopback(listener.host), origins=origins))
    server = _Server(_config(gateway), on_ready)
    stopping = asyncio.Event()
    with (
        closing(listener.socket),
        _signals(gateway, server, stopping, drain_s),
        _state_file(state_folder, listener, fleet),
    ):
        gc.freeze()  # what is there now stays: each collection would walk through it for nothing
        try:
            await server.serve(sockets=[listener.socket])
        finally:
            await fleet.close()


class _Server(uvicorn.Server):
    """Signals are the gateway's: uvicorn would close its sockets before anything has drained."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _OneWrite(asyncio.Transport):
    """Sends the head of an answer with the first of its body: a system call less for each answer.

    uvicorn writes one right after the other, and nothing else writes to its connections.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._head = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        elif data[:9] == b"HTTP/1.1 " and data[9:12] != b"100":  # a client waits for that one before it sends its body
            self._head = bytes(data)
            return
        self._transport.write(data)

    def flush(self) -> None:
        """An answer to HEAD, and one without a body, is its head alone."""
        if self._head:
            self._transport.write(self._head)
            self._head = b""

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()


class _Protocol(HttpToolsProtocol):
    """Tells a request at once that its client has left."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport = _OneWrite(transport)

    def on_response_complete(self) -> None:
        self.transport.flush()  # type: ignore[attr-defined]
        super().on_response_complete()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"][ON_LEFT] = None

    def connection_lost(self, exc: Exception | None) -> None:
        cycle = self.cycle
        super().connection_lost(exc)
        left = cycle.scope["state"].get(ON_LEFT) if cycle is not None and cycle.disconnected else None
        if left is not None:
            left()


def _config(gateway: Gateway) -> uvicorn.Config:
    return uvicorn.Config(
        gateway,
        loop="none",
        http=_Protocol,
        interface="asgi3",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=IDLE_CONNECTION_S,
        timeout_graceful_shutdown=1,
    )


@contextmanager
def _signals(gateway: Gateway, server: uvicorn.Server, stopping: asyncio.Event, drain_s: float) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def stop() -> None:
        await gateway.drain(drain_s)
        server.should_exit = True

    def on_signal() -> None:
        if stopping.is_set():
            gateway.hurry()
            return
        stopping.set()
        tasks.add(loop.create_task(stop()))

    handled = (signal.SIGTERM, signal.SIGINT)
    for number in handled:
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)


@contextmanager
def _state_file(folder: Path, listener: Listener, fleet: Fleet) -> Iterator[None]:
    """Where this gateway is and what it serves, for `servolt ps` and `servolt stop`."""
    path = folder / f"{os.getpid()}.json"
    unfinished = path.with_suffix(".tmp")
    state = {
        "url": listener.url,
        "pid": os.getpid(),
        "process_started": psutil.Process().create_time(),  # a number may be given to another process later
        "started": datetime.now(UTC).isoformat(),
        "models": [name for offer in fleet.catalogue for name in offer.names],
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(orjson.dumps(state))
        unfinished.replace(path)
    except OSError as error:
        raise StorageError(f"{path} can't be written: {error.strerror}.", "Set SERVOLT_HOME elsewhere.") from error
    try:
        yield
    finally:
        with suppress(OSError):  # the server has ended; a file left behind names a process that is gone
            path.unlink(missing_ok=True)


def _bind(host: str, port: int) -> socket.socket | None:
    """None where the port is taken. Raises AddressError for any other reason."""
    bound = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)
        bound.setblocking(False)
    except OSError as error:
        if bound is not None:
            bound.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise AddressError(f"Can't listen on {host}:{port}: {error.strerror}.", "Choose another address.") from error
    return bound
