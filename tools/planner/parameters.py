"""What is fitted: each constant of the roofline with its prior, and the traits that it may depend on."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from servolt.plan.rates import Table
from tools.planner.least_squares import Array, Prior

__all__ = ["PARAMETERS", "Parameter", "priors_of", "table_of"]


class Parameter(NamedTuple):
    """`spread` is the standard deviation of the logarithm, before any row was seen. None for low, high: no bound."""

    constant: str
    trait: str
    centre: float
    spread: float
    low: float | None = None
    high: float | None = None


def _share(constant: str, centre: float, spread: float, low: float = 0.02, high: float = 1.0) -> Parameter:
    return Parameter(constant, "value", centre, spread, low, high)


def _traits(constant: str, spread: float, *traits: str) -> tuple[Parameter, ...]:
    return tuple(Parameter(constant, trait, 1.0, spread) for trait in traits)


# Centres: what kernels reach on paper and in their authors' benchmarks, in rough figures; the spreads say how rough.
# Engines and generations differ from one another by little, unless the rows say more.
PARAMETERS: tuple[Parameter, ...] = (
    _share("bandwidth_half", 0.85, 0.15, 0.3),
    *_traits("bandwidth_half", 0.1, "h200"),
    _share("bandwidth_fp8", 0.85, 0.15, 0.3),
    *_traits("bandwidth_fp8", 0.1, "h200"),
    _share("bandwidth_fp4", 0.7, 0.15, 0.2),
    _share("bandwidth_packed", 0.75, 0.2, 0.2),
    *_traits("bandwidth_packed", 0.1, "h200"),
    _share("bandwidth_experts", 0.9, 0.2, 0.3),
    _share("bandwidth_cache", 0.7, 0.3, 0.15),
    Parameter("bandwidth_latent", "value", 1.0, 0.3),
    _share("decode_half", 0.7, 0.3),
    _share("decode_fp8", 0.5, 0.3),
    _share("decode_fp4", 0.35, 0.3),
    _share("decode_packed", 0.4, 0.4),
    _share("decode_experts", 0.6, 0.4),
    _share("prompt_half", 0.65, 0.2),
    _share("prompt_fp8", 0.45, 0.2),
    _share("prompt_fp4", 0.3, 0.2),
    _share("prompt_packed", 0.4, 0.3),
    _share("prompt_experts", 0.6, 0.3),
    Parameter("expert_tile", "value", 16.0, 0.7, 1.0, 64.0),  # of tiles of 32 to 128 rows
    _share("decode_attention", 0.4, 0.4),
    _share("prompt_attention", 0.4, 0.3),
    _share("link", 0.5, 0.3),
    _share("prompt_link", 0.75, 0.3),
    Parameter("hop_s", "value", 5e-6, 0.5),  # NCCL's rings over NVLink: a few microseconds a hop
    _share("routing", 0.7, 0.3),
    Parameter("launch", "blackwell", 0.85, 0.2),
    *_traits("launch", 0.15, "vllm", "sglang", "tensorrt_llm"),
    Parameter("step_s", "value", 2e-4, 0.7),
    Parameter("layer_s", "value", 45e-6, 0.4),
    Parameter("split_layer_s", "value", 15e-6, 0.5),
    Parameter("expert_layer_s", "value", 20e-6, 0.5),
    Parameter("latent_layer_s", "value", 20e-6, 0.5),
    Parameter("indexed_layer_s", "value", 60e-6, 0.5),
    Parameter("recurrent_layer_s", "value", 20e-6, 0.5),
    Parameter("expert_choice_s", "value", 2e-6, 0.7),
    Parameter("shared_layer_s", "value", 10e-6, 0.7),
    Parameter("scaled_layer_s", "value", 10e-6, 0.7),
    Parameter("exchange_layer_s", "value", 15e-6, 0.7),
    Parameter("prompt_layer_s", "value", 100e-6, 0.7),
    Parameter("sequence_s", "value", 15e-6, 0.5),
    *_traits("sequence_s", 0.2, "vllm", "sglang", "tensorrt_llm"),
    Parameter("interference", "value", 1.0, 0.1),
    *_traits("interference", 0.1, "vllm", "sglang", "tensorrt_llm"),
    Parameter("queue", "value", 0.1, 0.5),
    *_traits("queue", 0.7, "early_sglang", "early_tensorrt_llm", "waiting"),
    Parameter("request_s", "value", 0.02, 0.7),
    *_traits("request_s", 0.5, "vllm", "sglang", "tensorrt_llm", "early_sglang", "early_tensorrt_llm", "waiting"),
    Parameter("launch", "llamacpp", 0.5, 0.3),
    *_traits("launch", 0.3, "apple", "ada", "ampere", "mlc", "exllamav2", "amd", "intel"),
    *_traits("launch", 0.15, "waiting"),
    *_traits("bandwidth_packed", 0.2, "llamacpp", "apple", "a100", "ada", "ampere", "mlc"),
    *_traits("bandwidth_half", 0.2, "llamacpp", "apple", "a100", "ada", "ampere"),
    *_traits("bandwidth_cache", 0.3, "llamacpp"),
    *_traits("bandwidth_experts", 0.15, "vllm", "sglang", "tensorrt_llm"),
    *_traits("sequence_s", 0.3, "llamacpp"),
    *_traits("sequence_s", 0.5, "waiting"),
    *_traits("prompt_packed", 0.3, "llamacpp", "apple", "ada", "ampere"),
    *_traits("prompt_half", 0.3, "llamacpp", "apple", "ada", "ampere"),
    *_traits("prompt_attention", 0.4, "llamacpp", "apple"),
    *_traits("prompt_layer_s", 0.7, "llamacpp"),
    *_traits("split_layer_s", 0.5, "unlinked"),
    *_traits("link", 0.3, "unlinked"),
    *_traits("interference", 0.1, "llamacpp"),
)
# What no row tells: how sharply memory and arithmetic exclude each other. 4 makes the sum at the crossing a fifth more.
# All runs of llama.cpp here are of early builds; what later ones gained is from unverified runs of 2026, roughly.
FIXED: Mapping[str, Mapping[str, float]] = {
    "overlap": {"value": 4.0},
    "launch": {"value": 1.0, "early_llamacpp": 2.5},
    "bandwidth_packed": {"early_llamacpp": 0.8},
    "decode": {"value": 1.0},
    "prompt": {"value": 1.0},
}


def priors_of(parameters: Sequence[Parameter], *, firmness: float = 1.0) -> Prior:
    def bound(value: float | None, otherwise: float) -> float:
        return otherwise if value is None else math.log(value)

    return Prior(
        centre=np.array([math.log(one.centre) for one in parameters]),
        spread=np.array([one.spread / math.sqrt(firmness) for one in parameters]),
        low=np.array([bound(one.low, -60.0) for one in parameters]),
        high=np.array([bound(one.high, 60.0) for one in parameters]),
    )


def table_of(parameters: Sequence[Parameter], logs: Array) -> Table:
    table: dict[str, dict[str, float]] = {name: dict(entry) for name, entry in FIXED.items()}
    for parameter, log in zip(parameters, logs, strict=True):
        table.setdefault(parameter.constant, {})[parameter.trait] = math.exp(log)
    return table
