"""Deployments measured side by side: plan, start, measure window by window in blocks, keep, calibrate."""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from servolt import __version__, registry
from servolt.deployment import Deployment
from servolt.errors import EngineError, InvalidInputError, StorageError
from servolt.host import host_facts
from servolt.measure import (
    IdlePower,
    LoadClient,
    Place,
    RawRun,
    RawWindow,
    Target,
    joined,
    measure_idle,
    measure_window,
    measurement_from_files,
    meter_facts,
)
from servolt.measurement import Measurement
from servolt.meters import find_meter
from servolt.plan import Plan, update
from servolt.results import FolderStore, Stored
from servolt.serve.supervisor import Supervisor
from servolt.settings import Folders
from servolt.study.keep import read_calibration, write_document
from servolt.study.plan import plan_here
from servolt.workload import Slo, Workload

__all__ = ["NOT_MEASURABLE", "Step", "check_workload", "learn", "measure_side_by_side", "order"]

IDLE_S = 10.0  # of a baseline; taken only where a meter reads
# What a plan only warns of, and every request would fail by.
NOT_MEASURABLE = ("workload_exceeds_context",)


class Step(NamedTuple):
    """Where a study stands, for whoever shows it."""

    done: int
    total: int
    doing: str


@dataclass
class _Candidate:
    """One deployment while it is measured."""

    plan: Plan
    supervisor: Supervisor
    windows: list[RawWindow] = field(default_factory=list)
    load_time_s: float | None = None
    idle_loaded: IdlePower | None = None

    @property
    def label(self) -> str:
        return self.plan.deployment.label


def order(deployments: int, blocks: int) -> Iterator[tuple[int, int, int]]:
    """(block, position, deployment): every other block runs backwards, so that a drift of the machine hits all alike.

    >>> [deployment for _, _, deployment in order(2, 3)]
    [0, 1, 1, 0, 0, 1]
    """
    for block in range(blocks):
        row = range(deployments) if block % 2 == 0 else reversed(range(deployments))
        for position, deployment in enumerate(row):
            yield block, position, deployment


def check_workload(workload: Workload) -> None:
    """Raises InvalidInputError for what can be planned only."""
    if not workload.is_plain:
        raise InvalidInputError(
            "a measurement sends requests of one length, in a closed loop or at a constant or Poisson rate.",
            "Give numbers for the lengths and one of those arrivals; `servolt plan` takes the others.",
        )


async def measure_side_by_side(
    deployments: Sequence[Deployment],
    workload: Workload,
    folders: Folders,
    *,
    slo: Slo | None = None,
    load_timeout_s: float = 300.0,
    on_step: Callable[[Step], None] = lambda step: None,
) -> list[Stored]:
    """One measurement for each deployment, in the order given; all of them share a study.

    Raises InvalidInputError, ModelNotFoundError, EngineError, StorageError. When an engine dies, or the study is
    cancelled, the blocks that every deployment has completed are kept; the error says so.
    """
    check_workload(workload)
    study = _Study(deployments, workload, folders, slo or workload.slo, load_timeout_s, on_step)
    try:
        await study.measure()
    except (EngineError, asyncio.CancelledError) as failure:
        blocks = study.whole_blocks()
        if blocks == 0:
            raise
        study.keep(blocks)
        if not isinstance(failure, EngineError):
            raise
        kept = f"{blocks} of {workload.repetitions} blocks were complete and are kept."
        raise EngineError(f"{failure.cause} {kept}", failure.remedy) from failure
    return study.keep(workload.repetitions)


class _Study:
    def __init__(
        self,
        deployments: Sequence[Deployment],
        workload: Workload,
        folders: Folders,
        slo: Slo | None,
        load_timeout_s: float,
        on_step: Callable[[Step], None],
    ) -> None:
        if len({deployment.digest for deployment in deployments}) < len(deployments):
            raise InvalidInputError("one deployment is named twice.", "--repetitions takes more windows of each.")
        self.workload, self.folders, self.slo = workload, folders, slo
        self.candidates = [self._candidate(deployment, load_timeout_s) for deployment in deployments]
        self.id = secrets.token_hex(8)
        self.created = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self.meter, self.meter_note = find_meter()
        self.idle_empty: IdlePower | None = None
        self._on_step, self._done = on_step, 0
        self._total = len(deployments) * workload.repetitions * len(workload.points)
        self._together = self._fit_together()

    async def measure(self) -> None:
        """Every window of every block. Engines that fit together keep running between their turns."""
        origin_ns = time.monotonic_ns()
        self.idle_empty = await self._idle("idle, nothing loaded")
        try:
            async with LoadClient() as client:
                for block, position, number in order(len(self.candidates), self.workload.repetitions):
                    await self._turn(self.candidates[number], block, position, client, origin_ns)
        finally:
            await asyncio.gather(*(one.supervisor.stop() for one in self.candidates))

    def whole_blocks(self) -> int:
        """Blocks in which every deployment has every window."""
        return min(len(one.windows) for one in self.candidates) // len(self.workload.points)

    def keep(self, blocks: int) -> list[Stored]:
        """Saves each, and lets the next plan know."""
        store = FolderStore(self.folders.measurements)
        stored = []
        for one in self.candidates:
            windows = one.windows[: blocks * len(self.workload.points)]
            tables = {
                "requests": joined([raw.requests for raw in windows]),
                "events": joined([raw.events for raw in windows]),
            }
            run = self._run(one, windows)
            stored.append(store.save(run.to_json().encode(), tables, measurement_from_files))
        try:
            learn([one.measurement for one in stored], self.folders)
        except StorageError as error:
            kept = ", ".join(one.measurement.id[:12] for one in stored)
            cause = f"{error.cause} What was measured is kept, as {kept}; the next plan does not know of it."
            raise StorageError(cause, error.remedy) from error
        return stored

    def _candidate(self, deployment: Deployment, load_timeout_s: float) -> _Candidate:
        plan = plan_here(deployment, self.workload, self.folders)
        for problem in plan.problems:
            if problem.severity == "error" or problem.code in NOT_MEASURABLE:
                raise InvalidInputError(f"{deployment.label}: {problem.message}", problem.remedy)
        assert plan.command is not None
        supervisor = Supervisor(
            plan.command, registry.launcher("process"), logs=self.folders.logs, load_timeout_s=load_timeout_s
        )
        return _Candidate(plan, supervisor)

    def _fit_together(self) -> bool:
        available = self.candidates[0].plan.accelerator.available_bytes
        return available is None or sum(one.plan.memory.total_bytes for one in self.candidates) <= available

    async def _turn(self, one: _Candidate, block: int, position: int, client: LoadClient, origin_ns: int) -> None:
        for point in self.workload.points:
            self._tell(f"block {block + 1}/{self.workload.repetitions}  {one.label}  {point}")
            target = await self._target(one)
            place = Place(index=len(one.windows), repetition=block, block=block, position=position)
            raw = await measure_window(
                target, self.workload, point, place, client=client, meter=self.meter, origin_ns=origin_ns
            )
            if one.supervisor.server is None or one.supervisor.server.pid != target.pid:
                raise one.supervisor.error or EngineError(
                    f"The engine of {one.label} ended in the middle of a window.", "Look at its log."
                )
            one.windows.append(raw)
            self._done += 1
        if not self._together:
            await one.supervisor.stop()
        self._tell("")

    async def _target(self, one: _Candidate) -> Target:
        """The running engine. Its first start is the one whose time is kept."""
        server = await one.supervisor.ensure_ready()
        if one.load_time_s is None:
            one.load_time_s = one.supervisor.load_time_s
            one.idle_loaded = await self._idle(f"idle, {one.label} loaded")
        engine = registry.engine(one.plan.deployment.engine)
        return Target(
            url=server.url,
            model=one.label,
            api_key=one.supervisor.api_key,
            pid=server.pid,
            vocab_size=one.plan.model.vocab_size or None,
            metrics_path=server.command.metrics_path,
            readings=engine.readings,
        )

    async def _idle(self, doing: str) -> IdlePower | None:
        if self.meter is None:
            return None
        self._tell(doing)
        return await measure_idle(self.meter, IDLE_S)

    def _tell(self, doing: str) -> None:
        self._on_step(Step(self._done, self._total, doing))

    def _run(self, one: _Candidate, windows: Sequence[RawWindow]) -> RawRun:
        plan = one.plan
        return RawRun(
            tool_version=__version__,
            created=self.created,
            study=self.id,
            deployment=plan.deployment,
            deployment_digest=plan.deployment.digest,
            command=one.supervisor.command.argv,
            effective=one.supervisor.effective,
            engine=plan.deployment.engine,
            engine_version=plan.engine_version,
            model=plan.model,
            accelerators=(plan.accelerator,),
            host=host_facts(),
            workload=self.workload,
            slo=self.slo,
            windows=tuple(raw.window for raw in windows),
            load_time_s=one.load_time_s,
            meter=None if self.meter is None else meter_facts(self.meter),
            meter_note=self.meter_note,
            idle_empty=self.idle_empty,
            idle_loaded=one.idle_loaded,
            prediction=plan.prediction(__version__),
        )


def learn(measurements: Sequence[Measurement], folders: Folders) -> None:
    """The calibration with these measurements. Raises StorageError."""
    calibration = read_calibration(folders)
    for measurement in measurements:
        assert measurement.engine is not None
        assert measurement.model is not None
        overhead = registry.engine(measurement.engine).overhead(measurement.deployment, measurement.model)
        calibration = update(calibration, measurement, overhead_bytes=overhead)
    write_document(folders.calibration, calibration)
