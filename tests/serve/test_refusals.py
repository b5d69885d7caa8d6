"""What the gateway does not do, in each dialect's words and with what to do instead."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from servolt.serve.gateway import ROUTES

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 20))


async def quiet() -> None:
    for _ in range(20):
        await asyncio.sleep(0.001)


@pytest.mark.parametrize(("path", "status"), [("/api/chat", 503), ("/v1/chat/completions", 429)])
def test_a_full_queue_refuses_in_each_dialects_words(rig: Any, path: str, status: int) -> None:
    async def scenario() -> None:
        release = asyncio.Event()

        async def wait(work: Any) -> None:
            await release.wait()
            await work.finish()

        async with rig(wait, slots=1, max_queue=1) as one:
            held = [asyncio.create_task(one.ask("/api/chat", CHAT))]
            await quiet()
            held.append(asyncio.create_task(one.ask("/api/chat", CHAT)))
            await quiet()
            reply = await one.ask(path, CHAT)
            release.set()
            await asyncio.gather(*held)
            assert reply.status == status
            assert "maximum pending requests exceeded" in reply.body.decode()
            if status == 429:
                assert reply.headers["x-should-retry"] == "true"
                assert int(reply.headers["retry-after-ms"]) > 0

    run(scenario())


def test_every_route_that_takes_a_body_refuses_every_kind_of_bad_body(rig: Any) -> None:
    bad = [b"", b"{", b"[]", b"7", b"\xff\xfe", b'{"model":5}', b'{"model":""}', b'{"model":"nope"}', b"[" * 100_000]

    async def scenario() -> None:
        async with rig() as one:
            for method, path in ROUTES:
                for body in bad if method == "POST" else []:
                    reply = await one.ask(path, body)
                    assert reply.status in (400, 404), (path, body)
                    if path.startswith("/servolt/"):
                        assert {"title", "status", "code", "remedy"} <= reply.json().keys()
                        continue
                    error = reply.json()["error"]
                    assert isinstance(error, dict if path.startswith("/v1/") else str)
            assert one.works == []

    run(scenario())


@pytest.mark.parametrize(
    ("method", "path", "body", "remedy"),
    [
        ("GET", "/api/chat", None, "It takes POST."),
        ("DELETE", "/api/tags", None, "It takes GET."),
        ("POST", "/v1/models/m", None, "It takes GET."),
        ("GET", "/nothing", None, "What is served: /api/chat"),
        ("POST", "/api/generate", {"model": "m", "prompt": "a", "raw": True, "system": "b"}, "or leave raw out."),
        ("POST", "/api/embed", {"model": "m", "input": "a"}, "lists what each model can do."),
        ("POST", "/v1/completions", {"model": "m", "prompt": "a", "n": 0}, "Correct it."),
        ("POST", "/v1/completions", {"model": "m", "prompt": [1], "echo": True}, "Leave echo out."),
        ("POST", "/v1/chat/completions", CHAT | {"tools": [{}]}, "Leave tools out, or ask a model made for them."),
        ("POST", "/api/chat", b"", "Send a JSON object."),
    ],
)
def test_a_refusal_says_what_to_do(rig: Any, method: str, path: str, body: Any, remedy: str) -> None:
    async def scenario() -> None:
        async with rig() as one:
            reply = await one.ask(path, body, method=method)
            assert 400 <= reply.status < 500
            assert remedy in reply.body.decode()

    run(scenario())


def test_a_body_beyond_the_cap_or_encoded_is_refused_before_it_is_parsed(rig: Any) -> None:
    async def scenario() -> None:
        async with rig() as one:
            assert (await one.ask("/api/chat", b"x" * (20 * 2**20 + 1))).status == 413
            huge = await one.ask("/api/chat", b"{}", headers={"content-length": str(10**12)})
            assert huge.status == 413
            packed = await one.ask("/v1/chat/completions", b"x", headers={"content-encoding": "zstd"})
            assert (packed.status, packed.json()["error"]["code"]) == (415, "unsupported_encoding")

    run(scenario())
