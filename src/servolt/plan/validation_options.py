"""Options against the engine: what it doesn't have, and what its own options can't be."""

import difflib
from collections.abc import Iterator

from servolt.deployment import Deployment
from servolt.document import Problem
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.plan.memory.settings import visible_memory
from servolt.plan.memory.shape import shape_of
from servolt.plan.memory.sharding import ranks_of
from servolt.units import format_bytes

__all__ = ["option_problems"]

# Fields that only some engines have, and what others have in their place. Fields that stand nowhere here all have.
VLLM, SGLANG, TRT, LLAMA, IK = "vllm", "sglang", "tensorrt_llm", "llamacpp", "ik_llamacpp"
TRANSFORMERS, OPENVINO = "transformers", "openvino"
OWNERS: dict[str, tuple[str, ...]] = {
    "tensor_parallel_size": (VLLM, SGLANG, TRT, TRANSFORMERS),
    "pipeline_parallel_size": (VLLM, SGLANG, TRT),
    "data_parallel_size": (VLLM, SGLANG),
    "enable_expert_parallel": (VLLM,),
    "expert_parallel_size": (SGLANG, TRT),
    "decode_context_parallel_size": (VLLM,),
    "enable_dp_attention": (SGLANG, TRT),
    "gpu_memory_utilization": (VLLM,),
    "kv_cache_memory_bytes": (VLLM,),
    "mem_fraction_static": (SGLANG,),
    "free_gpu_memory_fraction": (TRT,),
    "swa_full_tokens_ratio": (SGLANG,),
    "enforce_eager": (VLLM, SGLANG, TRT),
    "max_cudagraph_capture_size": (VLLM, SGLANG, TRT),
    "enable_chunked_prefill": (VLLM, SGLANG, TRT),
    "cpu_offload_gb": (VLLM, SGLANG),
    "limit_mm_per_prompt": (VLLM, SGLANG, LLAMA, IK),
    "speculative_config": (VLLM, SGLANG, TRT, LLAMA, IK),
    "enable_lora": (VLLM, SGLANG, TRT, LLAMA, IK, OPENVINO),
    "max_lora_rank": (VLLM, SGLANG, TRT),
    "block_size": (VLLM, SGLANG, TRT, TRANSFORMERS),
    "kv_cache_dtype": (VLLM, SGLANG, TRT, LLAMA, IK, OPENVINO),
    "n_gpu_layers": (LLAMA, IK),
    "tensor_split": (LLAMA, IK),
    "override_tensor": (LLAMA, IK),
    "n_cpu_moe": (LLAMA, IK),
    "flash_attn": (LLAMA, IK),
    "kv_unified": (LLAMA,),
    "ubatch_size": (LLAMA, IK),
    "trust_remote_code": (VLLM, SGLANG, TRT, TRANSFORMERS),
}
ENGINES = (VLLM, SGLANG, TRT, LLAMA, IK, TRANSFORMERS, OPENVINO)
# Without them an engine does what is asked all the same.
HARMLESS = ("trust_remote_code", "enforce_eager", "enable_chunked_prefill", "max_cudagraph_capture_size")

INSTEAD: dict[str, dict[str, str]] = {
    "gpu_memory_utilization": {
        SGLANG: "mem_fraction_static",
        TRT: "free_gpu_memory_fraction",
        LLAMA: "n_gpu_layers or max_model_len",
        TRANSFORMERS: "max_memory_percent in engine_args",
    },
    "mem_fraction_static": {VLLM: "gpu_memory_utilization", TRT: "free_gpu_memory_fraction"},
    "free_gpu_memory_fraction": {VLLM: "gpu_memory_utilization", SGLANG: "mem_fraction_static"},
    "enable_expert_parallel": {SGLANG: "expert_parallel_size", TRT: "expert_parallel_size"},
    "expert_parallel_size": {VLLM: "enable_expert_parallel"},
    "tensor_parallel_size": {LLAMA: "tensor_split and split_mode", OPENVINO: "nothing: it runs on one device"},
    "pipeline_parallel_size": {LLAMA: "tensor_split, which gives whole layers to devices"},
    "data_parallel_size": {TRT: "several instances behind the gateway", LLAMA: "several instances behind the gateway"},
    "cpu_offload_gb": {LLAMA: "n_gpu_layers or n_cpu_moe"},
    "n_gpu_layers": {VLLM: "cpu_offload_gb", SGLANG: "cpu_offload_gb"},
    "n_cpu_moe": {VLLM: "cpu_offload_gb"},
    "kv_cache_memory_bytes": {OPENVINO: "cache_size in engine_args"},
}
VENDORS = {VLLM: "", SGLANG: "apple", TRT: "amd apple intel", OPENVINO: "nvidia amd apple"}

# Above this share of a card nothing is left for the context and graphs (vLLM's own default is 0.92).
MOST_UTILIZATION = 0.97
BLOCK_STEP = 16


def option_problems(deployment: Deployment, model: Model, accelerator: Accelerator) -> Iterator[Problem]:
    yield from _unknown_engine(deployment)
    yield from _foreign(deployment)
    yield from _offload(deployment, model)
    yield from _assumed_memory(deployment, accelerator)
    yield from _hardware(deployment, accelerator)
    yield from _shares(deployment, accelerator)
    if deployment.engine in (LLAMA, IK):
        yield from _llamacpp(deployment, model, accelerator)


def _problem(severity: str, code: str, message: str, remedy: str) -> Problem:
    return Problem.model_validate({"code": code, "severity": severity, "message": message, "remedy": remedy})


def _unknown_engine(deployment: Deployment) -> Iterator[Problem]:
    if deployment.engine in (*ENGINES, "replay"):
        return
    near = difflib.get_close_matches(deployment.engine.lower(), ENGINES, n=1, cutoff=0.6)
    yield _problem(
        "warning",
        "engine_unknown",
        f"No engine is known as {deployment.engine:.60}: planned as one that gives the cache what is left, as fast as "
        "the known ones are on average.",
        f"Set engine to {near[0]}." if near else f"Set engine to one of {', '.join(ENGINES)}.",
    )


def _offload(deployment: Deployment, model: Model) -> Iterator[Problem]:
    asked, ranks = (deployment.cpu_offload_gb or 0) * 2**30, ranks_of(deployment)
    held = model.weights_bytes / (ranks.tp * ranks.pp)
    if asked and model.weights_bytes and asked > held:
        yield _problem(
            "error",
            "offload",
            f"{format_bytes(min(asked, 2.0**60))} of each device's weights are to stay on the host, and it has about "
            f"{format_bytes(held)}.",
            f"Set cpu_offload_gb to {held / 2**31:.1f} or less: every step reads it over the bus.",
        )
    host = deployment.hardware.host_memory_bytes if deployment.hardware else None
    if asked and host is not None and asked * ranks.tp * ranks.pp > host:
        yield _problem(
            "error",
            "offload",
            f"{format_bytes(min(asked * ranks.tp * ranks.pp, 2.0**60))} of weights are to stay on the host, which has "
            f"{format_bytes(host)}.",
            f"Set cpu_offload_gb to {host / (ranks.tp * ranks.pp) / 2**31:.1f} or less.",
        )


def _assumed_memory(deployment: Deployment, accelerator: Accelerator) -> Iterator[Problem]:
    """A processor's entry has what its board can hold at most."""
    own = deployment.hardware
    is_named = accelerator.kind == "cpu" and own is not None and own.accelerator and own.memory_bytes is None
    if is_named and accelerator.memory_bytes:
        yield _problem(
            "warning",
            "memory_assumed",
            f"How much memory the machine with {accelerator.name} has is not stated: planned with "
            f"{format_bytes(accelerator.memory_bytes)}.",
            "Set hardware.memory_bytes to what it has.",
        )


def _foreign(deployment: Deployment) -> Iterator[Problem]:
    engine = deployment.engine
    if engine not in ENGINES:
        return
    for field, owners in OWNERS.items():
        value = getattr(deployment, field)
        # Off, or on one device: what engines without the option do anyway.
        if value is None or value is False or (value == 1 and field.endswith("_size")) or engine in owners:
            continue
        instead = INSTEAD.get(field, {}).get(LLAMA if engine == IK else engine)
        yield _problem(
            "warning" if field in HARMLESS else "error",
            "option_unknown",
            f"{engine} has no {field} (set to {value}); it is an option of {', '.join(owners)}.",
            f"Unset it; what comes nearest is {instead}." if instead else "Unset it.",
        )


def _hardware(deployment: Deployment, accelerator: Accelerator) -> Iterator[Problem]:
    vendor = (accelerator.vendor or "").lower()
    if accelerator.kind == "gpu" and vendor and vendor in VENDORS.get(deployment.engine, "").split():
        yield _problem(
            "error",
            "engine_without_device",
            f"{deployment.engine} doesn't run on {accelerator.name}.",
            f"Take {'vllm or llamacpp' if vendor in ('nvidia', 'amd') else 'llamacpp'} as engine.",
        )
    if accelerator.kind == "cpu" and deployment.engine in (SGLANG, TRT):
        yield _problem(
            "error",
            "engine_without_device",
            f"{deployment.engine} doesn't run on a processor.",
            "Take llamacpp, vllm, openvino or transformers as engine.",
        )
    if accelerator.kind == "cpu" and deployment.engine == VLLM and ranks_of(deployment).pp > 1:
        yield _problem(
            "error",
            "pipeline_on_cpu",
            "vLLM's pipeline parallelism fails on processors at the first request.",
            "Set pipeline_parallel_size to 1, and tensor_parallel_size for more cores.",
        )


def _shares(deployment: Deployment, accelerator: Accelerator) -> Iterator[Problem]:
    if (deployment.gpu_memory_utilization or 0) > MOST_UTILIZATION and deployment.engine == VLLM:
        yield _problem(
            "warning",
            "utilization",
            f"gpu_memory_utilization {deployment.gpu_memory_utilization:g} leaves "
            f"{1 - (deployment.gpu_memory_utilization or 1):.0%} of the card for its context and graphs.",
            "Set gpu_memory_utilization to 0.95 or less.",
        )
    pool, visible = deployment.kv_cache_memory_bytes, visible_memory(deployment, accelerator).bytes
    if pool and pool > visible:
        yield _problem(
            "error",
            "kv_cache_memory_bytes",
            f"A pool of {format_bytes(pool)} is more than the {format_bytes(visible)} of {accelerator.name}.",
            "Unset kv_cache_memory_bytes, so that the engine takes what is left.",
        )
    if deployment.engine == VLLM and deployment.block_size and deployment.block_size % BLOCK_STEP:
        yield _problem(
            "error",
            "block_size",
            f"vLLM's blocks are multiples of {BLOCK_STEP} tokens, and {deployment.block_size} is asked.",
            f"Set block_size to {max(BLOCK_STEP, round(deployment.block_size / BLOCK_STEP) * BLOCK_STEP)}.",
        )
    if deployment.enforce_eager and deployment.max_cudagraph_capture_size:
        yield _problem(
            "warning",
            "graphs_off",
            f"Graphs up to {deployment.max_cudagraph_capture_size} are asked, and enforce_eager turns graphs off.",
            "Unset one of the two.",
        )


def _llamacpp(deployment: Deployment, model: Model, accelerator: Accelerator) -> Iterator[Problem]:
    layers, asked = len(shape_of(model).order), deployment.n_gpu_layers
    devices = deployment.hardware.count if deployment.hardware else accelerator.count
    if accelerator.kind == "cpu" and (asked or 0) > 0:
        yield _problem(
            "warning",
            "no_gpu",
            f"{asked} layers are to go to a GPU, and {accelerator.name} is a processor.",
            "Unset n_gpu_layers, or name the accelerator under hardware.",
        )
    if accelerator.kind == "gpu" and 0 < (asked or 0) <= layers:
        yield _problem(
            "warning",
            "layers_on_host",
            f"{layers + 1 - (asked or 0)} of {layers + 1} layers stay on the host: every token waits for them.",
            f"Set n_gpu_layers to {layers + 1} if the plan says that they fit.",
        )
    split = deployment.tensor_split
    if accelerator.kind == "gpu" and split is not None and len(split) != devices:
        yield _problem(
            "warning",
            "tensor_split",
            f"tensor_split has {len(split)} shares for {devices} devices.",
            f"Give {devices} shares, such as {', '.join(['1'] * min(devices, 8))}.",
        )
    expert_layers = sum(kind.count for kind in model.layers if kind.experts is not None)
    if deployment.n_cpu_moe and model.layers and not expert_layers:
        yield _problem("warning", "no_experts", f"{model.name} has no experts.", "Unset n_cpu_moe.")
