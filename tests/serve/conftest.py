"""A gateway in front of an engine that does what the test says, all in one event loop."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import pytest

from servolt.command import Command
from servolt.deployment import Deployment
from servolt.model import Model
from servolt.serve.access import Access
from servolt.serve.catalogue import Catalogue, Offer
from servolt.serve.fleet import Fleet
from servolt.serve.gateway import Gateway

Script = Callable[["Work"], Coroutine[Any, Any, None]]

SIZES = (
    *("file_bytes", "total_params", "weights_bytes", "num_layers", "hidden_size", "intermediate_size"),
    *("num_heads", "num_kv_heads", "head_dim_k", "head_dim_v", "vocab_size", "max_position_embeddings"),
)


def event(choices: list[Any], **more: Any) -> bytes:
    """In the form in which llama.cpp (xllamacpp 2026.10.11549) sent it."""
    return b"data: " + json.dumps({"choices": choices, "object": "chat.completion.chunk"} | more).encode() + b"\n\n"


def delta(content: str | None = None, reason: str | None = None, **more: Any) -> bytes:
    said = {} if content is None else {"content": content}
    return event([{"index": 0, "finish_reason": reason, "delta": said | more}])


class Work:
    """One request that reached the engine."""

    def __init__(self, path: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        self.path, self.body, self.writer = path, body, writer
        self.aborted = asyncio.Event()
        self._begun = False

    async def send(self, data: bytes) -> None:
        if not self._begun:
            self._begun = True
            self.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await self.writer.drain()

    async def say(self, *words: str) -> None:
        for word in words:
            await self.send(delta(word))

    async def finish(self, tokens: int = 2, reason: str = "stop") -> None:
        usage = {"prompt_tokens": 7, "completion_tokens": tokens, "prompt_tokens_details": {"cached_tokens": 3}}
        timings = {"prompt_n": 4, "prompt_ms": 20.5, "predicted_n": tokens, "predicted_ms": 40.25}
        await self.send(delta(reason=reason))
        await self.send(event([], usage=usage, timings=timings))
        await self.send(b"data: [DONE]\n\n")
        self.writer.write(b"0\r\n\r\n")

    def refuse(self, status: int, plain: Any) -> None:
        content = json.dumps(plain).encode()
        self.writer.write(b"HTTP/1.1 %d No\r\nContent-Length: %d\r\n\r\n" % (status, len(content)) + content)

    def die(self) -> None:
        self.writer.transport.abort()


async def greet(work: Work) -> None:
    await work.send(delta(role="assistant", content=None))
    await work.say("Hello", " you")
    await work.finish()


class Reply:
    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.pieces: list[bytes] = []

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def json(self) -> Any:
        return json.loads(self.body)

    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]


class Rig:
    """Engine, supervision and gateway; `async with` starts and ends them."""

    pid: int | None = None
    log_path: Path | None = None
    api_key = "secret"

    def __init__(
        self,
        script: Script = greet,
        *,
        slots: int = 2,
        template: str = "",
        pooling: str | None = None,
        executable: str | None = None,
        **fleet: Any,
    ) -> None:
        self.script, self.slots = script, slots
        self.works: list[Work] = []
        self.starts = self.stops = 0
        self.stopped = asyncio.Event()
        self.effective: Mapping[str, Any] = {}
        self.command = Command(argv=("x",), engine="replay", deployment_digest="x")
        sizes = dict.fromkeys(SIZES, 0)
        fields = {"name": "m", "architecture": "llama", "format": "gguf", "quantization": "q8_0"}
        model = Model.from_plain(fields | sizes | {"chat_template": template, "pooling": pooling})
        offers = [Offer(Deployment(model="m", engine_executable=executable), model, ("m", "m:q8_0"))]
        self.fleet = Fleet(Catalogue(offers), self.supervise, **({"keep_alive_s": -1.0, "max_queue": 8} | fleet))
        self.gateway = Gateway(self.fleet, Access(loopback=True))
        self.offer = offers[0]
        self._running = False

    def supervise(self, deployment: Deployment, model: Model) -> "Rig":
        return self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def exit_code(self) -> int | None:
        return None if self._running else -9

    async def wait(self) -> int:
        return -9

    async def ensure_ready(self) -> "Rig":
        self.starts += not self._running
        self._running = True
        return self

    async def stop(self, grace_s: float = 0.0) -> None:
        self.stops += self._running
        self._running = False
        self.stopped.set()

    async def __aenter__(self) -> "Rig":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.fleet.close()
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await self._answer(head.decode(), reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, path, _ = head.split("\r\n", 1)[0].split(" ")
        lengths = [int(line.split(":")[1]) for line in head.lower().split("\r\n") if line.startswith("content-length")]
        body = json.loads(await reader.readexactly(lengths[0])) if lengths else {}
        work = Work(path, body, writer)
        if method == "GET":
            props = {"default_generation_settings": {"n_ctx": 2048}, "total_slots": self.slots}
            work.refuse(200 if path == "/props" else 404, props)
            return
        self.works.append(work)
        doing = asyncio.create_task(self.script(work))
        leaving = asyncio.create_task(reader.read(1))
        await asyncio.wait((doing, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            work.aborted.set()
            doing.cancel()
        leaving.cancel()
        await asyncio.gather(doing, leaving, return_exceptions=True)

    async def ask(
        self,
        path: str,
        plain: Any = None,
        *,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        leave: asyncio.Event | None = None,
        on_piece: Callable[[bytes], None] = lambda piece: None,
    ) -> Reply:
        """One request through the ASGI callable. The client leaves once `leave` is set."""
        body = plain if isinstance(plain, bytes) else b"" if plain is None else json.dumps(plain).encode()
        reply, inbox = Reply(), [{"type": "http.request", "body": body, "more_body": False}]
        ended = asyncio.Event()

        async def receive() -> Any:
            if inbox:
                return inbox.pop()
            await (leave or ended).wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                reply.status = message["status"]
                reply.headers = {name.decode(): value.decode("latin-1") for name, value in message["headers"]}
                return
            if message.get("body"):
                reply.pieces.append(message["body"])
                on_piece(message["body"])
            if not message.get("more_body"):
                ended.set()

        pairs = [
            (name.encode(), value.encode()) for name, value in ({"host": "127.0.0.1"} | dict(headers or {})).items()
        ]
        scope = {"type": "http", "method": method, "path": path, "headers": pairs}
        await self.gateway(scope, receive, send)
        return reply


@pytest.fixture
def rig() -> type[Rig]:
    return Rig


@pytest.fixture
def chunk() -> Callable[..., bytes]:
    return delta
