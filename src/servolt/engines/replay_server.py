"""The process of the replay engine: an OpenAI-style server that speaks like llama.cpp's and works by the law.

It has the traps of real servers: 503 while loading, a first chunk that bears only the role, one chunk more than there
are tokens, usage in the last one, refusal of a prompt that is too long, and it stops when the client leaves.
"""

import argparse
import asyncio
import contextlib
import hmac
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import fields
from typing import Any

import orjson
import uvicorn

from servolt.engines.replay_batch import Batch, Sequence
from servolt.engines.replay_law import Law
from servolt.engines.replay_protocol import Answer, Generation, RefusedError, read_generation, token_ids

__all__: list[str] = []

JSON = b"application/json; charset=utf-8"
MAX_BODY_BYTES = 64 * 2**20
Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


def main(argv: list[str]) -> None:
    asked = _parser().parse_args(argv)
    law = Law(**{each.name: getattr(asked, each.name) for each in fields(Law)})
    asyncio.run(_serve(App(law, asked), asked))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="replay_server", allow_abbrev=False, description="The replay engine.")
    parser.add_argument("-a", "--alias", default="replay")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("-np", "--parallel", type=int, default=8)
    parser.add_argument("-c", "--ctx-size", type=int, default=4096, help="of one sequence")
    parser.add_argument("--cache-prompt", action=argparse.BooleanOptionalAction, default=True)
    for each in fields(Law):
        kind = int if each.type is int else float
        parser.add_argument(f"--{each.name.replace('_', '-')}", type=kind, default=each.default)
    return parser


async def _serve(app: "App", asked: argparse.Namespace) -> None:
    config = uvicorn.Config(
        app, host=asked.host, port=asked.port, log_level="warning", access_log=False, lifespan="off", ws="none"
    )
    config.timeout_graceful_shutdown = 1
    server = uvicorn.Server(config)
    batch = asyncio.create_task(app.batch.run())
    loading = asyncio.create_task(app.load(server, asked))
    try:
        await server.serve()
    finally:
        for task in (batch, loading):
            task.cancel()


class App:
    """One fake engine behind ASGI."""

    def __init__(self, law: Law, asked: argparse.Namespace) -> None:
        self.law, self.alias, self.context = law, asked.alias, asked.ctx_size
        self.batch = Batch(law, asked.parallel, caching=asked.cache_prompt)
        self.key = os.environ.get("REPLAY_API_KEY", "")
        self.started, self.loaded = time.monotonic(), False
        self.pages = {
            "/health": self.health,
            "/metrics": self.metrics,
            "/props": self.props,
            "/v1/models": self.models,
        }

    async def load(self, server: uvicorn.Server, asked: argparse.Namespace) -> None:
        """Takes its time with the port open, then says what holds."""
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.001)
        await asyncio.sleep(self.law.load_s)
        self.loaded = True
        told = {
            "event": "ready",
            "url": f"http://{asked.host}:{asked.port}",
            "pid": os.getpid(),
            "engine_version": "1",
            "max_model_len": self.context,
            "max_num_seqs": self.batch.max_num_seqs,
            "enable_prefix_caching": self.batch.caching,
            "law": vars(self.law),
        }
        sys.stdout.write(orjson.dumps(told).decode().replace('{"event":', '{"event": ', 1) + "\n")
        sys.stdout.flush()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.route(scope, receive, send)
        except RefusedError as refusal:
            await _respond(send, refusal.status, orjson.dumps(refusal.body))

    async def route(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        if path != "/health" and not self.allowed(scope):
            raise RefusedError(401, "authentication_error", "Invalid API Key")
        if not self.loaded:
            raise RefusedError(503, "unavailable_error", "Loading model")
        if method == "GET" and path in self.pages:
            kind = b"text/plain; version=0.0.4" if path == "/metrics" else JSON
            await _respond(send, 200, self.pages[path](), kind)
        elif method == "POST" and path in ("/v1/chat/completions", "/v1/completions"):
            await self.generate(_object(await _body(receive)), "chat" in path, receive, send)
        elif method == "POST" and path == "/tokenize":
            content = _object(await _body(receive)).get("content", "")
            await _respond(send, 200, orjson.dumps({"tokens": token_ids(str(content))}))
        else:
            raise RefusedError(404, "not_found_error", "File Not Found")

    def allowed(self, scope: Scope) -> bool:
        given = dict(scope["headers"]).get(b"authorization", b"")
        return not self.key or hmac.compare_digest(given, f"Bearer {self.key}".encode())

    def health(self) -> bytes:
        return b'{"status":"ok"}'

    def props(self) -> bytes:
        settings = {"n_ctx": self.context}
        slots = self.batch.max_num_seqs
        return orjson.dumps(
            {
                "default_generation_settings": settings,
                "total_slots": slots,
                "model_alias": self.alias,
                "law": vars(self.law),
            }
        )

    def models(self) -> bytes:
        listed = {"id": self.alias, "object": "model", "created": int(time.time()), "owned_by": "replay"}
        return orjson.dumps({"object": "list", "data": [listed]})

    def metrics(self) -> bytes:
        """Counters end in _total. Joules follow from the law, not from a clock of the machine's load."""
        lived_s = time.monotonic() - self.started
        busy_s = self.batch.counters["busy_s"]
        joules = self.law.idle_watts * lived_s + (self.law.busy_watts - self.law.idle_watts) * busy_s
        samples = {f"{name}_total": value for name, value in self.batch.counters.items() if name != "late_s"}
        samples |= {"energy_joules_total": joules, "late_s": self.batch.counters["late_s"]}
        samples |= {"requests_running": len(self.batch.running), "requests_waiting": len(self.batch.waiting)}
        return "".join(f"replay:{name} {value!r}\n" for name, value in samples.items()).encode()

    async def generate(self, body: Mapping[str, Any], chat: bool, receive: Receive, send: Send) -> None:
        asked = read_generation(body, chat, self.law, self.context)
        sequence = Sequence(asked.prompt, asked.output_tokens)
        self.batch.add(sequence)
        leaving = asyncio.create_task(_left(receive))
        answering = asyncio.create_task(self.answer(asked, sequence, send))
        try:
            await asyncio.wait((leaving, answering), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.batch.abort(sequence)
            for task in (leaving, answering):
                task.cancel()
            await asyncio.gather(leaving, answering, return_exceptions=True)

    async def answer(self, asked: Generation, sequence: Sequence, send: Send) -> None:
        answer = Answer(asked, sequence, self.alias, self.law)
        if not asked.stream:
            async for token in _tokens(sequence):
                answer.add(token)
            await _respond(send, 200, orjson.dumps(answer.whole()))
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        async for token in _tokens(sequence):
            answer.add(token)
            for chunk in answer.chunks():
                await _send_event(send, orjson.dumps(chunk))
        for chunk in answer.end():
            await _send_event(send, orjson.dumps(chunk))
        await _send_event(send, b"[DONE]")
        await send({"type": "http.response.body", "body": b""})


async def _tokens(sequence: Sequence) -> AsyncIterator[Any]:
    while (token := await sequence.tokens.get()) is not None:
        yield token


async def _left(receive: Receive) -> None:
    """Returns when the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RefusedError(400, "invalid_request_error", "the client left")
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise RefusedError(413, "invalid_request_error", "the body is too long")
        if not message.get("more_body", False):
            return bytes(body)


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        plain = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RefusedError(400, "invalid_request_error", f"not JSON: {error}") from error
    if not isinstance(plain, dict):
        raise RefusedError(400, "invalid_request_error", "the body is no JSON object")
    return plain


async def _respond(send: Send, status: int, body: bytes, kind: bytes = JSON) -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _send_event(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": b"data: " + data + b"\n\n", "more_body": True})


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(sys.argv[1:])
