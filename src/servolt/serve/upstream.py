"""One engine's HTTP API, as events."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import msgspec
import orjson

from servolt.errors import EngineLostError
from servolt.serve.connection import SILENCE_S, Connection, Connections
from servolt.serve.events import Answer, Event, answer_of
from servolt.serve.reading import EventReader, refusal_of
from servolt.serve.request import EmbeddingRequest, GenerationRequest

__all__ = ["NotReachedError", "Upstream"]


DYING_S = 0.2  # an engine that is ending still takes connections for some milliseconds


class NotReachedError(EngineLostError):
    """The engine took no connection, or was ending already: nothing has been done, so it may be asked again."""


class Upstream:
    """Speaks with one engine. Close it, or use it with `async with`."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self.url = url.rstrip("/")
        parts = urlsplit(self.url)
        self._prefix = parts.path
        key = f"Authorization: Bearer {api_key}\r\n" if api_key else ""
        self._headers = f" HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n{key}"
        self._connections = Connections(self.url)

    async def __aenter__(self) -> "Upstream":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Aborts what is open."""
        self._connections.close()

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[Event]:
        """Deltas, then one Finished. Raises RefusedError, NotReachedError, EngineLostError."""
        async with aclosing(self.batches(request)) as batches:
            async for batch in batches:
                for event in batch:
                    yield event

    async def batches(self, request: GenerationRequest) -> AsyncGenerator[list[Event]]:
        """The same, with all events that arrived together in one list. Leaving it early aborts the engine's work."""
        answering = await self._ask(request)
        try:
            while batch := await answering.more():
                yield batch
        finally:
            answering.leave()

    async def generate(self, request: GenerationRequest) -> Answer:
        """The whole answer at once.

        The engine is asked for a stream all the same: llama.cpp looks whether its client has left when it writes, and
        for an answer in one piece it went on for 1.8 to 2.0 s.
        """
        answering = await self._ask(request)
        events: list[Event] = []
        try:
            while batch := await answering.more():
                events += batch
        finally:
            answering.leave()
        return answer_of(events)

    async def _ask(self, request: GenerationRequest) -> "_Answering":
        route = "/v1/completions" if request.messages is None else "/v1/chat/completions"
        connection = await self._open()
        status, asked_at = 0, monotonic()
        try:
            status = await connection.ask(self._post(route, _body(request)), stream=True)
            if status != 200:
                raise refusal_of(status, await connection.read_all())
        except OSError as error:
            connection.abort()
            if not status and monotonic() - asked_at < DYING_S:
                raise NotReachedError("The engine ended before it answered.", "Ask again.") from error
            raise _lost(error) from error
        except BaseException:
            connection.abort()
            raise
        return _Answering(connection)

    async def embed(self, request: EmbeddingRequest) -> tuple[list[list[float]], int | None]:
        """One vector for each text, and the tokens that were read; None where the engine did not count them."""
        plain = await self.call("/v1/embeddings", {"input": request.texts, "encoding_format": "float"})
        rows = sorted(plain["data"], key=lambda row: row["index"])
        return [row["embedding"] for row in rows], (plain.get("usage") or {}).get("prompt_tokens")

    async def call(self, path: str, plain: Any) -> Any:
        """One of the engine's own routes, such as /tokenize. Raises RefusedError where the engine lacks it."""
        status, content = await self._exchange(self._post(path, orjson.dumps(plain)))
        if status != 200:
            raise refusal_of(status, content)
        return orjson.loads(content)

    async def page(self, path: str) -> bytes | None:
        """GET; None where the engine has no such page."""
        status, content = await self._exchange(f"GET {self._prefix}{path}{self._headers}\r\n".encode())
        return content if status == 200 else None

    def _post(self, path: str, body: bytes) -> bytes:
        return f"POST {self._prefix}{path}{self._headers}Content-Length: {len(body)}\r\n\r\n".encode() + body

    async def _exchange(self, request: bytes) -> tuple[int, bytes]:
        connection = await self._open()
        try:
            status, content = await connection.ask(request), await connection.read_all()
            connection.release()
        except OSError as error:
            connection.abort()
            raise _lost(error) from error
        except BaseException:
            connection.abort()
            raise
        return status, content

    async def _open(self) -> Connection:
        try:
            return await self._connections.open()
        except OSError as error:
            raise NotReachedError("The engine takes no connections.", "Ask again: it is started anew.") from error


class _Answering:
    """An answer that has begun: `more` until it returns nothing, and `leave` whatever happened."""

    __slots__ = ("_connection", "_ended", "_reader")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._reader = EventReader()
        self._ended = False

    async def more(self) -> list[Event]:
        """All events that have arrived together; nothing after Finished. Raises RefusedError, EngineLostError."""
        reader = self._reader
        if self._ended:
            return []
        try:
            while data := await self._connection.read():
                if events := reader.feed(data):
                    self._ended = reader.done
                    return events
        except OSError as error:
            raise _lost(error) from error
        last = reader.close()
        self._ended = True
        return last

    def leave(self) -> None:
        """Before the end, it aborts the engine's work."""
        if self._ended:
            self._connection.release()
        else:
            self._connection.abort()


def _body(request: GenerationRequest) -> bytes:
    plain: dict[str, Any] = msgspec.to_builtins(request.sampling)
    if request.messages is not None:
        plain["messages"] = request.messages
        if request.logprobs:
            plain["logprobs"] = True
        for name in ("tools", "tool_choice", "parallel_tool_calls"):
            if (value := getattr(request, name)) is not None:
                plain[name] = value
        if request.template_values:
            plain["chat_template_kwargs"] = request.template_values
    else:
        plain["prompt"] = request.prompt
        if request.logprobs:
            plain["logprobs"] = plain.pop("top_logprobs", 0)
    if request.response_format is not None:
        plain["response_format"] = request.response_format
    plain["stream"] = True
    plain["stream_options"] = {"include_usage": True}
    return orjson.dumps(plain)


def _lost(error: OSError) -> EngineLostError:
    if isinstance(error, TimeoutError):
        return EngineLostError(f"The engine has said nothing for {SILENCE_S:.0f} s.", "Ask again, or see its log.")
    return EngineLostError("The engine was lost while it answered.", "Ask again: it is started anew.")
