"""What a deployment asks for, with an engine's defaults filled in where it is silent."""

from typing import NamedTuple

from servolt.deployment import Deployment
from servolt.gpu import Accelerator
from servolt.model import Model

__all__ = [
    "AUTO",
    "Visible",
    "argument",
    "flag",
    "has_fast_link",
    "longest_context",
    "stated_context",
    "visible_memory",
]

AUTO = -1  # --max-model-len auto: the engine takes the longest context of which one request fits

# Of the memory on the label, what a driver shows to engines: 24 GiB cards show 23.5, 80 GiB cards 79.2, 15.6 of 16.
VISIBLE_SHARE, VISIBLE_TOLERANCE = 0.98, 0.015
UNIFIED_SHARE, UNIFIED_TOLERANCE = 0.95, 0.04

FAST_LINK_BYTES = 70 * 2**30
# vLLM, SGLang, TensorRT-LLM, llama.cpp.
CONTEXT_NAMES = ("max_model_len", "context_length", "max_seq_len", "ctx_size")
DEFAULT_CONTEXT = 4096  # of a model that does not say what it was trained for


class Visible(NamedTuple):
    bytes: float
    tolerance: float = 0.0
    notes: tuple[str, ...] = ()


def visible_memory(deployment: Deployment, accelerator: Accelerator) -> Visible:
    """Of one device, as its engine sees it."""
    if deployment.hardware is not None and deployment.hardware.memory_bytes:
        return Visible(float(deployment.hardware.memory_bytes))
    if accelerator.kind == "cpu" and deployment.hardware is not None and deployment.hardware.host_memory_bytes:
        return Visible(float(deployment.hardware.host_memory_bytes))
    if accelerator.visible_memory_bytes:
        return Visible(float(accelerator.visible_memory_bytes))
    share, tolerance = (
        (UNIFIED_SHARE, UNIFIED_TOLERANCE) if accelerator.unified_memory else (VISIBLE_SHARE, VISIBLE_TOLERANCE)
    )
    note = f"What engines see of {accelerator.name} is not known: {share:.0%} of the memory on its label is assumed."
    return Visible(accelerator.memory_bytes * share, tolerance, (note,))


def has_fast_link(accelerator: Accelerator) -> bool:
    """Whether devices reach one another's memory, for which engines keep buffers. Unless it is said, large ones do."""
    if accelerator.link is not None:
        return any(word in accelerator.link.lower() for word in ("nvlink", "xgmi", "infinity"))
    return accelerator.memory_bytes >= FAST_LINK_BYTES and not accelerator.unified_memory


def longest_context(deployment: Deployment, model: Model) -> int:
    """Tokens of one sequence: what is asked for, else what the model was trained for. AUTO where the engine chooses."""
    return stated_context(deployment) or model.max_position_embeddings or DEFAULT_CONTEXT


def stated_context(deployment: Deployment) -> int | None:
    """What is asked for, also under an engine's own name for it; None where nothing is."""
    if deployment.max_model_len:
        return deployment.max_model_len
    given = (argument(deployment, name) for name in CONTEXT_NAMES)
    asked = next((one for one in given if one is not None), None)
    if asked in (AUTO, "-1", "auto"):
        return AUTO
    return asked if isinstance(asked, int) and asked > 0 else None


def argument(deployment: Deployment, name: str) -> str | int | float | bool | None:
    """Of the options that are handed through, in either spelling; None where it is not there."""
    given = deployment.engine_args
    if not given:
        return None
    for spelling in (name, name.replace("_", "-"), "--" + name.replace("_", "-")):
        if spelling in given:
            return given[spelling]
    return None


def flag(deployment: Deployment, name: str) -> bool:
    value = argument(deployment, name)
    return value is True or (isinstance(value, str) and value.lower() in ("", "true", "1")) or value == 1
