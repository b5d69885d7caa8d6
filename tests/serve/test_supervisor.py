"""One owner for each engine: every state is told, every end is noticed, nothing is left behind."""

import asyncio
import http.server
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvloop

from servolt import registry
from servolt.command import Command
from servolt.deployment import Deployment
from servolt.errors import EngineError, EngineLostError, StorageError
from servolt.serve.supervisor import KEPT_LOGS, State, Supervisor
from servolt.sources import find_model

Supervise = Callable[..., Supervisor]

# As llama.cpp (xllamacpp 2026.10.11549) logs it: the cause, then what followed from it.
FAILED_START = """\
0.00.003.470 W srv          init: security: no API key is set
0.00.029.940 E llama_init_from_model: failed to initialize the context: n_seq_max must be <= 256
0.00.029.951 E cmn  common_init_: failed to create context with model 'm.gguf'
0.00.039.191 E srv          init: exiting due to model loading error
"""


def replay_command(law: str = "replay") -> Command:
    deployment = Deployment.of(law, engine="replay")
    return registry.engine("replay").command(deployment, find_model(deployment))


@pytest.fixture
def supervise(tmp_path: Path) -> Supervise:
    """`supervise(command, **settings)`, with its logs under the test's folder."""

    def make(command: Command | None = None, **settings: Any) -> Supervisor:
        launcher = registry.launcher("process")
        return Supervisor(command or replay_command(), launcher, logs=tmp_path / "logs", **settings)

    return make


def within(seconds: float, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Runs it to its end in a loop of its own."""

    async def run() -> Any:
        async with asyncio.timeout(seconds):
            return await work()

    return asyncio.run(run())


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - looked at from outside, as the gateway's /api/ps does
        await asyncio.sleep(0.005)


def running(pid: int | None) -> bool:
    return pid is not None and psutil.pid_exists(pid)


def test_twenty_who_ask_at_once_get_one_engine(supervise: Supervise, tmp_path: Path) -> None:
    async def work() -> None:
        told: list[State] = []
        supervisor = supervise(on_change=told.append)
        servers = await asyncio.gather(*(supervisor.ensure_ready() for _ in range(20)))
        assert len({server.pid for server in servers}) == 1
        assert await supervisor.ensure_ready() is servers[0]
        assert list((tmp_path / "logs").iterdir()) == [supervisor.log_path]
        await supervisor.stop()
        assert not running(servers[0].pid)
        assert told == [State.STARTING, State.READY, State.STOPPING, State.STOPPED]

    within(30, work)


def test_ready_is_an_answer_and_not_an_open_port(supervise: Supervise) -> None:
    async def work() -> None:
        supervisor = supervise(replay_command("replay?load_s=0.4"))
        server = await supervisor.ensure_ready()
        assert supervisor.load_time_s is not None
        assert supervisor.load_time_s >= 0.4
        assert supervisor.effective["max_num_seqs"] == 8
        assert server.url.startswith("http://127.0.0.1:")
        await supervisor.stop()

    within(30, work)


def test_an_engine_that_is_killed_is_noticed_within_a_second_and_the_next_request_works(supervise: Supervise) -> None:
    async def work() -> None:
        supervisor = supervise()
        first = (await supervisor.ensure_ready()).pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        async with asyncio.timeout(1):
            await until(lambda: supervisor.state is State.FAILED)
        assert isinstance(supervisor.error, EngineLostError)
        assert "replay was ended by SIGKILL" in supervisor.error.cause
        assert str(supervisor.log_path) in supervisor.error.remedy
        second = await supervisor.ensure_ready()
        assert second.pid != first
        assert supervisor.error is None
        await supervisor.stop()

    within(30, work)


def test_who_asks_at_the_moment_of_death_gets_a_new_engine(supervise: Supervise) -> None:
    async def work() -> None:
        supervisor = supervise()
        first = await supervisor.ensure_ready()
        assert first.pid is not None
        os.kill(first.pid, signal.SIGKILL)
        await first.wait()
        assert (await supervisor.ensure_ready()).pid != first.pid
        await supervisor.stop()

    within(30, work)


def test_an_engine_killed_while_it_loads_fails_all_who_wait_at_once(supervise: Supervise) -> None:
    async def work() -> None:
        supervisor = supervise(replay_command("replay?load_s=60"))
        asking = [asyncio.create_task(supervisor.ensure_ready()) for _ in range(3)]
        engine = await asyncio.to_thread(_engine_process, "replay_server")
        engine.kill()
        for result in await asyncio.gather(*asking, return_exceptions=True):
            assert isinstance(result, EngineError)
            assert "was ended by SIGKILL before it was ready" in result.cause
        assert supervisor.state is State.FAILED

    within(30, work)


def _engine_process(module: str) -> psutil.Process:
    while True:
        for child in psutil.Process().children():
            if any(module in part for part in child.cmdline()):
                return child
        time.sleep(0.01)


def test_an_engine_that_ends_by_itself_shows_its_exit_code_and_its_last_words(supervise: Supervise) -> None:
    program = "import sys; print('first'); sys.stderr.write('no room for the weights\\n'); sys.exit(7)"
    command = Command(argv=(sys.executable, "-c", program), engine="test", deployment_digest="0" * 64)

    async def work() -> None:
        supervisor = supervise(command)
        with pytest.raises(EngineError) as refused:
            await supervisor.ensure_ready()
        assert "test ended by itself with exit code 7 before it was ready" in refused.value.cause
        assert "no room for the weights" in refused.value.cause
        assert supervisor.state is State.FAILED
        assert supervisor.error is refused.value

    within(30, work)


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (FAILED_START, "failed to initialize the context: n_seq_max must be <= 256."),
        ("Traceback (most recent call last):\n  File x\nOverflowError: too large\n", "OverflowError: too large."),
        (
            "0.00.026.567 W srv          init: disabling\nx.cpp:12: GGML_ASSERT(n) failed\n",
            "x.cpp:12: GGML_ASSERT(n) failed.",
        ),
    ],
)
def test_of_a_start_that_fails_the_cause_is_quoted_and_nothing_else(supervise: Supervise, log: str, said: str) -> None:
    program = f"import sys; sys.stderr.write({log!r}); sys.exit(1)"
    command = Command(argv=(sys.executable, "-c", program), engine="test", deployment_digest="0" * 64)

    async def work() -> None:
        with pytest.raises(EngineError) as refused:
            await supervise(command).ensure_ready()
        assert refused.value.cause.endswith(f"before it was ready. Its log says: {said}")

    within(30, work)


def test_a_truncated_model_fails_with_the_engines_own_words(supervise: Supervise, tmp_path: Path) -> None:
    deployment = Deployment.of("guide")
    whole = find_model(deployment)
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(Path(whole.files[0]).read_bytes()[:200_000])
    command = registry.engine("llamacpp").command(deployment, whole.model_copy(update={"files": (str(cut),)}))

    async def work() -> None:
        with pytest.raises(EngineError, match="not within the file bounds"):
            await supervise(command).ensure_ready()

    within(30, work)


def test_an_executable_that_is_not_there_fails_and_leaves_nothing(supervise: Supervise) -> None:
    command = Command(argv=("/no/such/llama-server",), engine="llamacpp", deployment_digest="0" * 64)

    async def work() -> None:
        supervisor = supervise(command)
        with pytest.raises(EngineError, match="/no/such/llama-server can't be started"):
            await supervisor.ensure_ready()
        assert supervisor.state == "failed"
        await supervisor.stop()
        assert supervisor.state == "stopped"
        assert not psutil.Process().children()

    within(30, work)


def test_logs_that_can_not_be_written_are_an_error_of_storage(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    supervisor = Supervisor(replay_command(), registry.launcher("process"), logs=tmp_path / "file")
    with pytest.raises(StorageError):
        within(30, supervisor.ensure_ready)


def test_an_engine_that_is_not_ready_in_time_is_ended(supervise: Supervise) -> None:
    async def work() -> None:
        supervisor = supervise(replay_command("replay?load_s=60"), load_timeout_s=0.5)
        with pytest.raises(EngineError, match=r"was not ready within 0.5 s"):
            await supervisor.ensure_ready()
        assert not psutil.Process().children()

    within(30, work)


def test_an_engine_that_hangs_while_it_loads_is_ended(supervise: Supervise) -> None:
    program = "import signal, os; print('x', flush=True); os.kill(os.getpid(), signal.SIGSTOP)"
    command = Command(argv=(sys.executable, "-c", program), engine="test", deployment_digest="0" * 64)

    async def work() -> None:
        with pytest.raises(EngineError, match=r"was not ready within 0.5 s"):
            await supervise(command, load_timeout_s=0.5).ensure_ready()
        assert not psutil.Process().children()

    within(30, work)


def test_a_stop_during_the_start_ends_it_and_tells_who_waits(supervise: Supervise) -> None:
    async def work() -> None:
        supervisor = supervise(replay_command("replay?load_s=60"))
        asking = asyncio.create_task(supervisor.ensure_ready())
        await asyncio.to_thread(_engine_process, "replay_server")
        await supervisor.stop()
        with pytest.raises(EngineError, match="was stopped before it was ready"):
            await asking
        assert supervisor.state is State.STOPPED
        assert not psutil.Process().children()

    within(30, work)


def test_who_asks_during_a_stop_waits_and_gets_a_new_engine(supervise: Supervise) -> None:
    async def work() -> None:
        supervisor = supervise()
        first = await supervisor.ensure_ready()
        stopping = asyncio.create_task(supervisor.stop())
        await until(lambda: supervisor.state is State.STOPPING)
        second = await supervisor.ensure_ready()
        assert stopping.done()
        assert second.pid != first.pid
        assert not running(first.pid)
        await supervisor.stop()

    within(30, work)


def test_one_who_gives_up_does_not_end_the_start_for_the_others(supervise: Supervise) -> None:
    async def work() -> None:
        supervisor = supervise(replay_command("replay?load_s=0.3"))
        patient = asyncio.create_task(supervisor.ensure_ready())
        hasty = asyncio.create_task(supervisor.ensure_ready())
        await until(lambda: supervisor.state is State.STARTING)
        hasty.cancel()
        assert running((await patient).pid)
        with pytest.raises(asyncio.CancelledError):
            await hasty
        await supervisor.stop()

    within(30, work)


def test_an_engine_that_fails_again_and_again_is_started_ever_more_slowly(supervise: Supervise) -> None:
    command = Command(argv=("/no/such/engine",), engine="test", deployment_digest="0" * 64)

    async def work() -> list[float]:
        supervisor, ended = supervise(command), [time.monotonic()]
        for _ in range(4):
            with pytest.raises(EngineError):
                await supervisor.ensure_ready()
            ended.append(time.monotonic())
        return [later - earlier for earlier, later in itertools.pairwise(ended)]

    first, second, third, fourth = within(30, work)
    assert max(first, second) < 0.5 <= third < 1 <= fourth


@pytest.fixture
def stranger() -> Iterator[int]:
    """A port on which another program answers 200 to everything."""

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("model", ["guide", "replay"])
def test_a_stranger_on_the_port_is_not_taken_for_the_engine(supervise: Supervise, stranger: int, model: str) -> None:
    engine = "replay" if model == "replay" else "llamacpp"
    deployment = Deployment.of(model, engine=engine)
    command = registry.engine(engine).command(deployment, find_model(deployment)).at(stranger)

    async def work() -> None:
        with pytest.raises(EngineError, match="ended by itself with exit code"):
            await supervise(command).ensure_ready()

    within(30, work)


def test_a_llama_server_of_the_users_own_works_by_the_same_flags(supervise: Supervise, tmp_path: Path) -> None:
    """A stand-in for llama-server: a program of another name that takes its flags and announces nothing."""
    program = tmp_path / "llama-server"
    program.write_text(
        f'#!/bin/sh\nexec {sys.executable} -m servolt.engines.llamacpp_runner "$@" >/dev/null\n', encoding="utf-8"
    )
    program.chmod(0o755)
    deployment = Deployment.of("guide", engine_executable=str(program), threads=1)
    command = registry.engine("llamacpp").command(deployment, find_model(deployment))

    async def work() -> None:
        supervisor = supervise(command)
        server = await supervisor.ensure_ready()
        assert running(server.pid)
        assert supervisor.effective == {}
        await supervisor.stop()

    within(30, work)


def test_the_key_is_the_engines_and_stands_in_no_command(supervise: Supervise) -> None:
    async def work() -> None:
        supervisor = supervise()
        server = await supervisor.ensure_ready()
        assert await _status(server.command.port, "/props", supervisor.api_key) == 200
        assert await _status(server.command.port, "/props", "another") == 401
        assert supervisor.api_key not in server.command.to_json()
        await supervisor.stop()

    within(30, work)


async def _status(port: int | None, path: str, key: str) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.0\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
    status = int((await reader.read()).split()[1])
    writer.close()
    await writer.wait_closed()
    return status


def test_only_the_newest_logs_are_kept(supervise: Supervise, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    for number in range(KEPT_LOGS + 20):
        (logs / f"replay-{number:012x}-20200101T0000{number:02d}.0.log").touch()

    async def work() -> None:
        supervisor = supervise()
        await supervisor.ensure_ready()
        await supervisor.stop()
        assert supervisor.log_path in list(logs.iterdir())

    within(30, work)
    assert len(list(logs.iterdir())) == KEPT_LOGS
    assert not (logs / f"replay-{0:012x}-20200101T000000.0.log").exists()


def test_it_works_on_the_gateways_own_loop(supervise: Supervise) -> None:
    async def work() -> None:
        supervisor = supervise()
        first = await supervisor.ensure_ready()
        assert first.pid is not None
        os.kill(first.pid, signal.SIGKILL)
        async with asyncio.timeout(1):
            await until(lambda: supervisor.state is State.FAILED)
        await supervisor.ensure_ready()
        await supervisor.stop()
        assert not psutil.Process().children()

    def run(work: Callable[[], Awaitable[None]]) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(asyncio.wait_for(work(), 30))

    run(work)
