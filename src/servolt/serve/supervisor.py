"""Owns one engine: starts it when it is needed, knows its state, notices its end, stops it."""

import asyncio
import contextlib
import enum
import json
import re
import secrets
import signal
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from servolt.command import Command, Launcher, Server
from servolt.errors import EngineError, EngineLostError, EngineTimeoutError, ServoltError

__all__ = ["State", "Supervisor", "backoff_s"]

GRACE_S = 10.0  # what llama.cpp's router and llama-swap give a child between SIGTERM and SIGKILL
FIRST_POLL_S = 0.01  # a small model is ready in about 0.1 s; asking costs the engine some 50 us
SLOWEST_POLL_S = 0.25
ANSWER_S = 5.0  # a health check that takes longer is asked again
STABLE_S = 60.0  # an engine that was ready for so long does not count as one that fails again and again
KEPT_LOGS = 50  # one for each start; a start writes about 1 kB
ANNOUNCED = '{"event": "ready"'  # how the line starts in which an engine of ours says what holds
QUOTED_LINES = 8  # of the log, in an error
QUOTED_BYTES = 8192

# llama.cpp's levels; of several errors at a start the first is the cause, and the others say what followed from it.
_LEVEL = re.compile(r"^[\d.]+ ([EWID]) +(?:\w+ +)?(?:\w+: )?(.*)$")


class State(enum.StrEnum):
    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    FAILED = "failed"


def backoff_s(failures: int) -> float:
    """How long after the last of so many failures in a row the next start has to wait.

    >>> [backoff_s(failures) for failures in (0, 1, 2, 3, 6, 99)]
    [0.0, 0.0, 0.5, 1.0, 8.0, 10.0]
    """
    return 0.0 if failures < 2 else min(10.0, 0.5 * 2.0 ** min(failures - 2, 10))


class Supervisor:
    """One engine and the only one who changes its state. All methods belong to one event loop.

    `state`, `error`, `server`, `effective`, `load_time_s` and `log_path` may be read at any time, as advice; who needs
    the engine asks for it with `ensure_ready`.
    """

    def __init__(
        self,
        command: Command,
        launcher: Launcher,
        *,
        logs: Path,
        load_timeout_s: float = 300.0,
        grace_s: float = GRACE_S,
        on_change: Callable[[State], None] | None = None,
    ) -> None:
        self.command = command
        self.api_key = secrets.token_urlsafe(32)
        self.state = State.STOPPED
        self.error: ServoltError | None = None
        self.server: Server | None = None
        self.effective: Mapping[str, Any] = {}
        self.load_time_s: float | None = None
        self.log_path: Path | None = None
        self._launcher, self._logs = launcher, logs
        self._load_timeout_s, self._grace_s, self._on_change = load_timeout_s, grace_s, on_change
        self._start_task: asyncio.Task[Server] | None = None
        self._watch_task: asyncio.Task[None] | None = None
        self._stop_task: asyncio.Task[None] | None = None
        self._clearing: asyncio.Task[None] | None = None
        self._failures = 0
        self._failed_at = 0.0
        self._ready_at: float | None = None

    async def ensure_ready(self) -> Server:
        """The running engine, started if need be; all who ask meanwhile get the same start.

        Raises EngineError with the engine's last words if it can't be started, or is stopped before it is ready.
        """
        while self._stop_task is not None:
            await asyncio.shield(self._stop_task)
        if self.state is State.READY and self.server is not None and self.server.exit_code() is None:
            return self.server
        if self._start_task is None:
            self._start_task = asyncio.create_task(self._start())
            self._start_task.add_done_callback(self._started)
        starting = self._start_task
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            if starting.cancelled():
                raise EngineError(f"{self.command.engine} was stopped before it was ready.", "Ask again.") from None
            raise

    async def stop(self) -> None:
        """Ends the engine and all it started. Who asks for it meanwhile waits, and then starts it anew."""
        if self._stop_task is None:
            if self.state is State.STOPPED and self._start_task is None:
                return
            self._stop_task = asyncio.create_task(self._stop())
            self._stop_task.add_done_callback(self._stopped)
        await asyncio.shield(self._stop_task)

    async def _start(self) -> Server:
        await self._cleared()
        await asyncio.sleep(max(0.0, self._failed_at + backoff_s(self._failures) - time.monotonic()))
        self.error, self.effective, self.load_time_s = None, {}, None
        self._change(State.STARTING)
        began = time.monotonic()
        self.log_path = _new_log(self._logs, self.command)
        server = None
        try:
            server = await self._launch(self.log_path)
            async with asyncio.timeout(self._load_timeout_s):
                await self._answering(server)
        except TimeoutError:
            late = self._error(EngineTimeoutError, f"was not ready within {self._load_timeout_s:g} s")
            raise await self._fail(server, late) from None
        except ServoltError as error:
            raise await self._fail(server, error) from None
        except BaseException:
            await self._discard(server)
            raise
        self.server, self._ready_at = server, time.monotonic()
        self.load_time_s = self._ready_at - began
        self._watch_task = asyncio.create_task(self._watch(server))
        self._change(State.READY)
        return server

    async def _launch(self, log_path: Path) -> Server:
        variable = self.command.api_key_variable
        return await self._launcher.start(
            self.command, secrets={variable: self.api_key} if variable else {}, log_path=log_path
        )

    async def _answering(self, server: Server) -> None:
        """Returns when the engine answers 200; raises EngineError as soon as it has ended."""
        ended = asyncio.ensure_future(server.wait())
        healthy = asyncio.ensure_future(self._healthy(server))
        try:
            await asyncio.wait((ended, healthy), return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                raise self._error(EngineError, f"{_end(ended.result())} before it was ready")
            healthy.result()
        finally:
            ended.cancel()
            healthy.cancel()
            await asyncio.gather(ended, healthy, return_exceptions=True)

    async def _healthy(self, server: Server) -> None:
        pause_s = FIRST_POLL_S
        while await _status(server, self.command.ready_path, self.api_key) != 200:
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.2, SLOWEST_POLL_S)
        if self.command.announces:
            while not (effective := _announced(server.log_path)):  # noqa: ASYNC110 - a file tells nobody of its growth
                await asyncio.sleep(FIRST_POLL_S)
            self.effective = effective

    async def _watch(self, server: Server) -> None:
        """Notices the end of an engine that was ready."""
        code = await server.wait()
        if self._stop_task is None:
            await self._fail(server, self._error(EngineLostError, _end(code)))

    async def _fail(self, server: Server | None, error: ServoltError) -> ServoltError:
        now = time.monotonic()
        stable = self._ready_at is not None and now - self._ready_at > STABLE_S
        self._failures = 1 if stable else self._failures + 1
        self._failed_at, self._ready_at = now, None
        self.error, self.server = error, None
        self._change(State.FAILED)
        await self._discard(server)
        return error

    async def _discard(self, server: Server | None) -> None:
        """Nothing of a failed engine is left behind, and nothing in it is worth a wait."""
        if server is not None:
            self._clearing = asyncio.create_task(server.stop(0.0))
            await self._cleared()

    async def _cleared(self) -> None:
        """Until what a failed engine left is gone, and its end was noticed."""
        for task in (self._watch_task, self._clearing):
            if task is not None and task is not asyncio.current_task():
                await asyncio.shield(task)

    async def _stop(self) -> None:
        self._change(State.STOPPING)
        if self._start_task is not None:
            self._start_task.cancel()
            await asyncio.gather(self._start_task, return_exceptions=True)
        if self.server is not None:
            await self.server.stop(self._grace_s)
        await self._cleared()
        self.server, self.error, self._failures, self._ready_at = None, None, 0, None
        self._change(State.STOPPED)

    def _started(self, task: asyncio.Task[Server]) -> None:
        self._start_task = None
        if not task.cancelled():
            task.exception()  # read here, since all who asked may have left

    def _stopped(self, task: asyncio.Task[None]) -> None:
        self._stop_task = None

    def _change(self, state: State) -> None:
        if state is not self.state:
            self.state = state
            if self._on_change is not None:
                self._on_change(state)

    def _error(self, kind: type[EngineError], what: str) -> EngineError:
        words = _words(self.log_path, is_starting=self.state is State.STARTING)
        quote = f" Its log says: {words}{'' if words.endswith('.') else '.'}" if words else ""
        hint = "The system ends programs that way when memory runs out. " if "SIGKILL" in what else ""
        return kind(f"The engine {self.command.engine} {what}.{quote}", f"{hint}Its log is {self.log_path}.")


async def _status(server: Server, path: str, api_key: str) -> int | None:
    """The status of GET, None if there is no answer yet. One small request needs no client library."""
    host, port = server.command.host, server.command.port
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {api_key}\r\nConnection: close\r\n\r\n"
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(request.encode())
                words = (await reader.readline()).split()
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, ValueError):
        return None
    return int(words[1]) if len(words) > 1 and words[0].startswith(b"HTTP/") and words[1].isdigit() else None


def _announced(log_path: Path | None) -> dict[str, Any]:
    """The settings in the line that the engine prints once it can answer."""
    for line in _read(log_path).splitlines(keepends=True):
        if line.startswith(ANNOUNCED.encode()) and line.endswith(b"\n"):
            told = json.loads(line)
            return {name: value for name, value in told.items() if name not in ("event", "url", "pid")}
    return {}


def _words(log_path: Path | None, *, is_starting: bool) -> str:
    """Why it ended, as far as its log says: a start's first error, a traceback's last line, else the last lines."""
    lines = [line.strip() for line in _read(log_path)[-QUOTED_BYTES:].decode(errors="replace").splitlines()]
    told = [(_LEVEL.match(line), line) for line in lines if line and not line.startswith(ANNOUNCED)]
    errors = [match[2] for match, _ in told if match and match[1] == "E"]
    if errors and is_starting:
        return errors[0]
    said = [line for match, line in told if not match or match[1] == "E"]  # no warning ends an engine
    if any(line.startswith("Traceback ") for line in said):
        return said[-1]
    return " | ".join(said[-QUOTED_LINES:])


def _read(log_path: Path | None) -> bytes:
    try:
        return b"" if log_path is None else log_path.read_bytes()
    except OSError:
        return b""


def _end(code: int) -> str:
    """
    >>> _end(-9)
    'was ended by SIGKILL'
    """
    if code >= 0:
        return f"ended by itself with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _new_log(folder: Path, command: Command) -> Path:
    """A file of its own for each start. Also forgets the oldest ones."""
    for old in sorted(folder.glob("*.log"), key=lambda path: path.name.rpartition("-")[2])[: -KEPT_LOGS + 1]:
        with contextlib.suppress(OSError):
            old.unlink()
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    return folder / f"{command.engine}-{command.deployment_digest[:12]}-{moment}.log"
