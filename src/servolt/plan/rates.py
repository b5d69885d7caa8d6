"""The constants of the roofline, for one engine on one device: shares of what the hardware could do, and fixed costs.

They come from `data/planner/speed.toml`. A constant has a value, and factors for traits: the engine, the device's
generation, the words of its name. Nothing is keyed by a model.
"""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from servolt.deployment import Deployment
from servolt.gpu import Accelerator
from servolt.plan.memory.profiles import version_key

__all__ = ["RATE_NAMES", "Rates", "Table", "rates_of", "speed_table", "traits_of"]

Four = tuple[float, float, float, float]
# By constant: `value`, and factors by trait.
Table = Mapping[str, Mapping[str, float]]

ENGINES: Mapping[str, str] = {
    "trtllm": "tensorrt_llm",
    "tensorrt-llm": "tensorrt_llm",
    "llama.cpp": "llamacpp",
    "ik_llamacpp": "llamacpp",
    "ollama": "llamacpp",
}
# Engines without runs of their own take the constants of the one that works most like them: MLX reads packed weights by
# kernels that were made for one sequence, on the same machines.
KIN: Mapping[str, str] = {"mlx": "llamacpp"}
# Versions since which an engine schedules the next step while one runs, unless it is told not to: vllm's release notes
# of 0.14.0 (asynchronous scheduling by default), sglang's of 0.4 (overlap scheduler).
OVERLAPS_SINCE: Mapping[str, tuple[int, ...]] = {"vllm": (0, 14), "sglang": (0, 4)}
# Versions before which first tokens were seen to come later and to wait for more of the prompts of others, each engine
# in its own way. The reference runs of these versions are of a collection of their own, so that some of it may be how
# its clients send.
# llama.cpp's builds before 2025 launch a kernel at a time, and unpack weights more slowly: unverified runs of 2026 are
# two to three times as fast where launches rule, and a quarter faster where bandwidth does. Versions of programs around
# it (ollama's 0.32) are no builds.
EARLY: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "sglang": ((0,), (0, 5, 8)),
    "tensorrt_llm": ((0,), (1, 1)),
    "llamacpp": ((1000,), (4500,)),
}


class Rates(NamedTuple):
    """Shares of a peak rate lie between 0 and 1; tuples go by arithmetic (peaks.ARITHMETIC); costs are in seconds."""

    dense_bandwidth: Four
    expert_bandwidth: Four
    head_bandwidth: float
    cache_bandwidth: float
    latent_bandwidth: float
    decode_flops: Four
    expert_flops: Four
    prompt_flops: Four
    prompt_expert_flops: Four
    expert_tile: float  # rows of a tile that stay empty, on average
    decode_attention: float
    prompt_attention: float
    link: float
    prompt_link: float  # messages of prompts are large
    hop_s: float  # and go around a ring, from each rank to the next; those of a few tokens go to all at once
    routing: float  # of a step's tokens, how independently they choose their experts
    overlap: float  # how sharply the slower of memory and arithmetic rules: the power of the mean of both
    step_s: float
    layer_s: float
    expert_layer_s: float
    latent_layer_s: float
    indexed_layer_s: float
    recurrent_layer_s: float
    expert_choice_s: float
    shared_layer_s: float
    scaled_layer_s: float
    exchange_layer_s: float
    prompt_layer_s: float
    sequence_s: float
    interference: float  # of the prompts of others, what falls between a request's own tokens
    queue: float  # of the prompts of others, what falls before a request's first token
    request_s: float  # each request, outside of the engine's steps


RATE_NAMES = (
    *("bandwidth_half", "bandwidth_fp8", "bandwidth_fp4", "bandwidth_packed", "bandwidth_experts", "bandwidth_cache"),
    *(
        "bandwidth_latent",
        "decode",
        "prompt",
        "decode_half",
        "decode_fp8",
        "decode_fp4",
        "decode_packed",
        "decode_experts",
    ),
    *("prompt_half", "prompt_fp8", "prompt_fp4", "prompt_packed", "prompt_experts", "expert_tile", "decode_attention"),
    *(
        "prompt_attention",
        "link",
        "prompt_link",
        "hop_s",
        "routing",
        "overlap",
        "launch",
        "step_s",
        "layer_s",
        "split_layer_s",
        "expert_layer_s",
    ),
    *("latent_layer_s", "indexed_layer_s", "recurrent_layer_s", "expert_choice_s", "shared_layer_s"),
    *("scaled_layer_s", "exchange_layer_s", "prompt_layer_s", "sequence_s", "interference", "queue", "request_s"),
)


@cache
def speed_table() -> Table:
    text = files("servolt").joinpath("data", "planner", "speed.toml").read_text(encoding="utf-8")
    table: Table = tomllib.loads(text)["constants"]
    return table


def traits_of(deployment: Deployment, accelerator: Accelerator, *, devices: float) -> dict[str, float]:
    """What constants may depend on, each with the weight 1.

    The engine; the vendor and the generation; the words of the device's name; whether several devices share the work.
    """
    words = accelerator.name.lower().replace("-", " ").replace("(", " ").replace(")", " ").split()
    architecture = (accelerator.architecture or "").lower()
    generation = architecture.replace(" ", "")
    named = [architecture.split()[0]] if architecture else []
    traits = {*words, *named, generation, (accelerator.vendor or "").lower(), accelerator.kind}
    engine = ENGINES.get(deployment.engine, deployment.engine)
    traits |= {KIN.get(engine, engine), *_version_traits(engine, deployment.engine_version)}
    traits |= {"unified"} if accelerator.unified_memory else set()
    traits |= {"split"} if devices > 1 else set()
    traits |= {"unlinked"} if devices > 1 and (accelerator.link or "PCIe").startswith("PCIe") else set()
    traits |= {"eager"} if deployment.enforce_eager else set()
    return dict.fromkeys(sorted(traits - {""}), 1.0)


def _version_traits(engine: str, version: str | None) -> set[str]:
    """`waiting`: the engine schedules a step only when the one before it is done. `early_...`: see EARLY."""
    known = version_key(version) if version else None
    if not known:
        return set()
    waiting = {"waiting"} if engine in OVERLAPS_SINCE and known < OVERLAPS_SINCE[engine] else set()
    since, before = EARLY.get(engine, ((), ()))
    return waiting | ({f"early_{engine}"} if since <= known < before else set())


def rates_of(table: Table, traits: Mapping[str, float]) -> Rates:
    """Factors of all traits that hold are multiplied."""
    value = {name: _constant(table[name], traits) for name in RATE_NAMES}
    bandwidth = _four(value, "bandwidth")
    decode = _times(_four(value, "decode"), value["decode"])
    prompt = _times(_four(value, "prompt"), value["prompt"])
    launch = value["launch"]
    return Rates(
        dense_bandwidth=bandwidth,
        expert_bandwidth=_times(bandwidth, value["bandwidth_experts"]),
        head_bandwidth=value["bandwidth_half"],
        cache_bandwidth=value["bandwidth_cache"],
        latent_bandwidth=value["bandwidth_latent"],
        decode_flops=decode,
        expert_flops=_times(decode, value["decode_experts"]),
        prompt_flops=prompt,
        prompt_expert_flops=_times(prompt, value["prompt_experts"]),
        expert_tile=value["expert_tile"],
        decode_attention=value["decode_attention"],
        prompt_attention=value["prompt_attention"],
        link=value["link"],
        prompt_link=value["prompt_link"],
        hop_s=value["hop_s"],
        routing=value["routing"],
        overlap=value["overlap"],
        step_s=value["step_s"],
        layer_s=launch * (value["layer_s"] + value["split_layer_s"] * traits.get("split", 0.0)),
        expert_layer_s=launch * value["expert_layer_s"],
        latent_layer_s=launch * value["latent_layer_s"],
        indexed_layer_s=launch * value["indexed_layer_s"],
        recurrent_layer_s=launch * value["recurrent_layer_s"],
        expert_choice_s=launch * value["expert_choice_s"],
        shared_layer_s=launch * value["shared_layer_s"],
        scaled_layer_s=launch * value["scaled_layer_s"],
        exchange_layer_s=launch * value["exchange_layer_s"],
        prompt_layer_s=launch * value["prompt_layer_s"],
        sequence_s=value["sequence_s"],
        interference=value["interference"],
        queue=value["queue"],
        request_s=value["request_s"],
    )


def _constant(entry: Mapping[str, float], traits: Mapping[str, float]) -> float:
    found = entry["value"]
    for trait, factor in entry.items():
        weight = traits.get(trait)
        if weight is not None and trait != "value":
            found = found * factor**weight
    return found


def _four(value: Mapping[str, float], name: str) -> Four:
    return value[f"{name}_half"], value[f"{name}_fp8"], value[f"{name}_fp4"], value[f"{name}_packed"]


def _times(four: Four, factor: float) -> Four:
    return four[0] * factor, four[1] * factor, four[2] * factor, four[3] * factor
