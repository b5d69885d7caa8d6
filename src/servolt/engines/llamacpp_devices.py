"""llama.cpp's settings beside its slots and its cache: layers on devices, and what its own program takes alone."""

from collections.abc import Mapping
from typing import Any

from servolt.deployment import Deployment, Speculation
from servolt.document import Problem
from servolt.engines.flags import Known
from servolt.engines.options import Options, Special, fill

__all__ = ["PROGRAM", "device_flags", "device_problems", "is_elsewhere"]

PROGRAM = "llama-server"  # what is started on other machines, where this package's runner may not be

ALL_LAYERS = 999  # more than any model has; -1 would let the engine choose

# Written by the adapter itself, or decided by the file.
WRITTEN = (
    *("quantization", "max_model_len", "max_num_seqs", "max_num_batched_tokens", "kv_cache_dtype"),
    *("enable_prefix_caching", "threads", "trust_remote_code", "n_gpu_layers", "ubatch_size", "served_model_name"),
)
SIMPLE = {
    "override_tensor": ("--override-tensor",),
    "n_cpu_moe": ("--n-cpu-moe",),
    "kv_unified": ("--kv-unified",),
}


def is_elsewhere(deployment: Deployment) -> bool:
    """Planned for devices that are named: what is installed here says nothing about them."""
    return deployment.hardware is not None and deployment.hardware.accelerator is not None


def device_flags(deployment: Deployment) -> list[str]:
    """On this machine's processor, a build that knows GPUs would put every layer there if it were left alone, and with
    none there still compute long prompts on one. Elsewhere all layers go to the devices, as the plan has it."""
    layers, options = deployment.n_gpu_layers, _options(deployment)
    options.checked()
    if layers is None and not is_elsewhere(deployment):
        return ["-ngl", "0", "--no-op-offload", *options.argv()]
    return ["-ngl", str(ALL_LAYERS if layers is None or layers < 0 else layers), *options.argv()]


def device_problems(deployment: Deployment) -> list[Problem]:
    options = _options(deployment)
    by_runner = deployment.engine_executable is None and not is_elsewhere(deployment)
    if by_runner and options.written and not options.problems:
        options.refuse(
            "engine_executable",
            f"llama.cpp as it is installed here takes no {', '.join(options.written)}.",
            "Build llama-server and name it with --engine-executable.",
            code="unsupported_setting",
        )
    return options.problems


def _options(deployment: Deployment) -> Options:
    options = Options("llama.cpp", Known("llamacpp"))
    # Builds go by other numbers than the package whose table this is.
    asked = deployment.model_copy(update={"engine_version": None})
    fill(options, asked, SIMPLE, SPECIAL)
    return options


def _written(options: Options, value: Any, deployment: Deployment) -> None:
    """By the adapter."""


def _split(options: Options, value: tuple[float, ...], deployment: Deployment) -> None:
    options.put("tensor_split", ",".join(f"{share:g}" for share in value), "--tensor-split")


def _flash(options: Options, value: bool, deployment: Deployment) -> None:
    options.put("flash_attn", "on" if value else "off", "--flash-attn")


def _speculation(options: Options, value: Speculation, deployment: Deployment) -> None:
    if value.method == "draft_model" and value.model is not None:
        options.put("speculative_config", value.model, "--model-draft")
    elif value.method == "mtp":
        options.put("speculative_config", "draft-mtp", "--spec-type")
    else:
        options.refuse(
            "speculative_config",
            f"llama.cpp is started here with no guessing by {value.method}.",
            "Take mtp or draft_model with a model, or engine_args for its other kinds.",
            code="unsupported_setting",
        )
        return
    options.put("speculative_config", value.num_speculative_tokens, "--spec-draft-n-max")


SPECIAL: Mapping[str, Special] = {
    **dict.fromkeys(WRITTEN, _written),
    "tensor_split": _split,
    "flash_attn": _flash,
    "speculative_config": _speculation,
}
