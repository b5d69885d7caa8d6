"""Rows that say something else than they seem to: they get an answer, but count for no score."""

import re
from collections.abc import Mapping
from typing import Any

from servolt.catalogue import find_accelerator
from servolt.errors import ServoltError
from servolt.gpu import Accelerator
from servolt.model import ATTENTION_KINDS, LayerKind, Model

__all__ = ["impossible", "trap_of"]

# What a row's own flags say of it. `tuned` is the frontier of MLPerf, not what an engine gives as it comes.
FLAGS = (
    "conflicting_repeat",
    "multi_node",
    "short_steady_window",
    "host_bound",
    "overload",
    "unoptimised_kernels",
    "open_division",
    "tuned",
    "maybe_offload",
    "batched",
    "spec",
    "wide_spread",
    "peak_above_card",
)
# Loads that draw their lengths from a range hold less than their nominal lengths say.
HEADROOM = 1.15
# The arithmetic that a format allows, beside 16 bits. Four bits are multiplied in 16 where a device has no fp4.
FAST = {"8": ("fp8", "int8"), "4": ("fp8", "fp4")}
# Of the peak rate, the most that a whole engine was seen to reach is about 0.72.
USABLE = 0.8


def trap_of(
    flags: str,
    deployment: Mapping[str, Any],
    workload: Mapping[str, Any] | None,
    seen: Mapping[str, float],
    model: Model | None,
) -> str | None:
    """The flag, or what physics has against the row; None where it is clean."""
    given = re.split(r"[;, ]+", flags)
    flag = next((one for one in FLAGS if one in given), None)
    if flag or model is None or workload is None:
        return flag
    device = _accelerator((deployment.get("hardware") or {}).get("accelerator"))
    if device is None or device.kind == "cpu":
        return None
    return impossible(deployment, workload, seen, model, device)


def impossible(
    deployment: Mapping[str, Any],
    workload: Mapping[str, Any],
    seen: Mapping[str, float],
    model: Model,
    device: Accelerator,
) -> str | None:
    """`more_flops` or `more_kv_cache` where the row needs more than the devices have; None where it can be."""
    devices = int((deployment.get("hardware") or {}).get("count") or 1)
    peak = _peak(deployment, model, device) * devices
    rate = _output_rate(workload, seen)
    names = ("concurrency", "input_tokens", "output_tokens")
    streams, prompt, answer = (float(workload.get(name) or 0) for name in names)
    if rate and peak:
        tokens = rate * (1 + prompt / max(answer, 1.0))
        if 2 * (model.active_params or model.total_params) * tokens > peak * USABLE:
            return "more_flops"
    if streams > 1 and "ttft" in seen and "tpot" in seen and seen["ttft"] < answer * seen["tpot"]:
        # Those that wait for a place would show in the time to the first token: here all of them run.
        waiting = seen["ttft"] / (seen["ttft"] + answer * seen["tpot"])
        held = streams * (1 - waiting) * _kv_elements(model, prompt + answer / 2) * _kv_bytes(deployment, model)
        if held + _least_weights(deployment, model) > device.memory_bytes * devices * HEADROOM:
            return "more_kv_cache"
    return None


def _peak(deployment: Mapping[str, Any], model: Model, device: Accelerator) -> float:
    """FLOP/s of one device, in the fastest arithmetic that the weights' format allows."""
    stored = f"{deployment.get('quantization') or ''} {model.quantization}"
    bits = [one for one in FAST if one in stored and (one == "8" or "fp4" in device.flops_per_s)]
    names = {"bfloat16", "float16"}.union(*(FAST[one] for one in bits))
    return max((rate for name, rate in device.flops_per_s.items() if name in names), default=0.0)


def _output_rate(workload: Mapping[str, Any], seen: Mapping[str, float]) -> float | None:
    """By Little's law where it was not measured."""
    if "output_throughput" in seen:
        return seen["output_throughput"]
    answer = float(workload.get("output_tokens") or 0)
    if "tpot" not in seen or "ttft" not in seen or answer < 2:
        return None
    return float(workload.get("concurrency") or 1) * answer / (seen["ttft"] + (answer - 1) * seen["tpot"])


def _kv_elements(model: Model, tokens: float) -> float:
    """Of one sequence: the least that its layers can keep."""
    return sum(kind.count * _elements(kind) * min(tokens, kind.window or tokens) for kind in model.layers)


def _elements(kind: LayerKind) -> float:
    if kind.mixer not in ATTENTION_KINDS or kind.shares_kv:
        return 0.0
    each = kind.kv_lora_rank + kind.rope_head_dim if kind.kv_lora_rank else 0
    return (each or kind.num_kv_heads * (kind.head_dim_k + kind.head_dim_v)) / max(kind.kv_compression, 1)


def _kv_bytes(deployment: Mapping[str, Any], model: Model) -> float:
    """Quantised checkpoints may run with keys and values of one byte, whether the row says so or not."""
    words = f"{deployment.get('quantization')} {deployment.get('kv_cache_dtype')} {model.quantization}"
    return 1.0 if re.search("fp8|fp4|int", words) else 2.0


def _least_weights(deployment: Mapping[str, Any], model: Model) -> float:
    asked = str(deployment.get("quantization") or "")
    bits = 4.0 if re.search("4", asked) else 8.0 if "8" in asked else 0.0
    return min(model.weights_bytes, model.total_params * bits / 8) if bits else float(model.weights_bytes)


def _accelerator(name: str | None) -> Accelerator | None:
    try:
        return find_accelerator(name) if name else None
    except ServoltError:
        return None
