"""What logs and results of deployments teach, kept in the data folder for every later plan."""

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from servolt import __version__
from servolt.catalogue import find_accelerator
from servolt.deployment import Deployment
from servolt.document import Problem
from servolt.engines.logs import StartupLog, parse_log
from servolt.errors import AddressError, InvalidInputError, ModelFileError, ModelNotFoundError, StorageError
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.plan.known import KnownDeployments, KnownMemory, KnownSpeed
from servolt.plan.learning import drifts, learnt_memory
from servolt.plan.memory import Budget
from servolt.plan.memory.emulate import budget_of
from servolt.settings import Folders
from servolt.sources import find_model
from servolt.study.contradictions import agreed, devices_differ, refuse_other_weights
from servolt.study.keep import read_accelerator, write_document

__all__ = ["Lesson", "forget", "keep", "learn_log", "now", "read_known", "read_text"]

MOST_BYTES = 256 * 2**20  # of a log: an engine's start fills a few thousand lines
# SGLang prints the share that it reckoned, and plans with it: within this of the formula's tokens it wasn't asked for.
RECKONED = 0.04


class Lesson(NamedTuple):
    """What one log said, and what is kept of it."""

    log: StartupLog
    row: KnownMemory
    problems: tuple[Problem, ...]


def read_known(folders: Folders) -> KnownDeployments:
    """Empty where nothing was learnt yet. Raises StorageError."""
    path = _path(folders)
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return KnownDeployments()
    except OSError as error:
        raise StorageError(
            f"{path} can't be read: {error.strerror}.", "Make it readable, or set SERVOLT_HOME."
        ) from error
    try:
        return KnownDeployments.from_json(text)
    except InvalidInputError as error:
        raise StorageError(
            f"{path} is damaged, or of another version of servolt: {error.cause}",
            "Move it away, and calibrate again with the logs and results that it was learnt from.",
        ) from error


def learn_log(
    text: str,
    folders: Folders,
    *,
    given: Mapping[str, Any],
    accelerator: Accelerator | None = None,
    provenance: str = "",
    verified: bool = True,
    force: bool = False,
) -> Lesson:
    """Reads a start-up log and keeps what it says. `given` are the deployment's fields that the log doesn't tell: what
    it tells otherwise is what ran, and with `force` what is given.

    Raises InvalidInputError for a text that is no log, of which no deployment or no device can be told, and, without
    `force`, for the log of another model; StorageError.
    """
    log = parse_log(text)
    if given.get("engine", log.engine) != log.engine:
        raise InvalidInputError(f"it is a log of {log.engine}, and {given['engine']} is asked.", "Leave --engine out.")
    fields, differing = agreed(log, given, force=force)
    deployment = _deployment(log, fields)
    named = accelerator or _device(log, deployment, folders)
    device = _as_logged(named, log)
    model, problems = _model(deployment)
    problems = (*differing, *devices_differ(log, named, named.visible_memory_bytes), *problems)
    raw = None if model is None else budget_of(deployment, model, device)
    if model is not None and raw is not None:
        if not force:
            refuse_other_weights(log, model, raw)
        deployment, raw = _unasked(deployment, model, device, raw)
    row = learnt_memory(
        log,
        deployment,
        model,
        device,
        raw,
        date=now(),
        tool_version=__version__,
        provenance=provenance,
        verified=verified,
    )
    known = keep(folders, row)
    found = () if model is None else drifts(known, deployment, model, device)
    return Lesson(log, row, (*problems, *found))


def keep(folders: Folders, *rows: KnownMemory | KnownSpeed) -> KnownDeployments:
    """With these. Raises StorageError."""
    known = read_known(folders).having(*rows)
    write_document(_path(folders), known)
    return known


def forget(folders: Folders, beginnings: Sequence[str]) -> list[str]:
    """Drops what has an id that begins so, or all, and returns the ids. Raises InvalidInputError where nothing has."""
    known = read_known(folders)
    ids = known.ids
    for beginning in beginnings:
        if beginning != "all" and not any(one.startswith(beginning) for one in ids):
            raise InvalidInputError(
                f"nothing is known under {beginning!r}.", "`servolt calibrate --list` shows the ids."
            )
    later = KnownDeployments() if "all" in beginnings else known
    for beginning in beginnings:
        later = later.without(beginning)
    write_document(_path(folders), later)
    return [one for one in ids if one not in set(later.ids)]


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def read_text(path: Path) -> str:
    """A log or a table; bytes that are no text are replaced. Raises InvalidInputError."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InvalidInputError(f"{path} is larger than {MOST_BYTES // 2**20} MiB.", "Cut out the engine's start.")
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise InvalidInputError(f"{path} can't be read: {error.strerror}.", "Name a file that exists.") from error


def _path(folders: Folders) -> Path:
    return folders.data / "known.json"


def _deployment(log: StartupLog, given: Mapping[str, Any]) -> Deployment:
    if log.model is None and "model" not in given:
        raise InvalidInputError("the log doesn't name its model.", "Name it: servolt calibrate MODEL --log FILE.")
    return log.deployment(**given)


def _device(log: StartupLog, deployment: Deployment, folders: Folders) -> Accelerator:
    """As the deployment names it, else the log; a log of llama.cpp without devices is of this machine's processor."""
    hardware = deployment.hardware
    name = (hardware.accelerator if hardware else None) or log.accelerator
    if name is not None:
        found = find_accelerator(name)
        count = hardware.count if hardware and "count" in hardware.model_fields_set else log.devices or found.count
        return found.model_copy(update={"count": count})
    if log.engine == "llamacpp" and log.devices is None:
        return read_accelerator(folders)
    raise InvalidInputError("the log doesn't name the device that it ran on.", "Name it: --accelerator H100.")


def _as_logged(accelerator: Accelerator, log: StartupLog) -> Accelerator:
    """The device with the memory that the engine saw of it."""
    visible = log.first.visible_bytes if log.first is not None else None
    return accelerator if visible is None else accelerator.model_copy(update={"visible_memory_bytes": visible})


def _model(deployment: Deployment) -> tuple[Model | None, tuple[Problem, ...]]:
    try:
        return find_model(deployment), ()
    except (ModelNotFoundError, ModelFileError, AddressError) as error:
        return None, (
            Problem(
                code="model_not_found",
                severity="note",
                message=f"{error.cause} So nothing was predicted, and the log holds for this deployment alone.",
                remedy=error.remedy,
            ),
        )


def _unasked(deployment: Deployment, model: Model, accelerator: Accelerator, raw: Budget) -> tuple[Deployment, Budget]:
    """Without a share that the engine reckoned by itself: a deployment that doesn't ask for one gets the same."""
    if deployment.mem_fraction_static is None:
        return deployment, raw
    plain = deployment.model_copy(update={"mem_fraction_static": None})
    reckoned = budget_of(plain, model, accelerator)
    off = abs(reckoned.kv_cache_tokens - raw.kv_cache_tokens)
    return (plain, reckoned) if off <= RECKONED * raw.kv_cache_tokens else (deployment, raw)
