"""What the gateway does with a request, whatever the engine does."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from servolt.errors import EngineError
from servolt.serve import gateway as gateway_module
from servolt.serve.gateway import ROUTES

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
BOTH = [("/api/chat", CHAT), ("/v1/chat/completions", CHAT | {"stream": True})]


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """No scenario takes long, unless something waits for ever."""
    asyncio.run(asyncio.wait_for(scenario, 20))


async def quiet() -> None:
    """Lets everything that is ready run."""
    for _ in range(20):
        await asyncio.sleep(0.001)


@pytest.mark.parametrize(("path", "body"), BOTH)
def test_a_client_that_leaves_mid_stream_stops_the_engine(rig: Any, path: str, body: Any) -> None:
    async def endless(work: Any) -> None:
        while True:
            await work.say("x")
            await asyncio.sleep(0.001)

    async def scenario() -> None:
        async with rig(endless) as one:
            leave = asyncio.Event()
            await one.ask(path, body, leave=leave, on_piece=lambda piece: leave.set())
            async with asyncio.timeout(1):
                await one.works[0].aborted.wait()
            assert one.fleet.resident(one.offer).in_flight == 0

    run(scenario())


@pytest.mark.parametrize("body", [CHAT | {"stream": False}, CHAT], ids=["unary", "stream"])
def test_a_client_that_leaves_before_the_first_token_stops_the_engine(rig: Any, body: Any) -> None:
    async def scenario() -> None:
        prefilling = asyncio.Event()

        async def silent(work: Any) -> None:
            prefilling.set()
            await asyncio.sleep(60)

        async with rig(silent) as one:
            asking = asyncio.create_task(one.ask("/v1/chat/completions", body, leave=prefilling))
            async with asyncio.timeout(2):
                await asking
                await one.works[0].aborted.wait()

    run(scenario())


def test_a_client_that_leaves_the_queue_never_reaches_the_engine(rig: Any) -> None:
    async def scenario() -> None:
        release, leave = asyncio.Event(), asyncio.Event()

        async def wait(work: Any) -> None:
            await release.wait()
            await work.finish()

        async with rig(wait, slots=1) as one:
            first = asyncio.create_task(one.ask("/api/chat", CHAT))
            await quiet()
            second = asyncio.create_task(one.ask("/api/chat", CHAT, leave=leave))
            await quiet()
            assert one.fleet.resident(one.offer).waiting == 1
            leave.set()
            await second
            release.set()
            await first
            assert len(one.works) == 1
            assert one.fleet.resident(one.offer).waiting == 0

    run(scenario())


def test_an_engine_lost_mid_stream_is_told_in_each_dialect_and_the_next_request_works(rig: Any) -> None:
    async def once_broken(work: Any) -> None:
        await work.say("a")
        await asyncio.sleep(0.01)
        if len(broken) < 2:
            broken.append(work)
            work.die()
        else:
            await work.finish()

    broken: list[Any] = []

    async def scenario() -> None:
        async with rig(once_broken) as one:
            ollama = await one.ask("/api/chat", CHAT)
            assert ollama.status == 200
            assert "was lost" in ollama.lines()[-1]["error"]
            openai = await one.ask("/v1/chat/completions", CHAT | {"stream": True})
            assert b'"code":"engine_lost"' in openai.pieces[-1]
            assert openai.body.endswith(b"data: [DONE]\n\n")
            assert (await one.ask("/api/chat", CHAT)).lines()[-1]["done_reason"] == "stop"

    run(scenario())


@pytest.mark.parametrize(("path", "body"), [("/api/chat", CHAT | {"stream": False}), ("/v1/chat/completions", CHAT)])
def test_an_engine_lost_before_the_first_byte_is_a_status(rig: Any, path: str, body: Any) -> None:
    async def die(work: Any) -> None:
        work.die()

    async def scenario() -> None:
        async with rig(die) as one:
            reply = await one.ask(path, body)
            assert reply.status == 500
            assert "ended before it answered" in reply.body.decode()

    run(scenario())


def test_an_engine_that_takes_no_connection_is_asked_again_once_it_has_been_started_anew(rig: Any) -> None:
    async def scenario() -> None:
        async with rig() as one:
            assert (await one.ask("/api/chat", CHAT)).status == 200
            port = one._server.sockets[0].getsockname()[1]
            one._server.close()
            for connection in list((await one.fleet.resident(one.offer).upstream())._connections._all):
                connection.abort()
            one._running = False

            async def restart() -> Any:
                one._server = await asyncio.start_server(one._serve, "127.0.0.1", port)
                one._running = True
                return one

            one.ensure_ready = lambda: asyncio.sleep(0, one)
            one.wait = restart
            assert (await one.ask("/api/chat", CHAT)).status == 200

    run(scenario())


def test_an_engine_that_does_not_start_says_why(rig: Any) -> None:
    async def fail() -> None:
        raise EngineError("The engine llamacpp ended by itself with exit code 1 before it was ready.", "Its log is X.")

    async def scenario() -> None:
        async with rig() as one:
            one.ensure_ready = fail
            for path in ("/api/chat", "/v1/chat/completions"):
                reply = await one.ask(path, CHAT)
                assert reply.status == 500
                assert "exit code 1" in reply.body.decode()
            assert one.fleet.resident(one.offer).waiting == 0

    run(scenario())


def test_a_drain_lets_answers_finish_refuses_new_ones_and_says_so(rig: Any) -> None:
    async def scenario() -> None:
        release = asyncio.Event()

        async def wait(work: Any) -> None:
            await work.say("a")
            await release.wait()
            await work.finish()

        async with rig(wait) as one:
            running = asyncio.create_task(one.ask("/api/chat", CHAT))
            await quiet()
            draining = asyncio.create_task(one.gateway.drain(10))
            await quiet()
            assert (await one.ask("/ready", method="GET")).status == 503
            assert (await one.ask("/health", method="GET")).status == 200
            assert (await one.ask("/api/chat", CHAT)).status == 503
            assert (await one.ask("/v1/chat/completions", CHAT)).json()["error"]["code"] == "shutting_down"
            release.set()
            await draining
            assert (await running).lines()[-1]["done"] is True

    run(scenario())


@pytest.mark.parametrize("hurried", [True, False], ids=["second signal", "patience at its end"])
def test_what_a_drain_can_not_wait_for_ends_with_an_error_in_its_dialect(rig: Any, hurried: bool) -> None:
    async def endless(work: Any) -> None:
        await work.say("a")
        await asyncio.sleep(60)

    async def scenario() -> None:
        async with rig(endless) as one:
            asking = [asyncio.create_task(one.ask(path, body)) for path, body in BOTH]
            asking.append(asyncio.create_task(one.ask("/api/chat", CHAT | {"stream": False})))
            await quiet()
            draining = asyncio.create_task(one.gateway.drain(60 if hurried else 0.01))
            await quiet()
            if hurried:
                one.gateway.hurry()
            async with asyncio.timeout(3):
                await draining
                ollama, openai, unary = await asyncio.gather(*asking)
            assert "is being stopped" in ollama.lines()[-1]["error"]
            assert b"is being stopped" in openai.pieces[-1]
            assert unary.status == 503
            assert one.gateway.in_flight == 0

    run(scenario())


def test_an_idle_model_is_unloaded_and_loaded_again(rig: Any) -> None:
    async def scenario() -> None:
        async with rig(keep_alive_s=0.02) as one:
            await one.ask("/api/chat", CHAT)
            assert one.starts == 1
            async with asyncio.timeout(2):
                await one.stopped.wait()
            assert (await one.ask("/api/ps", method="GET")).json() == {"models": []}
            assert (await one.ask("/api/chat", CHAT | {"keep_alive": -1})).status == 200
            await asyncio.sleep(0.05)
            assert (one.starts, one.stops) == (2, 1)

    run(scenario())


@pytest.mark.parametrize(("executable", "told"), [(None, 0), ("/opt/llama-server", None)])
def test_what_a_program_of_the_users_own_does_with_a_gpu_is_not_known(
    rig: Any, executable: str | None, told: int | None
) -> None:
    async def scenario() -> None:
        async with rig(executable=executable) as one:
            await one.ask("/api/chat", CHAT)
            entry = (await one.ask("/api/ps", method="GET")).json()["models"][0]
            assert entry.get("size_vram") == told

    run(scenario())


@pytest.mark.parametrize(("usage", "told"), [({"usage": {"prompt_tokens": 4}}, 4), ({"usage": {}}, None), ({}, None)])
def test_tokens_that_an_engine_did_not_count_are_left_out_of_an_embedding(
    rig: Any, usage: Any, told: int | None
) -> None:
    async def script(work: Any) -> None:
        work.refuse(200, {"data": [{"index": 1, "embedding": [0.0]}, {"index": 0, "embedding": [1.0]}]} | usage)

    async def scenario() -> None:
        async with rig(script, pooling="mean") as one:
            reply = (await one.ask("/api/embed", {"model": "m", "input": ["a", "b"]})).json()
            assert reply["embeddings"] == [[1.0], [0.0]]
            assert reply.get("prompt_eval_count") == told

    run(scenario())


@pytest.mark.parametrize(
    ("reason", "told"), [("stop", "stop"), ("length", "length"), ("content_filter", "content_filter"), ("abort", None)]
)
def test_ollama_is_told_why_an_answer_ended(rig: Any, reason: str, told: str | None) -> None:
    async def script(work: Any) -> None:
        await work.say("a")
        await asyncio.sleep(0.02)
        await work.finish(reason=reason)

    async def scenario() -> None:
        async with rig(script) as one:
            last = (await one.ask("/api/chat", CHAT)).lines()[-1]
            assert last.get("done_reason") == told
            assert ("error" in last) == (told is None)

    run(scenario())


def test_keep_alive_0_unloads_after_the_request_and_not_before(rig: Any) -> None:
    async def scenario() -> None:
        async with rig() as one:
            reply = await one.ask("/api/chat", CHAT | {"keep_alive": 0})
            assert reply.lines()[-1]["done"] is True
            await quiet()
            assert (one.starts, one.stops) == (1, 1)

    run(scenario())


def test_events_that_arrive_together_leave_together_and_none_is_lost(rig: Any, chunk: Callable[..., bytes]) -> None:
    async def burst(work: Any) -> None:
        await work.say("first")
        await asyncio.sleep(0.02)
        await work.send(b"".join(chunk(str(number)) for number in range(50)))
        await asyncio.sleep(0.02)
        await work.finish(51)

    async def scenario() -> None:
        async with rig(burst) as one:
            reply = await one.ask("/api/chat", CHAT)
            assert [line["message"]["content"] for line in reply.lines()[:-1]] == ["first", *map(str, range(50))]
            assert len(reply.pieces) == 3

    run(scenario())


def test_a_client_that_stops_reading_is_let_go(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_module, "MAX_STALL_S", 0.01)
    monkeypatch.setattr(gateway_module, "SWEEP_S", 0.01)

    async def endless(work: Any) -> None:
        while True:
            await work.say("x" * 1000)
            await asyncio.sleep(0.001)

    async def scenario() -> None:
        async with rig(endless) as one:
            body = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
            inbox = [{"type": "http.request", "body": body, "more_body": False}]

            async def receive() -> Any:
                return inbox.pop() if inbox else await asyncio.sleep(60)

            async def send(message: Any) -> None:
                if message["type"] == "http.response.body":
                    await asyncio.sleep(60)

            scope = {"type": "http", "method": "POST", "path": "/api/chat", "headers": []}
            async with asyncio.timeout(5):
                await one.gateway(scope, receive, send)
                await one.works[0].aborted.wait()

    run(scenario())


def test_a_fault_of_the_gateway_itself_is_a_500_without_its_inside(
    rig: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def boom(exchange: Any, fleet: Any) -> None:
        raise RuntimeError("secret inside")

    monkeypatch.setitem(ROUTES, ("GET", "/api/tags"), boom)

    async def scenario() -> None:
        async with rig() as one:
            reply = await one.ask("/api/tags", method="GET")
            assert reply.status == 500
            assert b"secret" not in reply.body

    run(scenario())
    assert "secret inside" in caplog.text


@pytest.mark.parametrize(("path", "body"), BOTH)
def test_one_gateway_counts_what_it_did(rig: Any, path: str, body: Any) -> None:
    async def scenario() -> None:
        async with rig() as one:
            await one.ask(path, body)
            page = (await one.ask("/metrics", method="GET")).body.decode()
            assert f'servolt_requests_total{{route="{path}",status="200"}} 1.0' in page
            assert 'servolt_answers_total{deployment="m",finished_reason="stop"} 1.0' in page
            assert 'servolt_time_to_first_token_seconds_count{deployment="m"} 1.0' in page

    run(scenario())
