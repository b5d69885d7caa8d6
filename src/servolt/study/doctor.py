"""What this machine offers, and how fast the engine is on it: the chain behind `servolt doctor`."""

import asyncio
import contextlib
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, TypeAlias

from servolt import registry
from servolt.command import Engine
from servolt.cores import usable_cpus
from servolt.deployment import Deployment
from servolt.document import Problem
from servolt.errors import InvalidInputError, StorageError
from servolt.gpu import Accelerator
from servolt.host import ProcessTree, machine_busy_s, own_cpu_s
from servolt.host.calibrate import read_bytes_per_s
from servolt.host.facts import cpu_accelerator
from servolt.measurement import Measurement
from servolt.model import Model
from servolt.model.gguf import read_gguf_header
from servolt.plan.calibration import Calibration, recalibrated, update
from servolt.plan.fit import ProbePoint, fitted
from servolt.plan.speed import Constants
from servolt.results import FolderStore
from servolt.serve.supervisor import Supervisor
from servolt.settings import Folders
from servolt.study.completion import Timing, complete
from servolt.study.keep import read_accelerator, read_calibration, write_document
from servolt.study.probe import ProbeShape, write_probe

__all__ = ["Calibrated", "Known", "Probe", "calibrate", "calibrated", "known_here"]

# Steps done, of how many, and what is being done.
Progress: TypeAlias = Callable[[int, int, str], None]

ENGINE = "llamacpp"
SLOTS = 8
CONTEXT = 512
# Two that agree are enough. In six calibrations of a quiet two-core machine the built-in model's steps by two rounds
# differed from those by three by 7 % at most, and spread as little (2 to 5 % against 2 to 4 %; by one round 4 to 12 %);
# the intervals of plans are not surer than 27 % anyway. Where rounds do not agree, something else ran, and the third
# shows how much it matters: with one round less the spread would be told too small.
ROUNDS = 3
ENOUGH_ROUNDS = 2
AGREEMENT = 0.1  # of the median point between two rounds: no more than the surest calibration claims, `plan.fit`
BEFORE_ROUNDS = 2  # steps that are shown before the first round: memory, and the engines' start
# After so long no further round is begun: on a busy machine one round takes as long as three on a quiet one.
ROUNDS_WITHIN_S = 5.0
# Other programs' share of the processors from which a measurement counts as disturbed, here as in `measure`.
FOREIGN_SHARE = 0.12


class Probe(NamedTuple):
    """A model to time: at which numbers of streams, for how many tokens, and with how long a prompt."""

    name: str
    shape: ProbeShape
    dtype: str
    streams: tuple[int, ...]
    tokens: int
    prompt: int


# Two with hardly any weights, which differ in layers, show what a step, a layer and a sequence cost; a small and a
# large one of each data type show the reads from caches and from memory, and the arithmetic. Sizes are chosen so that
# all of it takes 5 to 8 s on one core at 40 GFLOP/s.
PROBES = (
    Probe("thin", ProbeShape(2, 128, 256, 4, 2, 32, 512, True), "f16", (1, 8), 96, 256),
    Probe("deep", ProbeShape(24, 128, 256, 4, 2, 32, 512, True), "f16", (1, 8), 32, 64),
    Probe("small-f16", ProbeShape(6, 384, 1024, 6, 3, 64, 2048, True), "f16", (1, 4, 8), 16, 64),
    Probe("small-q8_0", ProbeShape(6, 384, 1024, 6, 3, 64, 2048, True), "q8_0", (1, 4, 8), 16, 64),
    Probe("large-f16", ProbeShape(6, 768, 2048, 12, 4, 64, 16384, False), "f16", (1, 4), 8, 64),
    Probe("large-q8_0", ProbeShape(12, 768, 2048, 12, 4, 64, 16384, False), "q8_0", (1, 4), 8, 64),
)


class Calibrated(NamedTuple):
    accelerator: Accelerator
    constants: Constants


class _Times(NamedTuple):
    points: list[ProbePoint]
    request_s: float
    foreign_share: float | None


class _Running(NamedTuple):
    probe: Probe
    model: Model
    supervisor: Supervisor
    url: str
    tree: ProcessTree | None


class Known(NamedTuple):
    """What earlier calibrations left. A document that can't be read is as good as none, and is one of the problems."""

    accelerator: Accelerator
    calibration: Calibration
    problems: tuple[Problem, ...]


def calibrate(folders: Folders, progress: Progress = lambda done, total, doing: None) -> Calibrated:
    """Measures this machine and writes both documents, damaged ones too; all measurements that are kept teach anew.

    Raises EngineError, StorageError.
    """
    for folder in (folders.data, folders.cache, folders.logs):
        _require_writable(folder)
    found = asyncio.run(calibrated(folders, PROBES, ROUNDS, progress))
    write_document(folders.accelerator, found.accelerator)
    kept = [one.measurement for one in FolderStore(folders.measurements).list()]
    calibration = _taught(recalibrated(known_here(folders).calibration, found.constants), kept)
    write_document(folders.calibration, calibration)
    return found


def known_here(folders: Folders) -> Known:
    """For whoever must go on without: the plan refuses a damaged document."""
    problems: list[Problem] = []
    accelerator, calibration = cpu_accelerator(source="not known: accelerator.json can't be read"), Calibration()
    try:
        accelerator = read_accelerator(folders)
    except StorageError as error:
        problems.append(_unreadable("accelerator_unreadable", error, folders))
    try:
        calibration = read_calibration(folders)
    except StorageError as error:
        problems.append(_unreadable("calibration_unreadable", error, folders))
    return Known(accelerator, calibration, tuple(problems))


def _unreadable(code: str, error: StorageError, folders: Folders) -> Problem:
    """Without the folder, which often holds a person's name: what `doctor` finds gets pasted."""
    message = error.cause.replace(f"{folders.data}{os.sep}", "")
    return Problem(code=code, severity="warning", message=message, remedy=error.remedy)


def _require_writable(folder: Path) -> None:
    """Before the machine is measured for seconds: an engine's log and the results have to go somewhere."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StorageError(
            f"{folder} can't be written: {error.strerror}.", "Make the folder writable, or set SERVOLT_HOME."
        ) from error


def _taught(calibration: Calibration, measurements: Sequence[Measurement]) -> Calibration:
    """With what these teach, oldest first. One whose engine or settings are not known here any more teaches nothing."""
    for one in measurements:
        if one.engine is None or one.model is None:
            continue
        try:
            overhead = registry.engine(one.engine).overhead(one.deployment, one.model)
            calibration = update(calibration, one, overhead_bytes=overhead)
        except InvalidInputError:
            continue
    return calibration


async def calibrated(folders: Folders, probes: Sequence[Probe], rounds: int, progress: Progress) -> Calibrated:
    """Times the engine on models with random weights, which are made for it and removed again."""
    machine = cpu_accelerator(source="this machine")
    threads = max(1, machine.count - 1)
    total = BEFORE_ROUNDS + rounds * len(probes)
    progress(0, total, "reading memory")
    read = await asyncio.to_thread(read_bytes_per_s, threads)
    folders.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="calibrate-", dir=folders.cache) as room:
        async with contextlib.AsyncExitStack() as stack:
            progress(1, total, "starting the engine on probe models")
            running = await _started(stack, probes, Path(room), folders.logs)
            times = await _timed(running, rounds, lambda done, doing: progress(BEFORE_ROUNDS + done, total, doing))
    return _result(machine, threads, read, times)


async def _started(stack: contextlib.AsyncExitStack, probes: Sequence[Probe], room: Path, logs: Path) -> list[_Running]:
    """All of them. Where one fails the others are waited for, so that none starts after all were stopped."""
    ends = await asyncio.gather(*(_start(stack, probe, room, logs) for probe in probes), return_exceptions=True)
    for end in ends:
        if isinstance(end, BaseException):
            raise end
    return [end for end in ends if not isinstance(end, BaseException)]


async def _start(stack: contextlib.AsyncExitStack, probe: Probe, room: Path, logs: Path) -> _Running:
    path = room / f"{probe.name}.gguf"
    await asyncio.to_thread(write_probe, path, probe.shape, probe.dtype)
    model = read_gguf_header(path)
    deployment = Deployment(model=str(path), engine=ENGINE, max_num_seqs=SLOTS, max_model_len=CONTEXT)
    command = registry.engine(ENGINE).command(deployment, model)
    supervisor = Supervisor(command, registry.launcher("process"), logs=logs)
    stack.push_async_callback(supervisor.stop)
    server = await supervisor.ensure_ready()
    tree = None if server.pid is None else ProcessTree(server.pid)
    return _Running(probe, model, supervisor, server.url, tree)


async def _timed(running: Sequence[_Running], rounds: int, progress: Callable[[int, str], None]) -> _Times:
    """All probes once in each round, so that a slow moment of the machine meets every probe alike."""
    taken: list[list[ProbePoint]] = []
    requests: list[float] = []
    for one in running:
        await complete(one.url, one.supervisor.api_key, prompt_tokens=1, tokens=2)
    began, foreign = time.monotonic(), _foreign_s(running)
    for number in range(rounds):
        if number and time.monotonic() - began > ROUNDS_WITHIN_S:
            break
        taken.append([])
        for place, one in enumerate(running):
            progress(number * len(running) + place, f"round {number + 1} of {rounds}: {one.probe.name}")
            taken[-1] += [await _decode(one, streams) for streams in one.probe.streams]
            prompt = await _ask(one, one.probe.prompt, 1)
            taken[-1].append(ProbePoint(one.model, 0, 0.0, one.probe.prompt, prompt.prompt_s))
            requests.append(prompt.end_s - prompt.start_s - prompt.prompt_s)
        share = _foreign_share(running, foreign, time.monotonic() - began)
        if len(taken) >= ENOUGH_ROUNDS and share is not None and share <= FOREIGN_SHARE and agree(*taken[-2:]):
            break
    return _Times([point for points in taken for point in points], statistics.median(requests), share)


def agree(earlier: Sequence[ProbePoint], later: Sequence[ProbePoint]) -> bool:
    """Whether two rounds of the same points tell the same of the machine."""
    apart = [abs(math.log(one.seconds / other.seconds)) for one, other in zip(earlier, later, strict=True)]
    return statistics.median(apart) <= AGREEMENT


def _foreign_share(running: Sequence[_Running], before: float | None, elapsed_s: float) -> float | None:
    """Of the processors that may be used, since then."""
    now = _foreign_s(running)
    return None if before is None or now is None else (now - before) / (len(usable_cpus()) * elapsed_s)


def _foreign_s(running: Sequence[_Running]) -> float | None:
    """Processor seconds so far of all that is neither the engines nor we. None where an engine's are not known."""
    engines = [None if one.tree is None else one.tree.cpu_s() for one in running]
    known = [seconds for seconds in engines if seconds is not None]
    return machine_busy_s() - own_cpu_s() - sum(known) if len(known) == len(engines) else None


async def _decode(one: _Running, streams: int) -> ProbePoint:
    """Streams never start and end together, so the mean number of those that ran is what counts."""
    tokens = one.probe.tokens
    answers = await asyncio.gather(*(_ask(one, 1, tokens) for _ in range(streams)))
    span = max(answer.end_s for answer in answers) - min(answer.end_s - answer.decode_s for answer in answers)
    running = sum(answer.decode_s for answer in answers) / span
    # The first token belongs to the prompt, so the engine's time is of one step less.
    steps = [answer.decode_s / max(1, answer.tokens - 1) for answer in answers]
    return ProbePoint(one.model, max(1.0, running), tokens / 2, 0, statistics.fmean(steps))


async def _ask(one: _Running, prompt_tokens: int, tokens: int) -> Timing:
    return await complete(one.url, one.supervisor.api_key, prompt_tokens=prompt_tokens, tokens=tokens)


def _result(machine: Accelerator, threads: int, read: float, times: _Times) -> Calibrated:
    engine: Engine = registry.engine(ENGINE)
    constants = fitted(
        times.points,
        engine=engine.name,
        engine_version=engine.version,
        accelerator=machine.name,
        threads=threads,
        request_s=times.request_s,
        read_bytes_per_s=read,
        source=_source(engine, threads, times.foreign_share),
    )
    speeds = {dtype: speed.flops_per_s for dtype, speed in constants.weights.items()}
    found = {"bandwidth_bytes_per_s": read, "flops_per_s": speeds, "available_bytes": None}
    return Calibrated(machine.model_copy(update={**found, "source": constants.source}), constants)


def _source(engine: Engine, threads: int, foreign_share: float | None) -> str:
    today = datetime.now(UTC).date().isoformat()
    disturbed = ""
    if foreign_share is None:
        disturbed = "; whether other programs disturbed it is not known"
    elif foreign_share > FOREIGN_SHARE:
        disturbed = f", while other programs used {foreign_share:.0%} of the processors"
    many = "1 thread" if threads == 1 else f"{threads} threads"
    return f"measured by doctor --calibrate on {today} with {engine.name} {engine.version}, {many}{disturbed}"
