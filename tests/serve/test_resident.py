"""When an engine is loaded, and that no engine stays loaded without anybody knowing."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from servolt import registry
from servolt.deployment import Deployment
from servolt.errors import EngineError
from servolt.model import Model
from servolt.serve import fleet as fleet_module
from servolt.serve.catalogue import Catalogue
from servolt.serve.fleet import Fleet
from servolt.serve.supervisor import State, Supervisor
from servolt.sources import find_model

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": False}
GENERATE = {"model": "m", "prompt": "hi", "stream": False}
DRAINED = "The gateway is being stopped. Ask again later."


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 20))


async def quiet() -> None:
    for _ in range(20):
        await asyncio.sleep(0.001)


class Loading:
    """Makes an engine's start wait until `release` is set."""

    def __init__(self, one: Any) -> None:
        self.begun, self.release = asyncio.Event(), asyncio.Event()
        self._ensure_ready = one.ensure_ready
        one.ensure_ready = self.ensure_ready

    async def ensure_ready(self) -> Any:
        self.begun.set()
        await self.release.wait()
        return await self._ensure_ready()


LEAVERS = [
    ("/api/chat", CHAT),
    ("/v1/chat/completions", CHAT),
    ("/v1/completions", GENERATE),
    ("/api/chat", CHAT | {"options": {"num_ctx": 512}}),
    ("/api/generate", GENERATE | {"context": [1, 2]}),
    ("/api/generate", {"model": "m"}),
]


@pytest.mark.parametrize(("path", "body"), LEAVERS)
def test_a_model_whose_client_left_while_it_loaded_is_seen_and_unloaded(rig: Any, path: str, body: Any) -> None:
    async def scenario() -> None:
        async with rig(keep_alive_s=0.2) as one:
            loading = Loading(one)
            await one.ask(path, body, leave=loading.begun)
            resident = one.fleet.resident(one.offer)
            assert (resident.waiting, resident.in_flight, resident.loaded) == (0, 0, False)
            loading.release.set()
            await quiet()
            held = (await one.ask("/api/ps", method="GET")).json()["models"]
            assert [model["name"] for model in held] == ["m:latest"]
            async with asyncio.timeout(2):
                await one.stopped.wait()
            assert (one.starts, one.stops) == (1, 1)
            assert one.works == []

    run(scenario())


def test_a_model_whose_client_left_while_it_loaded_serves_the_next_one(rig: Any) -> None:
    async def scenario() -> None:
        async with rig() as one:
            loading = Loading(one)
            await one.ask("/api/chat", CHAT, leave=loading.begun)
            asking = asyncio.create_task(one.ask("/api/chat", CHAT))
            await quiet()
            loading.release.set()
            assert (await asking).json()["message"]["content"] == "Hello you"
            assert one.starts == 1

    run(scenario())


def test_a_model_that_loads_for_nobody_can_be_stopped(rig: Any) -> None:
    async def scenario() -> None:
        async with rig() as one:
            loading = Loading(one)
            await one.ask("/api/chat", CHAT, leave=loading.begun)
            loading.release.set()
            await quiet()
            unload = await one.ask("/api/generate", {"model": "m", "keep_alive": 0})
            assert unload.json()["done_reason"] == "unload"
            assert (one.starts, one.stops) == (1, 1)

    run(scenario())


def test_a_start_that_fails_after_its_client_left_harms_nobody(rig: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with rig() as one:
            begun, release, ensure_ready = asyncio.Event(), asyncio.Event(), one.ensure_ready

            async def fail() -> None:
                begun.set()
                await release.wait()
                raise EngineError("It did not start.", "See its log.")

            one.ensure_ready = fail
            await one.ask("/api/chat", CHAT, leave=begun)
            release.set()
            await quiet()
            one.ensure_ready = ensure_ready
            assert (await one.ask("/api/chat", CHAT)).status == 200

    run(scenario())
    assert caplog.records == []


def test_one_who_leaves_the_queue_last_does_not_keep_the_model_loaded(rig: Any) -> None:
    async def scenario() -> None:
        release, leave = asyncio.Event(), asyncio.Event()

        async def wait(work: Any) -> None:
            await release.wait()
            await work.finish()

        async with rig(wait, slots=1, keep_alive_s=0.01) as one:
            asking = [asyncio.create_task(one.ask("/api/chat", CHAT)) for _ in range(2)]
            asking.append(asyncio.create_task(one.ask("/api/chat", CHAT, leave=leave)))
            await quiet()
            leave.set()
            release.set()
            await asyncio.gather(*asking)
            async with asyncio.timeout(2):
                await one.stopped.wait()

    run(scenario())


REFUSED_LATER = [
    ("/api/chat", CHAT | {"options": {"num_ctx": 512}, "messages": [{"role": "nobody"}]}),
    ("/api/chat", CHAT | {"options": {"num_ctx": -1}}),
    ("/api/generate", GENERATE | {"options": {"num_ctx": 512}, "format": "xml"}),
]


@pytest.mark.parametrize(("path", "body"), REFUSED_LATER)
def test_a_request_that_is_refused_after_the_load_leaves_a_timer(rig: Any, path: str, body: Any) -> None:
    async def scenario() -> None:
        async with rig(keep_alive_s=0.02) as one:
            assert (await one.ask(path, body)).status == 400
            if one.starts:
                async with asyncio.timeout(2):
                    await one.stopped.wait()
            assert one.starts == one.stops

    run(scenario())


@pytest.mark.parametrize(("path", "body"), LEAVERS)
def test_no_way_in_goes_around_the_queue(rig: Any, path: str, body: Any) -> None:
    async def scenario() -> None:
        async with rig(max_queue=1) as one:
            loading = Loading(one)
            first = asyncio.create_task(one.ask("/api/chat", CHAT))
            await quiet()
            assert (await one.ask(path, body)).status in (429, 503)
            loading.release.set()
            assert (await first).status == 200

    run(scenario())


def test_a_context_is_made_while_the_engine_is_still_held(rig: Any) -> None:
    async def speak(work: Any) -> None:
        if work.path == "/apply-template":
            work.refuse(200, {"prompt": "hi"})
        elif work.path == "/tokenize":
            work.refuse(200, {"tokens": [7] * len(work.body["content"])})
        else:
            await work.say("yes")
            await work.finish()

    async def scenario() -> None:
        async with rig(speak) as one:
            for stream in (False, True):
                body = GENERATE | {"context": [1, 2], "keep_alive": 0, "stream": stream}
                reply = (await one.ask("/api/generate", body)).lines()[-1]
                assert reply["context"] == [1, 2, 7, 7, 7, 7, 7]
                await quiet()
                assert one.starts == one.stops == 1 + stream

    run(scenario())


def test_a_page_of_metrics_starts_no_engine(rig: Any) -> None:
    async def scenario() -> None:
        async with rig() as one:
            one.command = one.command.model_copy(update={"metrics_path": "/metrics"})
            await one.ask("/api/chat", CHAT)
            one._running = False
            noticed = iter([None])  # it dies right after the page has begun
            one.exit_code = lambda: next(noticed, -9)
            page = await one.ask("/metrics", method="GET")
            assert (page.status, one.starts) == (200, 1)
            assert b"servolt_answers_total" in page.body

    run(scenario())


def test_an_engine_that_fails_or_hangs_is_left_out_of_the_page_of_metrics(
    rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_module, "READINGS_S", 0.01)

    async def fail(path: str) -> bytes:
        raise EngineError("It failed.", "See its log.")

    async def hang(path: str) -> bytes:
        await asyncio.sleep(60)
        return b""

    async def scenario() -> None:
        async with rig() as one:
            one.command = one.command.model_copy(update={"metrics_path": "/metrics"})
            await one.ask("/api/chat", CHAT)
            for page in (fail, hang):
                monkeypatch.setattr(one.fleet.resident(one.offer).running(), "page", page)
                answer = await one.ask("/metrics", method="GET")
                assert answer.status == 200
                assert b"servolt_answers_total" in answer.body

    run(scenario())


def test_what_goes_wrong_when_engines_are_stopped_is_not_kept_back(rig: Any) -> None:
    async def fail(grace_s: float = 0.0) -> None:
        raise RuntimeError("a fault of our own")

    async def scenario() -> None:
        async with rig() as one:
            await one.ask("/api/chat", CHAT)
            stop, one.stop = one.stop, fail
            with pytest.raises(RuntimeError, match="a fault of our own"):
                await one.fleet.close()
            one.stop = stop

    run(scenario())


def test_a_drain_tells_who_waits_for_a_model_to_load(rig: Any) -> None:
    async def scenario() -> None:
        async with rig() as one:
            loading = Loading(one)
            bodies = [("/api/chat", CHAT), ("/v1/chat/completions", CHAT | {"stream": True})]
            asking = [asyncio.create_task(one.ask(path, body)) for path, body in bodies]
            await loading.begun.wait()
            await one.gateway.drain(0.01)
            ollama, openai = await asyncio.gather(*asking)
            late = await one.ask("/api/chat", CHAT)
            assert (ollama.status, ollama.json()["error"]) == (503, DRAINED)
            assert (openai.status, openai.json()["error"]["message"]) == (503, DRAINED)
            assert (late.status, late.json()["error"]) == (503, DRAINED)
            loading.release.set()

    run(scenario())


def test_a_real_engine_that_was_started_for_nobody_is_unloaded(tmp_path: Path) -> None:
    deployment = Deployment.of("replay?load_s=0.2", engine="replay")
    changes: asyncio.Queue[State] = asyncio.Queue()

    def supervise(deployment: Deployment, model: Model) -> Supervisor:
        command, launcher = registry.engine("replay").command(deployment, model), registry.launcher("process")
        return Supervisor(command, launcher, logs=tmp_path, on_change=changes.put_nowait)

    async def scenario() -> None:
        catalogue = Catalogue.of([(deployment, find_model(deployment))])
        fleet = Fleet(catalogue, supervise, keep_alive_s=0.1, max_queue=8)
        resident = fleet.resident(catalogue.offers[0])
        asking = asyncio.create_task(resident.load())
        seen = [await changes.get()]
        asking.cancel()
        while len(seen) < 4:
            seen.append(await changes.get())
        assert seen == [State.STARTING, State.READY, State.STOPPING, State.STOPPED]
        assert fleet.loaded() == []
        await fleet.close()

    run(scenario())


def test_who_waits_for_a_model_that_is_closed_is_told_and_nothing_is_left(rig: Any) -> None:
    async def scenario() -> None:
        async with rig() as one:
            loading = Loading(one)
            asking = asyncio.create_task(one.ask("/api/chat", CHAT))
            await loading.begun.wait()
            await one.fleet.close()
            reply = await asking
            assert reply.status == 500
            assert reply.json()["error"] == "The engine was stopped before it was ready. Ask again."
            loading.release.set()
            await quiet()
            assert one.starts == 0

    run(scenario())
