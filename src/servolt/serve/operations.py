"""Routes for those who run the gateway."""

from servolt.serve.exchange import JSON, Exchange
from servolt.serve.fleet import Fleet
from servolt.serve.jobs import Jobs
from servolt.serve.planning import Planner, plan_each, plan_one, read_body
from servolt.serve.refusal import RefusedError

__all__ = ["JOBS_PREFIX", "ROUTES", "cancel_job", "job"]

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


async def plan(exchange: Exchange, fleet: Fleet) -> None:
    await plan_one(exchange, _planner(fleet)[0])


async def plans(exchange: Exchange, fleet: Fleet) -> None:
    await plan_each(exchange, _planner(fleet)[0])


async def plan_job(exchange: Exchange, fleet: Fleet) -> None:
    """202 with the job, whose id finds it again."""
    jobs = _planner(fleet)[1]
    added = jobs.add(read_body(await exchange.body()))
    await exchange.reply_bytes(202, added.document(), [JSON, (b"location", JOBS_PREFIX.encode() + added.id.encode())])


async def job(exchange: Exchange, fleet: Fleet) -> None:
    found = _planner(fleet)[1].get(exchange.path.removeprefix(JOBS_PREFIX))
    await exchange.reply_bytes(200, found.document(), [JSON])


async def cancel_job(exchange: Exchange, fleet: Fleet) -> None:
    found = _planner(fleet)[1].cancel(exchange.path.removeprefix(JOBS_PREFIX))
    await exchange.reply_bytes(200, found.document(), [JSON])


def _planner(fleet: Fleet) -> tuple[Planner, Jobs]:
    if fleet.planner is None or fleet.jobs is None:
        raise RefusedError("unsupported", "This gateway does not plan.", "Use `servolt plan`.")
    return fleet.planner, fleet.jobs


JOBS_PREFIX = "/servolt/v1/jobs/"

ROUTES = {
    ("GET", "/health"): health,
    ("GET", "/ready"): ready,
    ("GET", "/metrics"): metrics,
    ("POST", "/servolt/v1/plan"): plan,
    ("POST", "/servolt/v1/plans"): plans,
    ("POST", f"{JOBS_PREFIX}plan"): plan_job,
}
