"""Starts a command as a process group of its own on this machine."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Mapping
from pathlib import Path

from servolt.command import Command
from servolt.errors import EngineError, StorageError

__all__ = ["ProcessLauncher", "ProcessServer"]

# A shell that waits for the end of our side of a pipe, however it comes, and then ends the engine's process group.
# The first line names the group; a second line, written once the group is gone, lets it leave in peace.
GUARD = 'read -r group; read -r gone && exit 0; kill -s KILL -- "-$group" 2>/dev/null'

# llama-server takes settings from these, which would change what runs without a word in any deployment.
UNSAID_SETTINGS = ("LLAMA_ARG_",)

# After SIGKILL nothing of ours is left to wait for but the kernel; this is for processes that others must reap.
REAP_S = 1.0
POLL_S = 0.01


class ProcessLauncher:
    """The engine leads a session of its own, writes into a file, and ends when this process ends."""

    name = "process"

    def render(self, command: Command) -> str:
        return command.shell()

    async def start(self, command: Command, *, secrets: Mapping[str, str], log_path: Path) -> "ProcessServer":
        """Picks a free port unless the command has one. Raises EngineError, StorageError."""
        try:
            placed = command if command.port is not None else command.at(_free_port(command.host))
            placed = _with_files(placed, log_path.parent / f"{log_path.stem}.files")
            guard = await _start_guard()
        except OSError as error:
            raise _not_started(command, error.strerror) from error
        try:
            process = await _start_process(placed, {**_inherited(), **command.env, **secrets}, log_path)
        except BaseException:
            await _dismiss(guard)
            raise
        return ProcessServer(placed, process, guard, log_path)


class ProcessServer:
    """One engine: a leader and whatever it started in its group."""

    def __init__(
        self, command: Command, process: asyncio.subprocess.Process, guard: asyncio.subprocess.Process, log_path: Path
    ) -> None:
        self.command = command
        self.log_path: Path | None = log_path
        self._process, self._guard, self._gone = process, guard, False
        _tell(guard, str(process.pid))

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def url(self) -> str:
        return f"http://{self.command.host}:{self.command.port}"

    def exit_code(self) -> int | None:
        return self._process.returncode

    async def wait(self) -> int:
        return await self._process.wait()

    async def stop(self, grace_s: float) -> None:
        """SIGTERM to the group, SIGKILL after `grace_s`. Also clears up after a leader that has ended by itself."""
        if self._gone:  # its number may be another's by now
            return
        group = self._process.pid
        if grace_s > 0 and _signal(group, signal.SIGTERM):
            await _empty(group, self._process, grace_s)
        if _signal(group, signal.SIGKILL):
            await _empty(group, self._process, REAP_S)
        await self._process.wait()
        self._gone = True
        await _dismiss(self._guard)


def _with_files(command: Command, folder: Path) -> Command:
    if not command.files:
        return command
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in command.files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return command.with_files_in(str(folder))


def _inherited() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(UNSAID_SETTINGS)}


async def _start_process(
    command: Command, environment: Mapping[str, str], log_path: Path
) -> asyncio.subprocess.Process:
    try:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        log = log_path.open("ab")
    except OSError as error:
        raise StorageError(
            f"{log_path} can't be written: {error.strerror}.", "Make the folder writable or set SERVOLT_HOME."
        ) from error
    with log:
        try:
            return await asyncio.create_subprocess_exec(
                *command.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise _not_started(command, error.strerror if isinstance(error, OSError) else error) from error


def _not_started(command: Command, reason: object) -> EngineError:
    return EngineError(f"{command.argv[0]} can't be started: {reason}.", "Check that it is there and may be executed.")


async def _start_guard() -> asyncio.subprocess.Process:
    quiet = asyncio.subprocess.DEVNULL
    return await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", GUARD, stdin=asyncio.subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True
    )


def _tell(guard: asyncio.subprocess.Process, line: str) -> None:
    if guard.stdin is not None:
        guard.stdin.write(f"{line}\n".encode())


async def _dismiss(guard: asyncio.subprocess.Process) -> None:
    """The group is gone, and its number may be given to another: the guard must not use it any more."""
    with contextlib.suppress(ConnectionError):
        _tell(guard, "gone\ngone")
        if guard.stdin is not None:
            guard.stdin.close()
            await guard.stdin.wait_closed()
    await guard.wait()


def _signal(group: int, number: int) -> bool:
    """False when no process of the group is left."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS says so of a group in which only zombies are left
        return False
    return True


async def _empty(group: int, leader: asyncio.subprocess.Process, timeout_s: float) -> None:
    """Until the group has no process left, at most `timeout_s`."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await leader.wait()
            while _signal(group, 0):  # noqa: ASYNC110 - the system tells nobody of a group's end
                await asyncio.sleep(POLL_S)


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
