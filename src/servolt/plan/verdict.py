"""Does it fit, why, and what would make it fit: each remedy recomputed."""

from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from pydantic import Field

from servolt.deployment import Deployment
from servolt.document import Value
from servolt.model import Model
from servolt.plan.memory import CELL_STEP, Memory, memory_of
from servolt.units import format_bytes

__all__ = ["Fix", "Verdict", "fixes_for", "reasons_for", "verdict_of"]

Verdict = Literal["fits", "tight", "no", "unknown"]

# Below this a conversation hardly fits, so no shorter context is proposed.
LEAST_CONTEXT = 512


class Fix(Value):
    """One change, computed again with it."""

    change: Mapping[str, str | int | float | bool] = Field(description="fields of the deployment")
    total_bytes: int
    saved_bytes: int
    verdict: Verdict
    cost: str | None = Field(None, description="what is given up for it")
    max_concurrency: float | None = Field(None, description="requests of the longest context that then fit at a time")

    @property
    def text(self) -> str:
        """For people: --max-model-len 1024 saves 1.5 GiB; then it fits."""
        flags = " ".join(_flag(name, value) for name, value in self.change.items())
        then = {"fits": "then it fits", "tight": "then it may fit", "no": "not enough by itself"}.get(self.verdict, "")
        is_much = self.max_concurrency is None or self.saved_bytes * 100 > self.total_bytes
        saves = f" saves {format_bytes(self.saved_bytes)}" if is_much else ""
        room = "" if self.max_concurrency is None else f" ({self.max_concurrency:.2f} requests of the longest context)"
        return f"{flags}{saves}{then and (f'; {then}' if saves else f': {then}')}{room}."


def _flag(name: str, value: str | int | float | bool) -> str:
    """hardware.count is --count on the command line; a switch has no value."""
    flag = "--" + name.rpartition(".")[2].replace("_", "-")
    return flag if value is True else f"{flag} {value}"


def verdict_of(memory: Memory) -> Verdict:
    """fits: even the high estimate is available. tight: only the middle one is. no: not even that."""
    if memory.available_bytes is None:
        return "unknown"
    if memory.high_bytes <= memory.available_bytes:
        return "fits"
    return "tight" if memory.total_bytes <= memory.available_bytes else "no"


def reasons_for(memory: Memory, verdict: Verdict) -> tuple[str, ...]:
    """The comparison, and the largest part where it is not a clear yes."""
    total, high = format_bytes(memory.total_bytes), format_bytes(memory.high_bytes)
    if memory.available_bytes is None:
        return (f"It takes {total}; how much is free here is not known.",)
    free = format_bytes(memory.available_bytes)
    largest = max(memory.parts, key=lambda part: part.bytes)
    part = f"The largest part is {largest.name}: {format_bytes(largest.bytes)} ({largest.formula})."
    match verdict:
        case "fits":
            return (f"It takes {total}, at most {high}; {free} are available.",)
        case "tight":
            return (f"It takes {total} of {free} available, but it may take {high}.", part)
        case _:
            short = format_bytes(memory.total_bytes - memory.available_bytes)
            return (f"It takes {total} and {free} are available: {short} are missing.", part)


def fixes_for(
    deployment: Deployment, model: Model, memory: Memory, overhead: Callable[[Deployment], int]
) -> tuple[Fix, ...]:
    """Single changes that save memory, those first that make it fit. None where it fits already.

    `overhead` is what the engine's process takes, which depends on the deployment too.
    """
    if verdict_of(memory) in ("fits", "unknown"):
        return ()
    found = [_fix(deployment, model, memory, overhead, change) for change in _changes(deployment, memory)]
    order: list[Verdict] = ["fits", "tight", "no"]
    return tuple(sorted((fix for fix in found if fix.saved_bytes > 0), key=lambda fix: order.index(fix.verdict)))


def _changes(deployment: Deployment, memory: Memory) -> Iterator[dict[str, str | int]]:
    if deployment.kv_cache_dtype in (None, "f16", "bf16", "f32"):
        yield {"kv_cache_dtype": "q8_0"}
    context = _context_that_fits(memory)
    if LEAST_CONTEXT <= context < memory.max_model_len:
        yield {"max_model_len": context}
    if memory.max_num_seqs > 1:
        yield {"max_num_seqs": max(1, min(memory.max_num_seqs - 1, _slots_that_fit(memory)))}
    if (deployment.max_num_batched_tokens or LEAST_CONTEXT) > LEAST_CONTEXT:
        yield {"max_num_batched_tokens": LEAST_CONTEXT}


def _room_for_kv(memory: Memory) -> int:
    return (memory.available_bytes or 0) - (memory.high_bytes - memory.kv_cache_bytes)


def _context_that_fits(memory: Memory) -> int:
    tokens = max(0, _room_for_kv(memory)) // max(1, memory.kv_bytes_per_token)
    return tokens // memory.max_num_seqs // CELL_STEP * CELL_STEP


def _slots_that_fit(memory: Memory) -> int:
    return max(0, _room_for_kv(memory)) // max(1, memory.kv_bytes_per_token * memory.max_model_len)


def _fix(
    deployment: Deployment,
    model: Model,
    memory: Memory,
    overhead: Callable[[Deployment], int],
    change: dict[str, str | int],
) -> Fix:
    other = deployment.model_copy(update=change)
    changed = memory_of(other, model, overhead_bytes=overhead(other), available_bytes=memory.available_bytes)
    saved = memory.total_bytes - changed.total_bytes
    return Fix(change=change, total_bytes=changed.total_bytes, saved_bytes=saved, verdict=verdict_of(changed))
