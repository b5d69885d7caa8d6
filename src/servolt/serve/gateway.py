"""The gateway: one plain ASGI callable in front of all deployments."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic

from servolt.errors import ServoltError
from servolt.serve import operations, problem
from servolt.serve.access import Access
from servolt.serve.exchange import Exchange, Receive, Scope, Send
from servolt.serve.fleet import Fleet
from servolt.serve.ollama import errors as ollama_errors
from servolt.serve.ollama import routes as ollama_routes
from servolt.serve.openai import errors as openai_errors
from servolt.serve.openai import routes as openai_routes
from servolt.serve.refusal import RefusedError

__all__ = ["ROUTES", "Gateway", "Route"]

Route = Callable[[Exchange, Fleet], Awaitable[None]]

ROUTES: Mapping[tuple[str, str], Route] = {**operations.ROUTES, **ollama_routes.ROUTES, **openai_routes.ROUTES}
PATHS = frozenset(path for _, path in ROUTES)
MAIN_PATHS = ("/api/chat", "/api/generate", "/api/tags", "/v1/chat/completions", "/v1/completions", "/v1/models")
# Served while draining: they tell what is going on, and cost the engine nothing.
ALWAYS = frozenset({"/health", "/ready", "/metrics", "/", "/api/version", "/api/ps"})

JOB_METHODS: Mapping[str, Route] = {"GET": operations.job, "HEAD": operations.job, "DELETE": operations.cancel_job}

MAX_STALL_S = 60.0  # a client that has sent or read nothing for so long is let go, with its place in the engine
SWEEP_S = 5.0
CUT_S = 2.0  # what an answer that is cut may take to write its last line
CLOSING = frozenset({408, 413})  # the rest of such a body is not read, so nothing can follow it

log = logging.getLogger("servolt.serve")


class Gateway:
    """Checks, finds the route, answers errors in the caller's dialect, and stops work that nobody waits for."""

    def __init__(self, fleet: Fleet, access: Access) -> None:
        self.fleet = fleet
        self.access = access
        self._open: dict[Exchange, asyncio.Task[None]] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._hurried = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send)
        try:
            await self._answer(exchange)
        except ServoltError as error:
            await self._refuse(exchange, error)
        except Exception:
            log.exception("%s %s failed, request %s", exchange.method, exchange.path, exchange.request_id)
            await self._refuse(exchange, ServoltError("The gateway failed.", "Its log has the reason."))
        self.fleet.telemetry.answered(exchange.path if exchange.path in PATHS else "other", exchange.status)

    @property
    def in_flight(self) -> int:
        """Requests that are being answered."""
        return len(self._open)

    async def drain(self, patience_s: float) -> None:
        """Takes no new work, waits for what is open, then ends what is left with an error in its dialect."""
        self.fleet.draining = True
        hurried = asyncio.create_task(self._hurried.wait())
        everything = asyncio.gather(*self._open.values(), return_exceptions=True)
        await asyncio.wait((hurried, everything), timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        self.cut(RefusedError("draining", "The gateway is being stopped.", "Ask again later."))
        if self._open:
            await asyncio.wait(list(self._open.values()), timeout=CUT_S)

    def hurry(self) -> None:
        """Ends a drain's patience."""
        self._hurried.set()

    def cut(self, why: ServoltError) -> None:
        """Ends all open answers now."""
        for exchange, task in self._open.items():
            exchange.cut = why
            task.cancel()

    async def _answer(self, exchange: Exchange) -> None:
        host = exchange.header(b"host")
        self.access.check_host(host)
        origin = exchange.header(b"origin")
        if origin is not None:
            exchange.add_headers(self.access.check_origin(origin, host))
            if exchange.method == "OPTIONS":
                await exchange.reply_bytes(204, b"", self.access.preflight())
                return
        route = _find(exchange.method, exchange.path)
        if self.fleet.draining and exchange.path not in ALWAYS:
            raise RefusedError("draining", "The gateway is being stopped.", "Ask again later.")
        if exchange.method == "GET" or exchange.method == "HEAD":
            await route(exchange, self.fleet)
        else:
            await self._while_connected(exchange, route)

    async def _while_connected(self, exchange: Exchange, route: Route) -> None:
        """Cancels the work when the client leaves: in the queue, in a prefill, in a decode."""
        task = asyncio.current_task()
        assert task is not None
        self._open[exchange] = exchange.worker = task
        self._sweep_soon()
        try:
            await route(exchange, self.fleet)
        except asyncio.CancelledError:
            if exchange.gone:
                task.uncancel()
                self.fleet.telemetry.aborted()
            elif exchange.cut is not None:
                task.uncancel()
                raise exchange.cut from None
            else:
                raise
        finally:
            exchange.unwatch()
            del self._open[exchange]

    async def _refuse(self, exchange: Exchange, error: ServoltError) -> None:
        """In the caller's dialect. What has begun can't take a status any more: its connection is closed."""
        if exchange.started or exchange.gone:
            return
        if exchange.path.startswith(problem.OWN):
            await exchange.reply_bytes(*problem.refusal(error))
            return
        is_openai = exchange.path.startswith("/v1/")
        status, body, headers = (openai_errors if is_openai else ollama_errors).refusal(error)
        if status in CLOSING:
            headers.append((b"connection", b"close"))
        await exchange.reply(status, body, headers)

    def _sweep_soon(self) -> None:
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        """Lets go of clients that have stopped sending their body or reading their answer."""
        self._sweeper = None
        now = monotonic()
        for exchange, task in self._open.items():
            if exchange.busy_since is not None and now - exchange.busy_since > MAX_STALL_S:
                exchange.cut = RefusedError("slow", f"Nothing was sent or read for {MAX_STALL_S:.0f} s.", "Ask again.")
                exchange.gone = exchange.started
                task.cancel()
        if self._open:
            self._sweep_soon()


def _find(method: str, path: str) -> Route:
    """Raises RefusedError for a path or a method that is not served."""
    route = ROUTES.get(("GET" if method == "HEAD" else method, path))
    if route is not None:
        return route
    if path.startswith(openai_routes.MODELS_PREFIX) and method in ("GET", "HEAD"):
        return openai_routes.model
    if path.startswith(operations.JOBS_PREFIX) and path not in PATHS:
        if method in JOB_METHODS:
            return JOB_METHODS[method]
        raise RefusedError("method", f"{method} is not a method of a job.", "It takes GET or DELETE.")
    if path in PATHS or path.startswith(openai_routes.MODELS_PREFIX):
        raise RefusedError("method", f"{method} is not a method of {path}.", f"It takes {_methods(path)}.")
    raise RefusedError("no_route", f"There is nothing at {path[:200]}.", f"What is served: {', '.join(MAIN_PATHS)}.")


def _methods(path: str) -> str:
    return " or ".join(sorted({method for method, known in ROUTES if known == path})) or "GET"
