"""Plans in a process of their own: the gateway's loop goes on, and a request that takes too long is ended with it.

Both sides speak in frames: a kind and a length as one line, then that many bytes. The process ends with its parent,
since its input then ends.
"""

import asyncio
import json
import sys
from collections.abc import Mapping
from typing import IO, Any

from servolt import errors, settings
from servolt.errors import EngineTimeoutError, InvalidInputError, ServoltError

__all__ = ["PlanningProcess", "answer_all"]

TIMEOUT_S = 60.0  # a plan takes milliseconds, and one whose config comes from the Hub some seconds
MAX_WAITING = 64
START_S = 30.0


class PlanningProcess:
    """Started with the first request, and again after one that it did not survive."""

    def __init__(self, *, paths: bool = False, timeout_s: float = TIMEOUT_S) -> None:
        self._paths, self._timeout_s = paths, timeout_s
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def plan(self, request: Mapping[str, Any]) -> bytes:
        """The document as JSON. Raises ServoltError."""
        if self._waiting >= MAX_WAITING:
            raise _busy()
        self._waiting += 1
        try:
            async with self._turn:
                return await self._asked(json.dumps(request).encode())
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    async def _asked(self, body: bytes) -> bytes:
        try:
            async with asyncio.timeout(self._timeout_s):
                kind, answer = await self._exchanged(body)
        except TimeoutError:
            await self.close()
            raise EngineTimeoutError(
                f"The plan took more than {self._timeout_s:g} s.",
                "Ask for fewer loads, or plan it with `servolt plan`.",
            ) from None
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            await self.close()
            raise ServoltError(
                "The planner died of this request.", "Plan it with `servolt plan`, and report it."
            ) from error
        except asyncio.CancelledError:
            await self.close()  # its answer is still to come, and nobody is there to read it
            raise
        if kind == "plan":
            return answer
        raise _error(json.loads(answer))

    async def _exchanged(self, body: bytes) -> tuple[str, bytes]:
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "servolt.study.planning", "paths" if self._paths else "names"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,  # Ctrl-C in the terminal is for the gateway alone
            )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(_head("ask", body) + body)
        await process.stdin.drain()
        kind, length = (await process.stdout.readuntil(b"\n")).decode().split()
        return kind, await process.stdout.readexactly(int(length))


def _head(kind: str, body: bytes) -> bytes:
    return f"{kind} {len(body)}\n".encode()


def _busy() -> ServoltError:
    from servolt.serve.refusal import RefusedError

    return RefusedError("busy", f"{MAX_WAITING} plans wait already.", "Ask again in a second.")


def _error(plain: Mapping[str, str]) -> ServoltError:
    """The error that the other side raised, as far as its class is known by its code."""
    classes = [found for found in vars(errors).values() if isinstance(found, type)]
    known = {found.code: found for found in classes if issubclass(found, ServoltError)}
    return known.get(plain["code"], ServoltError)(plain["cause"], plain["remedy"])


def answer_all(asked: IO[bytes], answers: IO[bytes], *, paths: bool) -> None:
    """The other side: until `asked` ends."""
    from servolt.study.requests import Requests

    requests = Requests(settings.folders(), paths=paths)
    while head := asked.readline():
        body = asked.read(int(head.split()[1]))
        try:
            kind, answer = "plan", json.dumps(requests.plan(_object(body)), ensure_ascii=False).encode()
        except ServoltError as error:
            plain = {"code": error.code, "cause": error.cause, "remedy": error.remedy}
            kind, answer = "error", json.dumps(plain).encode()
        answers.write(_head(kind, answer) + answer)
        answers.flush()


def _object(body: bytes) -> dict[str, Any]:
    plain = json.loads(body)
    if not isinstance(plain, dict):
        raise InvalidInputError("the request is no object.", 'Send {"deployment": ...}.')
    return plain


if __name__ == "__main__":
    answer_all(sys.stdin.buffer, sys.stdout.buffer, paths=sys.argv[1:] == ["paths"])
