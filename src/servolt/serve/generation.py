"""From a request to an answer on the wire, the same way for every dialect."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from time import monotonic
from typing import Protocol

from servolt.errors import ServoltError
from servolt.serve.events import Answer, Event, Finished
from servolt.serve.exchange import Exchange
from servolt.serve.request import GenerationRequest
from servolt.serve.resident import Resident
from servolt.serve.telemetry import Telemetry

__all__ = ["Generation", "Writer"]

Then = Callable[[Answer], Awaitable[None]]


class Writer(Protocol):
    """A dialect's framing of one streamed answer."""

    content_type: bytes

    def batch(self, events: Sequence[Event], index: int = 0) -> bytes:
        """These events of choice `index`; empty where the dialect has nothing to say yet."""
        ...

    def last(self) -> bytes:
        """What follows the last choice's Finished."""
        ...

    async def before_last(self, generation: "Generation", events: Sequence[Event]) -> None:
        """Called with the batch that holds Finished, for what has to be asked of the engine once more."""
        ...

    def failed(self, error: ServoltError) -> bytes:
        """The error, for a client that has already read a part of the answer."""
        ...


class Generation:
    """One request's way through the queue and the engine; `requests` has one entry for each choice."""

    def __init__(
        self,
        exchange: Exchange,
        resident: Resident,
        requests: Sequence[GenerationRequest],
        telemetry: Telemetry,
        keep_alive_s: float | None = None,
    ) -> None:
        self.started = monotonic()
        self.load_s = 0.0
        self.resident = resident
        self._exchange = exchange
        self._requests = requests
        self._telemetry = telemetry
        self._keep_alive_s = keep_alive_s
        self._first_s: float | None = None

    @property
    def total_s(self) -> float:
        return monotonic() - self.started

    async def answers(self) -> list[Answer]:
        """Whole answers, one for each request."""
        if len(self._requests) == 1:
            return [await self.answer(self._requests[0])]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self.answer(request)) for request in self._requests]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        return [task.result() for task in tasks]

    async def answer(self, request: GenerationRequest, *, then: Then | None = None) -> Answer:
        """A whole answer. `then` is called while its place in the engine is still held."""
        self.load_s = await self.resident.enter(self._keep_alive_s)
        try:
            answer = await self.resident.generate(request)
            if then is not None:
                await then(answer)
        finally:
            self.resident.leave()
        self._finished(answer.finished)
        return answer

    async def stream(self, writer: Writer) -> None:
        """Streams all choices. An error before the first piece is raised, one after it is written into the stream."""
        pieces = self._single(writer) if len(self._requests) == 1 else self._several(writer)
        exchange = self._exchange
        try:
            async with aclosing(pieces):
                async for data, is_last in pieces:
                    if not exchange.started:
                        await exchange.stream(writer.content_type)
                    if is_last:
                        await exchange.end(data)
                    elif data:
                        await exchange.write(data)
        except ServoltError as error:
            await self._fail(writer, error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if exchange.cut is None or task is None:
                raise
            task.uncancel()
            await self._fail(writer, exchange.cut)

    async def _fail(self, writer: Writer, error: ServoltError) -> None:
        if not self._exchange.started or self._exchange.ended:
            raise error
        self._telemetry.broken(self.resident.offer.name)
        await self._exchange.end(writer.failed(error))

    async def _single(self, writer: Writer) -> AsyncGenerator[tuple[bytes, bool]]:
        async with aclosing(self._events(self._requests[0])) as batches:
            async for batch in batches:
                if isinstance(batch[-1], Finished):
                    await writer.before_last(self, batch)
                    yield writer.batch(batch) + writer.last(), True
                else:
                    yield writer.batch(batch), False

    async def _several(self, writer: Writer) -> AsyncGenerator[tuple[bytes, bool]]:
        """Choices run beside each other, each with a place of its own in the engine."""
        queue: asyncio.Queue[tuple[int, list[Event] | BaseException]] = asyncio.Queue(len(self._requests))
        tasks = [asyncio.create_task(self._feed(queue, index)) for index in range(len(self._requests))]
        open_choices = len(tasks)
        try:
            while open_choices:
                index, batch = await queue.get()
                if isinstance(batch, BaseException):
                    raise batch
                open_choices -= isinstance(batch[-1], Finished)
                yield writer.batch(batch, index), False
            yield writer.last(), True
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _feed(self, queue: asyncio.Queue[tuple[int, list[Event] | BaseException]], index: int) -> None:
        try:
            async with aclosing(self._events(self._requests[index])) as batches:
                async for batch in batches:
                    await queue.put((index, batch))
        except ServoltError as error:
            await queue.put((index, error))

    async def _events(self, request: GenerationRequest) -> AsyncGenerator[list[Event]]:
        self.load_s = await self.resident.enter(self._keep_alive_s)
        try:
            async with aclosing(self.resident.batches(request)) as batches:
                async for batch in batches:
                    if self._first_s is None:
                        self._first_s = self.total_s
                    if isinstance(batch[-1], Finished):
                        self._finished(batch[-1])
                    yield batch
        finally:
            self.resident.leave()

    def _finished(self, finished: Finished) -> None:
        self._telemetry.finished(self.resident.offer.name, finished, self.total_s, self._first_s)
