"""The load client seen from the measuring process: its workers, one window's load at a time."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np
import orjson
from numpy.typing import NDArray

from servolt.errors import EngineError, InvalidInputError
from servolt.measure.load.columns import EVENT_COLUMNS, REQUEST_COLUMNS
from servolt.workload import LoadPoint, Workload

__all__ = ["LoadClient", "LoadRecord"]


@dataclass(frozen=True)
class LoadRecord:
    """What one worker saw. Columns as in REQUEST_COLUMNS and EVENT_COLUMNS; `words` are the codes' texts."""

    worker: int
    requests: NDArray[np.int64]
    events: NDArray[np.int64]
    words: tuple[str, ...]


class LoadClient:
    """`async with LoadClient() as client`: its processes live as long as it does and serve one window after another."""

    def __init__(self) -> None:
        self._idle: list[Process] = []
        self._active: list[Process] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the workers that carry the load now."""
        return tuple(process.pid for process in self._active)

    async def begin(
        self,
        url: str,
        api_key: str | None,
        workload: Workload,
        point: LoadPoint,
        *,
        repetition: int,
        model: str,
        vocab_size: int | None,
        workers: int,
        warm_within_s: float,
    ) -> None:
        """Starts the load and returns once warm-up is over. Raises EngineError if it fails or takes too long."""
        if self._active:  # the last window was given up halfway
            await self.close()
        job = {
            **_place(url),
            "api_key": api_key,
            "workload": workload.model_dump(mode="json"),
            "point": tuple(point),
            "repetition": repetition,
            "model": model,
            "vocab_size": vocab_size,
            "workers": workers,
        }
        await self._take(workers)
        for worker, process in enumerate(self._active):
            await _tell(process, {**job, "worker": worker})
        await self._warm(warm_within_s)

    async def end(self, end_ns: int, drain_s: float) -> list[LoadRecord]:
        """Stops the load: nothing is scheduled from `end_ns` on. What each worker saw, in the workers' order."""
        for process in self._active:
            await _tell(process, {"end_ns": end_ns, "drain_s": drain_s})
        records = await asyncio.gather(*(_collect(worker, process) for worker, process in enumerate(self._active)))
        self._idle += self._active
        self._active = []
        return records

    async def close(self) -> None:
        """Ends every worker; one that carries load drops it."""
        processes, self._idle, self._active = self._idle + self._active, [], []
        for process in processes:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def _take(self, workers: int) -> None:
        while len(self._idle) < workers:
            command = (sys.executable, "-m", "servolt.measure.load.worker")
            # A session of its own: Ctrl-C is for this process, which then ends the worker.
            worker = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, start_new_session=True)
            self._idle.append(worker)
        self._active, self._idle = self._idle[:workers], self._idle[workers:]

    async def _warm(self, within_s: float) -> None:
        try:
            async with asyncio.timeout(within_s):
                answers = await asyncio.gather(*(_answer(process) for process in self._active))
        except TimeoutError:
            await self.close()
            raise EngineError(
                f"warm-up did not end within {within_s:g} s.", "Look at the engine's log, or ask for a lighter load."
            ) from None
        failure = next((answer["failure"] for answer in answers if answer["failure"]), None)
        if failure is not None:
            await self.close()
            raise EngineError(f"a warm-up request failed: {failure}.", "Look at the engine's log.")


def _place(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise InvalidInputError(
            f"{url} is no address the load client can ask: it speaks HTTP without TLS.", "Give http://HOST:PORT."
        )
    return {"host": parts.hostname, "port": parts.port or 80, "base": parts.path.rstrip("/").removesuffix("/v1")}


async def _tell(process: Process, message: dict[str, Any]) -> None:
    if process.stdin is None:
        raise RuntimeError("the worker was started without a pipe")
    try:
        process.stdin.write(orjson.dumps(message) + b"\n")
        await process.stdin.drain()
    except ConnectionError as error:
        raise EngineError("a load worker has ended.", "Its last words are on stderr.") from error


async def _answer(process: Process) -> dict[str, Any]:
    if process.stdout is None:
        raise RuntimeError("the worker was started without a pipe")
    line = await process.stdout.readline()
    if not line:
        raise EngineError(f"a load worker ended with code {await process.wait()}.", "Its last words are on stderr.")
    return dict(orjson.loads(line))


async def _collect(worker: int, process: Process) -> LoadRecord:
    answer = await _answer(process)
    return LoadRecord(
        worker=worker,
        requests=await _table(process, answer["requests"], len(REQUEST_COLUMNS)),
        events=await _table(process, answer["events"], len(EVENT_COLUMNS)),
        words=tuple(answer["words"]),
    )


async def _table(process: Process, rows: int, columns: int) -> NDArray[np.int64]:
    if process.stdout is None:
        raise RuntimeError("the worker was started without a pipe")
    try:
        raw = await process.stdout.readexactly(rows * columns * 8)
    except asyncio.IncompleteReadError as error:
        raise EngineError(
            f"a load worker ended with code {await process.wait()} while it handed over what it saw.",
            "Measure again; its last words are on stderr, and where there are none the system may have run out of "
            "memory.",
        ) from error
    return np.frombuffer(raw, dtype=np.int64).reshape(rows, columns)
