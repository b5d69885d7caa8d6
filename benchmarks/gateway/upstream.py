"""A fast upstream with a fixed schedule: llama.cpp's stream, prepared bytes, one write for each token.

It is there to cost little. As llama.cpp does, it closes the connection after a stream. Asked with `max_tokens` N it
sends N tokens: the first after --ttft-ms, one more each --itl-ms; with both 0 all of them in one write. It prints its
address when it listens.
"""

import argparse
import asyncio
import json
import sys
from typing import cast

import httptools
import uvloop

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Accel-Buffering: no\r\nTransfer-Encoding: chunked\r\n\r\n"
)
PROPS = json.dumps({"default_generation_settings": {"n_ctx": 1_000_000}, "total_slots": 512}).encode()


def event(choices: list[object], **more: object) -> bytes:
    plain = {
        "choices": choices,
        "created": 1790000000,
        "id": "chatcmpl-8sBZt1cXIdPe6lXK3cK3F2CcqQh0QzXb",
        "model": "fixed",
        "system_fingerprint": "b0-unknown",
        "object": "chat.completion.chunk",
    }
    text = b"data: " + json.dumps(plain | more, separators=(",", ":")).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(text), text)


def choice(delta: dict[str, str | None], reason: str | None = None) -> dict[str, object]:
    return {"finish_reason": reason, "index": 0, "delta": delta}


ROLE = event([choice({"role": "assistant", "content": None})])
# Different texts, since some relays judge a stream of equal ones.
TOKENS = [event([choice({"content": f" word{number}"})]) for number in range(512)]


def end(tokens: int) -> bytes:
    usage = {"completion_tokens": tokens, "prompt_tokens": 9, "total_tokens": tokens + 9}
    timings = {"prompt_n": 9, "prompt_ms": 1.0, "predicted_n": tokens, "predicted_ms": 1.0}
    done = b"data: [DONE]\n\n"
    return (
        event([choice({}, "length")]) + event([], usage=usage, timings=timings) + b"%x\r\n%b\r\n" % (len(done), done)
    ) + b"0\r\n\r\n"


class Connection(asyncio.Protocol):
    def __init__(self, ttft_s: float, itl_s: float) -> None:
        self._ttft_s, self._itl_s = ttft_s, itl_s
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._fresh()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._url = url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._url == b"/v1/chat/completions":
            self._tokens = int(json.loads(self._body)["max_tokens"])
            self._stream()
        else:
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(PROPS), PROPS))
        self._fresh()

    def _fresh(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""

    def _stream(self) -> None:
        self._sent = 0
        if not self._itl_s:
            pieces = [TOKENS[number % 512] for number in range(self._tokens)]
            self._transport.write(HEAD + ROLE + b"".join(pieces) + end(self._tokens))
            self._transport.close()
            return
        self._due = self._loop.time() + self._ttft_s
        self._timer = self._loop.call_at(self._due, self._next)

    def _next(self) -> None:
        self._transport.write((HEAD + ROLE if not self._sent else b"") + TOKENS[self._sent % 512])
        self._sent += 1
        if self._sent == self._tokens:
            self._transport.write(end(self._tokens))
            self._transport.close()
            return
        self._due += self._itl_s
        self._timer = self._loop.call_at(self._due, self._next)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ttft-ms", type=float, default=0.0)
    parser.add_argument("--itl-ms", type=float, default=0.0)
    asked = parser.parse_args()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(asked.ttft_ms / 1e3, asked.itl_ms / 1e3), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print(f"http://127.0.0.1:{port}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
