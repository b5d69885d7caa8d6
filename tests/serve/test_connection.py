"""The HTTP client, against a server that writes what the test says."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from servolt.serve import connection as module
from servolt.serve.connection import Connections

Answers = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3;x=y\r\ncde\r\n0\r\n\r\n"


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 10))


@asynccontextmanager
async def serving(answers: Answers) -> Any:
    """A pool of connections to a server; `answers` gets the number of the connection for each request."""
    made = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal made
        made += 1
        number = made
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await answers(reader, writer, number)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    pool = Connections(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        yield pool
    finally:
        pool.close()
        server.close()


def writes(*pieces: bytes, close: bool = False) -> Answers:
    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if close:
            writer.close()

    return answers


async def get(pool: Connections, *, stream: bool = False) -> tuple[Any, int, bytes]:
    connection = await pool.open()
    status, body = await connection.ask(REQUEST, stream=stream), await connection.read_all()
    connection.release()
    return connection, status, body


@pytest.mark.parametrize("cut", range(1, len(CHUNKED)))
def test_an_answer_reads_the_same_wherever_it_is_cut(cut: int) -> None:
    async def scenario() -> None:
        async with serving(writes(CHUNKED[:cut], CHUNKED[cut:])) as pool:
            assert (await get(pool))[1:] == (200, b"abcde")

    run(scenario())


def test_a_connection_is_used_again() -> None:
    async def scenario() -> None:
        async with serving(writes(OK)) as pool:
            first, *_ = await get(pool)
            second, *_ = await get(pool)
            assert second is first

    run(scenario())


@pytest.mark.parametrize("head", [b"Connection: close\r\n", b""])
def test_one_that_the_server_closes_is_not(head: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\n" + head + b"Content-Length: 2\r\n\r\nok"

    async def scenario() -> None:
        async with serving(writes(answer, close=True)) as pool:
            first, *_ = await get(pool)
            await asyncio.sleep(0.01)
            second, status, body = await get(pool)
            assert (second is not first, status, body) == (True, 200, b"ok")

    run(scenario())


def test_a_server_that_closes_after_streams_without_saying_so_never_meets_the_next_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PROBATION_S", 0.01)

    async def scenario() -> None:
        async with serving(writes(CHUNKED, close=True)) as pool:
            for _ in range(50):
                assert (await get(pool, stream=True))[2] == b"abcde"

    run(scenario())


def test_a_server_that_stays_open_after_streams_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBATION_S", 0.01)

    async def scenario() -> None:
        async with serving(writes(CHUNKED)) as pool:
            await get(pool, stream=True)
            await asyncio.sleep(0.05)
            first, *_ = await get(pool, stream=True)
            second, *_ = await get(pool, stream=True)
            assert second is first

    run(scenario())


@pytest.mark.parametrize("answer", [CHUNKED[:60], OK[:-1], b"", b"HTTP/1.1 200"])
def test_an_answer_that_is_cut_off_is_an_error(answer: bytes) -> None:
    async def scenario() -> None:
        async with serving(writes(answer, close=True)) as pool:
            with pytest.raises(ConnectionError):
                await get(pool)

    run(scenario())


@pytest.mark.parametrize("answer", [b"\x00\x01\x02\r\n\r\n", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 abc OK\r\n\r\n"])
def test_what_is_not_http_is_an_error(answer: bytes) -> None:
    async def scenario() -> None:
        async with serving(writes(answer)) as pool:
            with pytest.raises(ConnectionError, match="not HTTP"):
                await get(pool)

    run(scenario())


def test_silence_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE_S", 0.02)

    async def scenario() -> None:
        async with serving(writes(CHUNKED[:50])) as pool:
            with pytest.raises(TimeoutError):
                await get(pool)

    run(scenario())


def test_a_port_without_a_server_is_refused_at_once() -> None:
    async def scenario() -> None:
        async with serving(writes()) as pool:
            port = pool._port
        with pytest.raises(OSError, match=r"[Cc]onnect"):
            await Connections(f"http://127.0.0.1:{port}").open()

    run(scenario())


def test_what_a_slow_reader_leaves_is_not_kept_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUFFER_BYTES", 10_000)
    size = 20_000_000
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size

    async def scenario() -> None:
        async with serving(writes(head, b"x" * size)) as pool:
            connection = await pool.open()
            await connection.ask(REQUEST)
            await asyncio.sleep(0.1)
            assert connection._waiting_bytes < 1_000_000
            assert len(await connection.read_all()) == size

    run(scenario())
