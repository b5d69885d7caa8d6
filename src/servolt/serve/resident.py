"""One deployment behind the gateway: loaded on the first request, queued for, unloaded when idle."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, Protocol

import orjson

from servolt.command import Server
from servolt.deployment import Deployment
from servolt.errors import EngineError
from servolt.model import Model
from servolt.serve.catalogue import Offer
from servolt.serve.events import Answer, Event
from servolt.serve.refusal import RefusedError
from servolt.serve.request import GenerationRequest
from servolt.serve.upstream import NotReachedError, Upstream

__all__ = ["Resident", "Supervision", "SupervisorFactory"]

NOTICE_S = 1.0  # by then the supervisor knows that its engine has died
# Requests sent to an engine that does not say how many sequences it runs; it queues what is too much by itself.
UNKNOWN_SLOTS = 64


class Supervision(Protocol):
    """What the gateway needs of an engine's supervisor."""

    api_key: str

    @property
    def effective(self) -> Mapping[str, Any]:
        """Settings as the engine reported them when it became ready."""
        ...

    async def ensure_ready(self) -> Server:
        """Starts the engine unless it runs. Raises EngineError."""
        ...

    async def stop(self) -> None: ...


SupervisorFactory = Callable[[Deployment, Model], Supervision]


class Resident:
    """Owns the queue and the idle timer of one deployment; its supervisor owns the engine."""

    def __init__(self, offer: Offer, supervisor: Supervision, *, keep_alive_s: float, max_queue: int) -> None:
        self.offer = offer
        self.supervisor = supervisor
        self.max_queue = max_queue
        self.waiting = 0
        self.in_flight = 0
        self.max_model_len: int | None = None
        self.max_num_seqs: int | None = None
        self.server: Server | None = None
        self.expires_at: float | None = None  # wall-clock seconds; None is never
        self._usual_keep_alive_s = self._keep_alive_s = keep_alive_s
        self._slots = asyncio.Semaphore(UNKNOWN_SLOTS)
        self._upstream: Upstream | None = None
        self._loading: asyncio.Task[Upstream] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._unloading: asyncio.Task[None] | None = None

    @property
    def loaded(self) -> bool:
        return self.server is not None and self.server.exit_code() is None

    async def enter(self, keep_alive_s: float | None = None) -> float:
        """A place in the engine, once it is this caller's turn; `leave` gives it back. Returns seconds spent loading.

        Raises RefusedError when the queue is full, EngineError when the engine does not start.
        """
        if self.waiting >= self.max_queue:
            raise RefusedError(
                "busy",
                "server busy, please try again.  maximum pending requests exceeded.",
                "Ask again in a moment, or let more wait with SERVOLT_MAX_QUEUE.",
            )
        self.waiting += 1
        try:
            before = time.monotonic()
            await self.upstream()
            load_s = time.monotonic() - before
            await self._slots.acquire()
        except BaseException:
            self.waiting -= 1
            self._arm()  # it may have been the last who waited
            raise
        self.waiting -= 1
        self.in_flight += 1
        self._disarm()
        self._keep_alive_s = self._usual_keep_alive_s if keep_alive_s is None else keep_alive_s
        return load_s

    def leave(self) -> None:
        self.in_flight -= 1
        self._slots.release()
        self._arm()

    @asynccontextmanager
    async def place(self, keep_alive_s: float | None = None) -> AsyncGenerator[float]:
        """`enter` and `leave` around a block, with the seconds spent loading."""
        load_s = await self.enter(keep_alive_s)
        try:
            yield load_s
        finally:
            self.leave()

    async def load(self, keep_alive_s: float | None = None) -> float:
        """Makes it ready and starts the idle timer, without a request."""
        async with self.place(keep_alive_s) as load_s:
            return load_s

    async def unload(self) -> None:
        """Stops the engine once nobody uses it: with requests in flight, after the last of them."""
        self._keep_alive_s = 0.0
        if self.in_flight == 0 and self.waiting == 0:
            await self.close()

    async def close(self) -> None:
        """Stops the engine now."""
        self._disarm()
        self._keep_alive_s = self._usual_keep_alive_s
        upstream, self._upstream, self.server = self._upstream, None, None
        loading, self._loading = self._loading, None
        if loading is not None:
            loading.cancel()
        if upstream is not None:
            await upstream.close()
        await self.supervisor.stop()
        if loading is not None:
            await asyncio.gather(loading, return_exceptions=True)

    async def upstream(self) -> Upstream:
        """Who to ask, with the engine ready; for those who have a place in it. Raises EngineError.

        A start goes on when all who asked for it have left. What it has loaded then is unloaded like any idle model.
        """
        running = self.running()
        if running is not None:
            return running
        loading = self._loading
        if loading is None or loading.done():
            loading = self._loading = asyncio.create_task(self._load())
            loading.add_done_callback(self._load_ended)
        try:
            return await asyncio.shield(loading)
        except asyncio.CancelledError:
            if loading.cancelled():
                raise EngineError("The engine was stopped before it was ready.", "Ask again.") from None
            raise

    def running(self) -> Upstream | None:
        """Who to ask if the engine runs already; starts nothing."""
        return self._upstream if self.loaded else None

    async def batches(self, request: GenerationRequest) -> AsyncGenerator[list[Event]]:
        """As Upstream's, but an engine that takes no connection is waited for and asked once more."""
        try:
            async with aclosing((await self.upstream()).batches(request)) as batches:
                async for batch in batches:
                    yield batch
            return
        except NotReachedError:
            await self._restarted()
        async with aclosing((await self.upstream()).batches(request)) as batches:
            async for batch in batches:
                yield batch

    async def generate(self, request: GenerationRequest) -> Answer:
        try:
            return await (await self.upstream()).generate(request)
        except NotReachedError:
            await self._restarted()
        return await (await self.upstream()).generate(request)

    async def _load(self) -> Upstream:
        server = await self.supervisor.ensure_ready()
        if self._upstream is None or self.server is not server:
            return await self._open(server)
        return self._upstream

    def _load_ended(self, loading: "asyncio.Task[Upstream]") -> None:
        if not loading.cancelled() and loading.exception() is None:  # read here, since all who asked may have left
            self._arm()

    async def _open(self, server: Server) -> Upstream:
        old, self._upstream = self._upstream, None
        if old is not None:
            await old.close()
        upstream = Upstream(server.url, self.supervisor.api_key)
        try:
            self.max_model_len, slots = await _facts(upstream, self.supervisor.effective, self.offer.deployment)
        except BaseException:
            await upstream.close()
            raise
        if self.max_num_seqs is None and slots is not None:  # the same deployment has the same number at each start
            self.max_num_seqs = slots
            self._slots = asyncio.Semaphore(slots)
        self._upstream, self.server = upstream, server
        return upstream

    async def _restarted(self) -> None:
        """Until the supervisor has seen that the engine has gone; by then `ensure_ready` starts a new one."""
        if self.server is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.server.wait(), NOTICE_S)

    def _arm(self) -> None:
        if self.in_flight or self.waiting or not self.loaded:
            return
        self._disarm()
        if self._keep_alive_s < 0:
            self.expires_at = None
            return
        self.expires_at = time.time() + self._keep_alive_s
        self._timer = asyncio.get_running_loop().call_later(self._keep_alive_s, self._expire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        if self.in_flight == 0 and self.waiting == 0:
            self._unloading = asyncio.get_running_loop().create_task(self._close_if_idle())

    async def _close_if_idle(self) -> None:
        """Somebody may have come since the timer went off."""
        if self.in_flight == 0 and self.waiting == 0:
            await self.close()


async def _facts(
    upstream: Upstream, effective: Mapping[str, Any], deployment: Deployment
) -> tuple[int | None, int | None]:
    """Context of one sequence and number of sequences: by the engine's own word, else as asked."""
    max_model_len = effective.get("max_model_len") or deployment.max_model_len
    max_num_seqs = effective.get("max_num_seqs") or deployment.max_num_seqs
    page = await upstream.page("/props")
    if page is not None:
        props = orjson.loads(page)
        max_model_len = props.get("default_generation_settings", {}).get("n_ctx") or max_model_len
        max_num_seqs = props.get("total_slots") or max_num_seqs
    return max_model_len, max_num_seqs
