"""Plans over HTTP. The planner stands behind a seam, so here it is one that does what the test says."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pytest

from servolt.errors import InvalidInputError, ModelNotFoundError
from servolt.serve.jobs import MAX_KEPT, MAX_OPEN, Jobs
from servolt.serve.planning import MAX_BYTES, MAX_ITEMS, MAX_JOB_ITEMS
from servolt.serve.webhook import Webhooks

PLAN, PLANS, JOBS = "/servolt/v1/plan", "/servolt/v1/plans", "/servolt/v1/jobs/"


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 20))


class Echo:
    """Answers with what was asked, once it is let."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked: list[Any] = []
        self.closed = False

    async def plan(self, request: Mapping[str, Any]) -> bytes:
        self.asked.append(request)
        await self.gate.wait()
        if request.get("deployment") == "gone":
            raise ModelNotFoundError("no model is called 'gone' here.", "There is guide.")
        if request.get("deployment") == "bad":
            raise InvalidInputError("it is bad.", "Make it good.")
        return json.dumps({"schema": "servolt.plan/1", "asked": request}).encode()

    async def close(self) -> None:
        self.closed = True


async def when(one: Any, name: str, is_so: Callable[[Any], bool]) -> Any:
    """The job, once that is true of it."""
    for _ in range(10_000):
        job = (await one.ask(JOBS + name, method="GET")).json()
        if is_so(job):
            return job
        await asyncio.sleep(0.001)
    raise TimeoutError(name)


async def ended(one: Any, name: str) -> Any:
    return await when(one, name, lambda job: job["state"] not in ("queued", "running"))


def test_a_plan_is_answered_as_the_planner_says_it(rig: Any) -> None:
    async def scenario() -> None:
        planner = Echo()
        async with rig(planner=planner) as one:
            request = {"deployment": {"model": "guide"}, "workload": {"concurrency": 2}}
            reply = await one.ask(PLAN, request)
            assert (reply.status, reply.json()["asked"]) == (200, request)
            assert reply.headers["content-type"].startswith("application/json")
        assert planner.closed

    run(scenario())


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (PLAN, {"deployment": "gone"}, 404, "E-MOD-001"),
        (PLAN, {"deployment": "bad"}, 400, "E-USE-001"),
        (PLAN, b"{", 400, "E-REQ-001"),
        (PLAN, b"", 400, "E-REQ-001"),
        (PLAN, b"[" * 100_000, 400, "E-REQ-001"),
        (PLAN, b" " * (MAX_BYTES + 1), 413, "E-REQ-001"),
        (PLANS, {"items": []}, 400, "E-REQ-001"),
        (PLANS, {"items": [1]}, 400, "E-REQ-001"),
        (PLANS, {"items": [{}], "more": 1}, 400, "E-REQ-001"),
        (PLANS, {"items": [{}] * (MAX_ITEMS + 1)}, 413, "E-REQ-001"),
        (JOBS + "plan", {"items": [{}] * (MAX_JOB_ITEMS + 1)}, 413, "E-REQ-001"),
        (JOBS + "plan", {"deployment": "a", "webhook": "http://169.254.169.254/"}, 403, "E-REQ-001"),
        ("/servolt/v1/nothing", {}, 404, "E-REQ-001"),
        (JOBS + "nothing", {}, 405, "E-REQ-001"),
    ],
)
def test_a_refusal_is_a_problem_with_code_and_remedy(rig: Any, path: str, body: Any, status: int, code: str) -> None:
    async def scenario() -> None:
        async with rig(planner=Echo()) as one:
            reply = await one.ask(path, body)
            found = reply.json()
            assert (reply.status, found["status"], found["code"]) == (status, status, code)
            assert reply.headers["content-type"] == "application/problem+json"
            assert found["title"]
            assert found["remedy"]

    run(scenario())


def test_a_gateway_without_a_planner_says_what_to_use_instead(rig: Any) -> None:
    async def scenario() -> None:
        async with rig() as one:
            reply = await one.ask(PLAN, {"deployment": "guide"})
            assert (reply.status, "servolt plan" in reply.json()["remedy"]) == (400, True)

    run(scenario())


def test_other_requests_are_answered_while_a_plan_is_made(rig: Any) -> None:
    async def scenario() -> None:
        planner = Echo()
        planner.gate.clear()
        async with rig(planner=planner) as one:
            waiting = asyncio.create_task(one.ask(PLAN, {"deployment": "guide"}))
            chat = await one.ask("/api/chat", {"model": "m", "messages": [{"role": "user", "content": "hi"}]})
            assert (chat.status, waiting.done()) == (200, False)
            planner.gate.set()
            assert (await waiting).status == 200

    run(scenario())


def test_many_are_answered_in_order_each_with_its_plan_or_its_problem(rig: Any) -> None:
    async def scenario() -> None:
        async with rig(planner=Echo()) as one:
            asked = [{"deployment": "a"}, {"deployment": "gone"}, {"deployment": "b"}]
            items = (await one.ask(PLANS, {"items": asked})).json()["items"]
            assert [list(item) for item in items] == [["plan"], ["problem"], ["plan"]]
            assert [item["plan"]["asked"]["deployment"] for item in items if "plan" in item] == ["a", "b"]
            assert items[1]["problem"]["code"] == "E-MOD-001"

    run(scenario())


def test_a_job_is_accepted_at_once_and_has_its_result_when_it_is_done(rig: Any) -> None:
    async def scenario() -> None:
        planner = Echo()
        planner.gate.clear()
        async with rig(planner=planner) as one:
            reply = await one.ask(JOBS + "plan", {"items": [{"deployment": "a"}, {"deployment": "gone"}]})
            job = reply.json()
            assert (reply.status, job["state"], job["result"]) == (202, "queued", None)
            assert reply.headers["location"] == JOBS + job["id"]
            planner.gate.set()
            found = await ended(one, job["id"])
            assert (found["state"], found["done"], found["total"]) == ("done", 2, 2)
            assert [list(item) for item in found["result"]["items"]] == [["plan"], ["problem"]]

    run(scenario())


def test_a_job_of_one_has_the_plan_itself_or_its_problem(rig: Any) -> None:
    async def scenario() -> None:
        async with rig(planner=Echo()) as one:
            good = (await one.ask(JOBS + "plan", {"deployment": "a"})).json()["id"]
            bad = (await one.ask(JOBS + "plan", {"deployment": "gone"})).json()["id"]
            assert (await ended(one, good))["result"] == {"schema": "servolt.plan/1", "asked": {"deployment": "a"}}
            found = await ended(one, bad)
            assert (found["state"], found["result"], found["problem"]["code"]) == ("failed", None, "E-MOD-001")

    run(scenario())


def test_a_job_can_be_cancelled_and_an_unknown_one_is_not_found(rig: Any) -> None:
    async def scenario() -> None:
        planner = Echo()
        planner.gate.clear()
        async with rig(planner=planner) as one:
            name = (await one.ask(JOBS + "plan", {"deployment": "a"})).json()["id"]
            await asyncio.sleep(0)
            assert (await one.ask(JOBS + name, method="DELETE")).json()["state"] == "cancelled"
            planner.gate.set()
            assert (await ended(one, name))["state"] == "cancelled"
            assert (await one.ask(JOBS + "0" * 24, method="GET")).status == 404

    run(scenario())


def test_open_jobs_and_kept_jobs_are_bounded(rig: Any) -> None:
    async def scenario() -> None:
        planner = Echo()
        planner.gate.clear()
        async with rig(planner=planner) as one:
            replies = [await one.ask(JOBS + "plan", {"deployment": "a"}) for _ in range(MAX_OPEN + 1)]
            assert [reply.status for reply in replies] == [202] * MAX_OPEN + [429]
        kept = Jobs(Echo(), Webhooks())
        for _ in range(MAX_KEPT + 5):
            job = kept.add({"deployment": "a"})
            for _ in range(100):
                await asyncio.sleep(0)
            assert not job.is_open
        assert len(kept._jobs) <= MAX_KEPT
        assert kept.get(job.id) is job  # the last one is there in any case

    run(scenario())


def test_the_webhook_is_told_when_a_job_has_ended(rig: Any) -> None:
    async def scenario() -> None:
        bodies: list[bytes] = []

        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
            bodies.append(await reader.readexactly(length))
            assert b"webhook-id: " in head
            writer.write(b"HTTP/1.1 204 Fine\r\nconnection: close\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(listen, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/done?x=1"
        async with rig(planner=Echo()) as one:
            name = (await one.ask(JOBS + "plan", {"deployment": "a", "webhook": url})).json()["id"]
            job = await when(one, name, lambda job: job["webhook"] is not None)
            assert job["webhook"] == "delivered"
        server.close()
        told = json.loads(bodies[0])
        assert (told["type"], told["data"]["id"], told["data"]["state"]) == ("servolt.job.done", name, "done")
        assert "result" not in told["data"]

    run(scenario())
