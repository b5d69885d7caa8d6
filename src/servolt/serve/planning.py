"""Plans over HTTP: one, many at once, or as a job. The planner itself is handed in: verbs don't know one another."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import orjson

from servolt import __version__
from servolt.errors import ServoltError
from servolt.serve.body import parse_object
from servolt.serve.exchange import JSON, Exchange
from servolt.serve.problem import problem_of
from servolt.serve.refusal import RefusedError

__all__ = ["ITEMS", "MAX_ITEMS", "Planner", "plan_each", "plan_one", "plans_document", "read_body"]

ITEMS = "items"
MAX_BYTES = 8 * 2**20  # a thousand deployments with their workloads, or a few configs of the longest kind
MAX_ITEMS = 64  # that one answer waits for; more of them are a job
MAX_JOB_ITEMS = 1000


class Planner(Protocol):
    """Plans outside this process' event loop."""

    async def plan(self, request: Mapping[str, Any]) -> bytes:
        """The document as JSON. Raises ServoltError."""
        ...

    async def close(self) -> None: ...


async def plan_one(exchange: Exchange, planner: Planner) -> None:
    """{deployment, workload, measured, model_config} -> what `servolt plan --json` prints."""
    await exchange.reply_bytes(200, await planner.plan(read_body(await exchange.body())), [JSON])


async def plan_each(exchange: Exchange, planner: Planner) -> None:
    """{items: [...]} -> {items: [{plan} or {problem}]}, in the order in which they were asked."""
    items = items_of(read_body(await exchange.body()), MAX_ITEMS, "POST /servolt/v1/jobs/plan takes more.")
    await exchange.reply_bytes(200, plans_document([await answer(item, planner) for item in items]), [JSON])


def read_body(body: bytes) -> dict[str, Any]:
    if len(body) > MAX_BYTES:
        raise RefusedError("too_large", f"The body is larger than {MAX_BYTES:,} bytes.", "Send less at a time.")
    return parse_object(body)


def items_of(plain: Mapping[str, Any], most: int, remedy: str) -> list[dict[str, Any]]:
    """Raises RefusedError."""
    items = plain.get(ITEMS)
    if not isinstance(items, list) or not items or plain.keys() - {ITEMS}:
        raise RefusedError(
            "invalid", "The body holds no list `items`, or more than that.", 'Send {"items": [...]}.', param=ITEMS
        )
    if len(items) > most:
        raise RefusedError("too_large", f"There are {len(items):,} items; {most:,} are the most.", remedy, param=ITEMS)
    if faulty := [number for number, item in enumerate(items) if not isinstance(item, dict)]:
        place = f"{ITEMS}.{faulty[0]}"
        raise RefusedError("invalid", f"{place} is no object.", 'Each is {"deployment": ...}.', param=place)
    return items


async def answer(item: Mapping[str, Any], planner: Planner) -> bytes:
    """One of many: what goes wrong with it is said in its place. Busy and draining are no fault of its own."""
    try:
        return b'{"plan":' + await planner.plan(item) + b"}"
    except RefusedError:
        raise
    except ServoltError as error:
        return orjson.dumps({"problem": problem_of(error)})


def plans_document(answers: Sequence[bytes]) -> bytes:
    head = orjson.dumps({"schema": "servolt.plans/1", "tool_version": __version__})
    return head[:-1] + b',"items":[' + b",".join(answers) + b"]}"
