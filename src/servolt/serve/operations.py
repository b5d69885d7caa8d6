"""Routes for those who run the gateway."""

from servolt.serve.exchange import Exchange
from servolt.serve.fleet import Fleet

__all__ = ["ROUTES"]

PROMETHEUS_TEXT = b"text/plain; version=0.0.4; charset=utf-8"


async def health(exchange: Exchange, fleet: Fleet) -> None:
    """200 as long as the gateway answers, drain included."""
    await exchange.reply(200, {"status": "ok"})


async def ready(exchange: Exchange, fleet: Fleet) -> None:
    """503 while draining, so that a load balancer sends nothing more."""
    status = 503 if fleet.draining else 200
    await exchange.reply(status, {"status": "draining" if fleet.draining else "ready"})


async def metrics(exchange: Exchange, fleet: Fleet) -> None:
    await exchange.reply_bytes(200, await fleet.metrics(), [(b"content-type", PROMETHEUS_TEXT)])


ROUTES = {
    ("GET", "/health"): health,
    ("GET", "/ready"): ready,
    ("GET", "/metrics"): metrics,
}
