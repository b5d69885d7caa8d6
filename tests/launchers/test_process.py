"""A command as a process group of its own: everything it starts ends with it, and it ends with us."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from servolt.command import Command
from servolt.errors import EngineError, StorageError
from servolt.launchers.process import ProcessLauncher, ProcessServer

# Says who it is, starts a child that will not hear SIGTERM, and waits.
STUBBORN = """
import os, signal, subprocess, sys, time
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""
Found = TypeVar("Found")
WAIT = "import time; print('up', flush=True); time.sleep(60)"


def command(code: str, *args: str) -> Command:
    return Command(argv=(sys.executable, "-c", code, *args), engine="test", deployment_digest="0" * 64)


async def start(what: Command, log_path: Path, **secrets: str) -> ProcessServer:
    return await ProcessLauncher().start(what, secrets=secrets, log_path=log_path)


def said(log_path: Path) -> str:
    """The log, once it holds a whole line."""
    return until(lambda: text if (text := log_path.read_text(encoding="utf-8")).endswith("\n") else None)


def until(look: Callable[[], Found | None], timeout_s: float = 10) -> Found:
    deadline = time.monotonic() + timeout_s
    while (found := look()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_it_gets_a_port_its_secrets_and_a_log(tmp_path: Path) -> None:
    program = "import os, sys; print(sys.argv[1], os.environ['KEY'], os.environ['HOME'] != ''); sys.stderr.write('err')"
    log = tmp_path / "new" / "log"

    async def run() -> tuple[int, ProcessServer]:
        server = await start(command(program, "{port}"), log, KEY="secret")
        code = await server.wait()
        await server.stop(0)
        return code, server

    exit_code, server = asyncio.run(run())
    assert exit_code == server.exit_code() == 0
    assert server.command.port is not None
    assert server.url == f"http://127.0.0.1:{server.command.port}"
    assert log.read_text(encoding="utf-8") == f"{server.command.port} secret True\nerr"
    assert "secret" not in server.command.to_json()


def test_settings_of_the_engine_come_from_its_command_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "64")
    monkeypatch.setenv("LLAMA_OTHER", "kept")
    program = "import os; print(sorted(name for name in os.environ if name.startswith('LLAMA_')))"
    said = command(program).model_copy(update={"env": {"LLAMA_ARG_THREADS": "1"}})

    async def run() -> None:
        server = await start(said, tmp_path / "log", LLAMA_API_KEY="secret")
        await server.wait()
        await server.stop(0)

    asyncio.run(run())
    assert (tmp_path / "log").read_text(encoding="utf-8") == "['LLAMA_API_KEY', 'LLAMA_ARG_THREADS', 'LLAMA_OTHER']\n"


def test_a_port_that_is_asked_for_is_kept(tmp_path: Path) -> None:
    async def run() -> str:
        server = await start(command("", "{port}").at(12345), tmp_path / "log")
        await server.stop(1)
        return server.url

    assert asyncio.run(run()) == "http://127.0.0.1:12345"


def test_two_starts_get_two_ports(tmp_path: Path) -> None:
    async def run() -> set[str]:
        servers = [await start(command(WAIT), tmp_path / "log") for _ in range(2)]
        for server in servers:
            await server.stop(0)
        return {server.url for server in servers}

    assert len(asyncio.run(run())) == 2


def test_nothing_of_the_group_is_left_after_a_stop(tmp_path: Path) -> None:
    async def run() -> tuple[int, int, int | None]:
        server = await start(command(STUBBORN), tmp_path / "log")
        child = int(await asyncio.to_thread(said, tmp_path / "log"))
        await server.stop(0.2)
        assert server.pid is not None
        return server.pid, child, server.exit_code()

    leader, child, code = asyncio.run(run())
    assert code == -signal.SIGTERM
    assert not alive(leader)
    assert not alive(child)


def test_a_stop_takes_no_longer_than_the_engine(tmp_path: Path) -> None:
    async def run() -> float:
        server = await start(command(WAIT), tmp_path / "log")
        await asyncio.to_thread(said, tmp_path / "log")
        began = time.monotonic()
        await server.stop(60)
        await server.stop(60)
        return time.monotonic() - began

    assert asyncio.run(run()) < 30


def test_children_of_a_leader_that_died_are_cleared_away(tmp_path: Path) -> None:
    async def run() -> int:
        server = await start(command(STUBBORN), tmp_path / "log")
        child = int(await asyncio.to_thread(said, tmp_path / "log"))
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        assert await server.wait() == -signal.SIGKILL
        await server.stop(0)
        return child

    assert not alive(asyncio.run(run()))


def test_what_can_not_be_started_says_why(tmp_path: Path) -> None:
    there = tmp_path / "not-executable"
    there.write_text("#!/bin/sh\n", encoding="utf-8")
    for argv, cause in (
        (("/no/such/llama-server",), "/no/such/llama-server can't be started: No such file"),
        ((str(there),), "Permission denied"),
    ):
        what = Command(argv=argv, engine="test", deployment_digest="0" * 64)
        with pytest.raises(EngineError, match="can't be started") as refused:
            asyncio.run(start(what, tmp_path / "log"))
        assert cause in refused.value.cause


def test_a_log_that_can_not_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="can't be written"):
        asyncio.run(start(command(WAIT), tmp_path / "file" / "log"))


def test_a_render_is_a_line_for_the_shell(tmp_path: Path) -> None:
    what = Command(argv=("a b", "--port", "{port}"), env={"X": "1 2"}, engine="test", deployment_digest="0" * 64)
    assert ProcessLauncher().render(what.at(80)) == "X='1 2' 'a b' --port 80"


PARENT = """
import asyncio, sys
from pathlib import Path
from servolt.command import Command
from servolt.launchers.process import ProcessLauncher

async def main():
    command = Command(argv=(sys.executable, "-c", sys.argv[1]), engine="test", deployment_digest="0" * 64)
    server = await ProcessLauncher().start(command, secrets={}, log_path=Path(sys.argv[2]))
    print(server.pid, flush=True)
    await asyncio.sleep(60)

{run}
"""
LOOPS = {"asyncio": "asyncio.run(main())", "uvloop": "import uvloop; uvloop.run(main())"}


@pytest.mark.parametrize("loop", LOOPS)
def test_no_engine_outlives_a_parent_that_is_killed(tmp_path: Path, loop: str) -> None:
    log = tmp_path / "log"
    program = PARENT.replace("{run}", LOOPS[loop])
    with subprocess.Popen([sys.executable, "-c", program, STUBBORN, str(log)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        leader = int(parent.stdout.readline())
        child = int(said(log))
        assert alive(leader)
        assert alive(child)
        parent.kill()
        until(lambda: None if alive(leader) or alive(child) else True)


def test_the_guard_leaves_with_the_engine(tmp_path: Path) -> None:
    async def run() -> list[psutil.Process]:
        server = await start(command(WAIT), tmp_path / "log")
        guards = [child for child in psutil.Process().children() if child.pid != server.pid]
        await server.stop(1)
        return guards

    guards = asyncio.run(run())
    assert len(guards) == 1
    assert not alive(guards[0].pid)


def test_the_picked_port_is_free(tmp_path: Path) -> None:
    async def run() -> int:
        server = await start(command(WAIT), tmp_path / "log")
        await server.stop(0)
        assert server.command.port is not None
        return server.command.port

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", asyncio.run(run())))
