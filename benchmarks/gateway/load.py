"""A client that costs little: closed loop, raw sockets, one JSON object on stdout with what it saw.

`--streams` connections each ask again as soon as they have their answer, until --requests are done or --seconds are
over.
"""

import argparse
import asyncio
import json
import re
import sys
import time
from itertools import cycle
from typing import cast
from urllib.parse import urlsplit

import uvloop

# Non-empty text, in either dialect: that is when a reader sees something.
TEXT = re.compile(rb'"content":\s*"[^"]')
END = b"\r\n0\r\n\r\n"  # with the line end before it: a head may end in "max=100"


class Stream(asyncio.Protocol):
    """One connection; asks until told that it is enough."""

    def __init__(self, client: "Client", began: float) -> None:
        self._client = client
        self._began = began  # before the connection was opened: that time is the asker's too
        self._enough = self._left = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._enough and not self._left:
            self._client.fail("the connection was closed")

    def leave(self) -> None:
        self._left = True
        self._transport.close()

    def _ask(self) -> None:
        self._first: float | None = None
        self._length: int | None = None
        self._size = 0
        self._tail = b""
        self._began = self._began or time.perf_counter()
        self._transport.write(self._client.next_request())

    def data_received(self, data: bytes) -> None:
        if self._size == 0 and not data.startswith(b"HTTP/1.1 200"):
            self._client.fail(data[:300].decode("latin-1"))
            return
        self._size += len(data)
        client = self._client
        client.texts += len(TEXT.findall(data))
        if self._first is None and TEXT.search(data):
            self._first = time.perf_counter()
        if client.unary:
            self._unary(data)
            return
        self._tail = (self._tail + data)[-7:]
        if self._tail == END:
            self._done()

    def _unary(self, data: bytes) -> None:
        if self._length is None:
            head, found, _ = data.partition(b"\r\n\r\n")
            match = re.search(rb"(?i)content-length: *(\d+)", head)
            if not found or match is None:
                self._client.fail("no content-length in the first read")
                return
            self._length = len(head) + 4 + int(match[1])
        if self._size >= self._length:
            self._done()

    def _done(self) -> None:
        now = time.perf_counter()
        if self._first is not None:
            self._client.ttft_s.append(self._first - self._began)
        self._client.e2el_s.append(now - self._began)
        self._began = 0.0
        self._enough = self._client.enough()
        if self._enough:
            self._transport.close()
        elif self._client.unary or not self._client.reconnect:
            self._ask()
        else:
            self._client.connect_again(self)


class Client:
    def __init__(self, asked: argparse.Namespace) -> None:
        parts = urlsplit(asked.url)
        self.host, self.port = parts.hostname, parts.port
        self.unary = bool(asked.unary)
        body = {"model": asked.model, "messages": [{"role": "user", "content": asked.prompt}]}
        body |= {"stream": not self.unary} | json.loads(asked.fields)
        lines = [f"POST {parts.path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", "Content-Type: application/json"]
        self._head = lines + ([f"Authorization: Bearer {asked.key}"] if asked.key else [])
        lengths = [int(length) for length in asked.max_tokens.split(",") if length]
        self._requests = cycle(
            [self._request(body | {"max_tokens": length}) for length in lengths] or [self._request(body)]
        )
        self.texts = 0
        self.ttft_s: list[float] = []
        self.e2el_s: list[float] = []
        self._asked = asked
        self._open = asked.streams
        self.reconnect = bool(asked.reconnect)
        self._tasks: set[asyncio.Task[None]] = set()
        self._started = 0.0
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def next_request(self) -> bytes:
        return next(self._requests)

    def _request(self, body: dict[str, object]) -> bytes:
        content = json.dumps(body).encode()
        return "\r\n".join([*self._head, f"Content-Length: {len(content)}\r\n\r\n"]).encode() + content

    def enough(self) -> bool:
        """Whether this connection may stop; the last one ends the run."""
        if len(self.e2el_s) + self._open - 1 < self._asked.requests:
            return False
        self._open -= 1
        if not self._open and not self.finished.done():
            self.finished.set_result(None)
        return True

    def _stop(self) -> None:
        if not self.finished.done():
            self.finished.set_result(None)

    def connect_again(self, stream: Stream) -> None:
        stream.leave()
        task = asyncio.get_running_loop().create_task(self._connect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        began = time.perf_counter()
        await asyncio.get_running_loop().create_connection(lambda: Stream(self, began), self.host, self.port)

    def fail(self, why: str) -> None:
        if not self.finished.done():
            self.finished.set_exception(RuntimeError(why))

    async def run(self) -> dict[str, object]:
        self._started = time.perf_counter()
        for _ in range(self._asked.streams):
            await self._connect()
        if self._asked.seconds:  # what runs then is cut off: a tail with fewer streams would be another load
            asyncio.get_running_loop().call_later(self._asked.seconds, self._stop)
        await self.finished
        wall_s = time.perf_counter() - self._started
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return {
            "wall_s": wall_s,
            "requests": len(self.e2el_s),
            "texts": self.texts,
            "ttft_s": sorted(self.ttft_s),
            "e2el_s": sorted(self.e2el_s),
        }


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True, help="with the path")
    parser.add_argument("--model", default="fixed")
    parser.add_argument("--prompt", default="hi")
    parser.add_argument("--key", default="")
    parser.add_argument("--fields", default="{}", help="further fields of the body, as JSON")
    parser.add_argument("--max-tokens", default="", help="lengths that the requests take in turn, comma-separated")
    parser.add_argument("--unary", action="store_true")
    parser.add_argument(
        "--reconnect", action="store_true", help="a new connection for each stream: llama.cpp closes it"
    )
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--requests", type=int, default=10**9)
    parser.add_argument("--seconds", type=float, default=0.0)
    print(json.dumps(await Client(parser.parse_args()).run()))


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
