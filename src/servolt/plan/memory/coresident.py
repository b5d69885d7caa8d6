"""Several models on one device: what each takes, in the order in which they start, and whether that is too much.

Engines differ in what their share is of. vLLM's gpu_memory_utilization is of the whole card, and it refuses to start
when less than that is free; TensorRT-LLM, SGLang and transformers take a share of what they find free; llama.cpp takes
what its context needs.
"""

from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import Field

from servolt.deployment import Deployment, Hardware
from servolt.document import Value
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.plan.memory.budget import Budget
from servolt.plan.memory.settings import visible_memory
from servolt.units import format_bytes

__all__ = ["Coresidence", "Resident", "coresident"]

# Engines whose share is of the whole device, whatever runs there already.
SHARE_OF_ALL = ("vllm",)

# vLLM's utilisation is written with so many decimals.
STEP = 0.01


class Resident(Value):
    """One of the deployments, as it comes out after those before it."""

    deployment: Deployment
    takes_bytes: int = Field(description="of each device it is on, pool included")
    low_bytes: int
    high_bytes: int
    free_before_bytes: int = Field(description="of a device, when it starts")
    max_concurrency: float
    starts: bool = Field(description="what it needs is free when it starts")
    reason: str


class Coresidence(Value):
    """Everything on one device."""

    residents: tuple[Resident, ...]
    total_bytes: int
    high_bytes: int
    available_bytes: int
    verdict: Literal["fits", "tight", "no"]


def coresident(
    together: Sequence[tuple[Deployment, Model]],
    accelerator: Accelerator,
    budget_of: Callable[[Deployment, Model, Accelerator], Budget],
) -> Coresidence:
    """In the order of starting. Each is on all of the devices that its ranks need, counted from the first."""
    whole = visible_memory(together[0][0], accelerator).bytes if together else float(accelerator.memory_bytes)
    residents: list[Resident] = []
    taken = 0
    for deployment, model in together:
        resident = _resident(deployment, model, accelerator, budget_of, round(whole), taken)
        residents.append(resident)
        taken += resident.takes_bytes
    spread = sum((resident.high_bytes - resident.takes_bytes) ** 2 for resident in residents) ** 0.5
    high = taken + round(spread)
    all_start = all(resident.starts for resident in residents)
    verdict: Literal["fits", "tight", "no"] = (
        "fits" if all_start and high <= whole else "tight" if all_start and taken <= whole else "no"
    )
    return Coresidence(
        residents=tuple(residents),
        total_bytes=taken,
        high_bytes=high,
        available_bytes=round(whole),
        verdict=verdict,
    )


def _resident(
    deployment: Deployment,
    model: Model,
    accelerator: Accelerator,
    budget_of: Callable[[Deployment, Model, Accelerator], Budget],
    whole: int,
    taken: int,
) -> Resident:
    free = max(0, whole - taken)
    if deployment.engine in SHARE_OF_ALL:
        budget = budget_of(deployment, model, accelerator)
    else:
        # To these a device that is partly taken is a smaller device.
        count = deployment.hardware.count if deployment.hardware else accelerator.count
        name = deployment.hardware.accelerator if deployment.hardware else None
        smaller = Hardware(accelerator=name, count=count, memory_bytes=max(1, free))
        budget = budget_of(deployment.model_copy(update={"hardware": smaller}), model, accelerator)
    fullest = max((rank for rank in budget.per_rank if rank.rank != "host"), key=lambda rank: rank.total_bytes)
    starts = fullest.total_bytes <= free and budget.max_concurrency >= 1
    return Resident(
        deployment=deployment,
        takes_bytes=fullest.total_bytes,
        low_bytes=fullest.low_bytes,
        high_bytes=fullest.high_bytes,
        free_before_bytes=free,
        max_concurrency=budget.max_concurrency,
        starts=starts,
        reason=_reason(deployment, fullest.total_bytes, free, whole, budget.max_concurrency),
    )


def _reason(deployment: Deployment, takes: int, free: int, whole: int, concurrency: float) -> str:
    of_free = f"{format_bytes(takes)} of {format_bytes(free)} that are free"
    if takes <= free and concurrency >= 1:
        return f"takes {of_free}"
    if takes <= free:
        return f"takes {of_free}, and its pool holds less than one request of the longest context"
    if deployment.engine in SHARE_OF_ALL:
        most = int(free / whole / STEP) * STEP
        return f"wants {of_free}: set gpu_memory_utilization to {most:.2f} or less, which is of the whole device"
    return f"needs {of_free}"
