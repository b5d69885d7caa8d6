"""Where a log and what is said beside it don't go together: told, and settled before anything is kept."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from servolt.catalogue import find_accelerator
from servolt.document import Problem
from servolt.engines.logs import StartupLog
from servolt.errors import InvalidInputError
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.plan.known import bare_name
from servolt.plan.memory import Budget
from servolt.plan.memory.profiles import version_key
from servolt.units import format_bytes

__all__ = ["agreed", "devices_differ", "refuse_other_weights"]

# Of 60 logs of vLLM and SGLang, weights lay up to 8 % outside of the interval: what loading repacks or pads isn't all
# known. A model that is closer than this in size can't be told by its weights.
WEIGHTS_OFF = 0.15
VISIBLE_OFF = 0.1  # of a device's memory: what the driver keeps of it is less
ALIKE = {"fp8_e4m3": "fp8", "float8_e4m3fn": "fp8", "auto": None, "bf16": "bfloat16", "fp16": "float16"}
FORCE = "--force keeps it for what is said beside the log."


def agreed(
    log: StartupLog, given: Mapping[str, Any], *, force: bool = False
) -> tuple[Mapping[str, Any], tuple[Problem, ...]]:
    """`given` without the settings that the log contradicts: it is what ran. With `force` they stay. Each is told."""
    told = [name for name in given if name in log.settings or name in log.at_default]
    wrong = {name for name in told if not _alike(given[name], log.settings.get(name))}
    problems = [_differs(name, log.settings.get(name, "the engine's default"), given[name], force) for name in wrong]
    if _is_other_version(log.engine_version, given.get("engine_version")):
        wrong.add("engine_version")
        problems.append(_differs("engine_version", log.engine_version, given["engine_version"], force))
    problems += _names(log, given)
    kept = given if force else {name: value for name, value in given.items() if name not in wrong}
    return kept, tuple(sorted(problems, key=lambda problem: problem.message))


def refuse_other_weights(log: StartupLog, model: Model, raw: Budget) -> None:
    """Raises InvalidInputError where the logged weights, which are nearly exact, can't be this model's.

    Sizes of a model card are too rough to tell. llama.cpp's parts lie wherever there was room, and a mapped file counts
    twice; so their sum must reach the model's, and no device hold more. Its quantisation is a guess without a header.
    """
    if model.basis in ("card", "stated") or log.first is None or log.first.weights_bytes is None:
        return
    logged, most, terms = log.first.weights_bytes, log.first.weights_bytes, [raw.per_rank[0].terms["weights"]]
    if log.engine == "llamacpp":
        if model.basis != "header":
            return
        each = [rank.weights_bytes or 0 for rank in log.ranks]
        logged, most = sum(each), max(each)
        terms = [rank.terms["weights"] for rank in raw.per_rank]
    low, high = sum(term.low for term in terms), sum(term.high for term in terms)
    if low * (1 - WEIGHTS_OFF) <= logged and most <= high * (1 + WEIGHTS_OFF):
        return
    named = f" and names {log.model}" if log.model else ""
    raise InvalidInputError(
        f"the log says {format_bytes(logged)} of weights{named}; {model.name} has {format_bytes(low)} to "
        f"{format_bytes(high)} on such a device: it is the log of another model, or of another deployment of this one.",
        "Check the model, its quantization, --tensor-parallel-size and --pipeline-parallel-size. --force keeps it.",
    )


def devices_differ(log: StartupLog, accelerator: Accelerator, visible_memory_bytes: int | None) -> Iterator[Problem]:
    """Where the log names another device, or saw another memory than `accelerator` has."""
    seen = log.first.visible_bytes if log.first is not None else None
    if log.accelerator is not None and (named := _device(log.accelerator)) is not None and named != accelerator.name:
        yield _problem(
            f"The log names {log.accelerator}, and it is kept for {accelerator.name}.",
            "Leave --accelerator out, or name the device that it ran on.",
        )
    elif seen and visible_memory_bytes and abs(seen / visible_memory_bytes - 1) > VISIBLE_OFF:
        yield _problem(
            f"The log saw {format_bytes(seen)} of memory on a device, and {accelerator.name} has "
            f"{format_bytes(visible_memory_bytes)}.",
            "Check --accelerator; a part of a device is planned with --accelerator-memory.",
        )


def _device(name: str) -> str | None:
    try:
        return find_accelerator(name).name
    except InvalidInputError:
        return None


def _names(log: StartupLog, given: Mapping[str, Any]) -> Iterator[Problem]:
    """A path may hold the same model, so this is only told; not where one name is a part of the other, as a file's is
    of its format."""
    asked = given.get("model")
    if not isinstance(asked, str) or log.model is None:
        return
    names = [bare_name(name).removesuffix(".gguf") for name in (asked, log.model)]
    if min(names, key=len) not in max(names, key=len):
        yield _problem(
            f"The log names {log.model}, and it is kept for {asked}.",
            "That is right where both are the same weights; else `servolt calibrate --forget` its id.",
        )


def _differs(name: str, logged: Any, asked: Any, force: bool) -> Problem:
    kept = f"the {asked} that is said beside it" if force else "what ran"
    return _problem(
        f"The log says {name} {logged}, and {asked} is said beside it: it is kept for {kept}.",
        "Leave the setting out, the log knows it." if force else f"Leave the setting out, or correct it; {FORCE}",
    )


def _problem(message: str, remedy: str) -> Problem:
    return Problem(code="log_contradicts", severity="warning", message=message, remedy=remedy)


def _alike(asked: Any, logged: Any) -> bool:
    one, other = (ALIKE.get(value, value) if isinstance(value, str) else value for value in (asked, logged))
    if one in (None, False) and other in (None, False):
        return True
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-3)
    return bool(one == other)


def _is_other_version(logged: str | None, asked: Any) -> bool:
    """Texts that hold no numbers can't be compared."""
    keys = [version_key(str(version)) if version else None for version in (logged, asked)]
    return None not in keys and keys[0] != keys[1]
