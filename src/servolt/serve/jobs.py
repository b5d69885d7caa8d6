"""Work that outlives its request: kept in memory, bounded, and looked up by its id."""

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

from servolt import __version__
from servolt.errors import ServoltError
from servolt.serve.planning import MAX_JOB_ITEMS, Planner, answer, items_of, plans_document
from servolt.serve.problem import problem_of
from servolt.serve.refusal import RefusedError
from servolt.serve.webhook import Webhooks

__all__ = ["Job", "Jobs"]

MAX_OPEN = 32  # jobs that wait or run; they are done one after the other
MAX_KEPT = 256
MAX_KEPT_BYTES = 256 * 2**20  # of results; the oldest go first

State = Literal["queued", "running", "done", "failed", "cancelled"]


@dataclass
class Job:
    id: str
    items: list[dict[str, Any]]
    is_many: bool
    url: str | None
    state: State = "queued"
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    finished: datetime | None = None
    answers: list[bytes] = field(default_factory=list)
    result: bytes = b"null"
    problem: dict[str, Any] | None = None
    told: str | None = None  # of the webhook: delivered, or why not

    @property
    def is_open(self) -> bool:
        return self.state in ("queued", "running")

    def document(self) -> bytes:
        """With the result once it is done."""
        head = orjson.dumps({"schema": "servolt.job/1", "tool_version": __version__, **self.summary()})
        return head[:-1] + b',"result":' + self.result + b"}"

    def summary(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "kind": "plan",
            "state": self.state,
            "created": self.created.isoformat(),
            "finished": self.finished.isoformat() if self.finished else None,
            "done": len(self.answers),
            "total": len(self.items),
            "problem": self.problem,
            "webhook": self.told,
        }


class Jobs:
    """One runs at a time, in the order in which they came; a plan that somebody waits for comes between two items."""

    def __init__(self, planner: Planner, webhooks: Webhooks) -> None:
        self._planner, self._webhooks = planner, webhooks
        self._jobs: dict[str, Job] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._turn = asyncio.Lock()

    def add(self, plain: Mapping[str, Any]) -> Job:
        """{deployment, ...} or {items: [...]}, and a webhook. Raises RefusedError."""
        request = dict(plain)
        webhook = request.pop("webhook", None)
        is_many = "items" in request
        items = items_of(request, MAX_JOB_ITEMS, "Send several jobs.") if is_many else [request]
        url = None if webhook is None else self._webhooks.checked(webhook)
        if sum(job.is_open for job in self._jobs.values()) >= MAX_OPEN:
            raise RefusedError("busy", f"{MAX_OPEN} jobs are open already.", "Ask again when one of them is done.")
        job = Job(secrets.token_hex(12), items, is_many, url)  # the id alone lets one read it
        self._jobs[job.id] = job
        self._drop_oldest()
        task = self._tasks[job.id] = asyncio.create_task(self._run(job))
        task.add_done_callback(lambda _: self._tasks.pop(job.id, None))
        return job

    def get(self, name: str) -> Job:
        """Raises RefusedError."""
        job = self._jobs.get(name)
        if job is None:
            remedy = "Jobs go when the server stops, and when many others came after them."
            raise RefusedError("no_route", f"No job is called {name[:60]!r}.", remedy)
        return job

    def cancel(self, name: str) -> Job:
        job = self.get(name)
        if job.is_open and (task := self._tasks.get(name)) is not None:
            task.cancel()
            self._end(job, "cancelled")
        return job

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, job: Job) -> None:
        try:
            async with self._turn:
                job.state = "running"
                for item in job.items:
                    job.answers.append(await answer(item, self._planner))
            self._finish(job)
        except ServoltError as error:
            job.problem = problem_of(error)
            self._end(job, "failed")
        if job.url is not None:
            why = await self._webhooks.tell(job.url, f"servolt.job.{job.state}", job.summary())
            job.told = "delivered" if why is None else f"not delivered: {why}"

    def _finish(self, job: Job) -> None:
        if job.is_many:
            job.result = plans_document(job.answers)
            self._end(job, "done")
            return
        found = orjson.loads(job.answers[0])
        job.problem = found.get("problem")
        job.result = job.answers[0].removeprefix(b'{"plan":')[:-1] if job.problem is None else b"null"
        self._end(job, "done" if job.problem is None else "failed")

    def _end(self, job: Job, state: State) -> None:
        job.state, job.finished = state, datetime.now(UTC)
        job.answers = [b""] * len(job.answers)  # counted still; what they held is in the result
        self._drop_oldest()

    def _drop_oldest(self) -> None:
        kept = sum(len(job.result) for job in self._jobs.values())
        for job in [job for job in self._jobs.values() if not job.is_open][:-1]:
            if len(self._jobs) <= MAX_KEPT and kept <= MAX_KEPT_BYTES:
                return
            kept -= len(job.result)
            del self._jobs[job.id]
