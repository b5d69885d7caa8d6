"""A broad choice of deployments for each engine, the same in every run."""

import random
from collections.abc import Iterator
from functools import cache
from typing import Any

from servolt import registry
from servolt.catalogue import find_accelerator
from servolt.cli.rendered import read_back
from servolt.command import Command
from servolt.deployment import Deployment
from servolt.errors import InvalidInputError
from servolt.gpu import Accelerator
from servolt.model import Model, model_from_config
from tests.launchers.cases import CONFIG, HEADER

__all__ = ["ACCELERATORS", "FULL", "VALUES", "commands", "settings"]

MIXES = 60  # deployments of many settings at once, for each engine
PARTS = 8
SEED = 20260920

ACCELERATORS = ("H100 SXM5 80GB", "Instinct MI300X", "Arc Pro B60", "L4", "EPYC 9654")

# Values of each setting that ask for different things of some engine.
VALUES: dict[str, tuple[Any, ...]] = {
    "quantization": ("fp8", "bf16", "awq", "gptq", "nf4", "int8", "mxfp4", "nvfp4", "w4a16", "q4_k_m"),
    "max_model_len": (2048, 8192, 131072, 1_048_576),
    "max_num_seqs": (1, 64, 256, 1024),
    "max_num_batched_tokens": (512, 4096, 16384),
    "kv_cache_dtype": ("fp8", "fp8_e4m3", "fp8_e5m2", "bf16", "f16", "auto", "q8_0", "q4_0", "nvfp4"),
    "enable_prefix_caching": (True, False),
    "threads": (1, 4),
    "dtype": ("bfloat16", "float16", "float32"),
    "tensor_parallel_size": (1, 2, 4, 8),
    "pipeline_parallel_size": (1, 2),
    "data_parallel_size": (1, 2),
    "enable_expert_parallel": (True, False),
    "expert_parallel_size": (1, 2),
    "decode_context_parallel_size": (1, 2),
    "enable_dp_attention": (True, False),
    "gpu_memory_utilization": (0.5, 0.92),
    "kv_cache_memory_bytes": (2**34,),
    "mem_fraction_static": (0.8,),
    "free_gpu_memory_fraction": (0.7,),
    "block_size": (16, 32, 64),
    "swa_full_tokens_ratio": (0.5,),
    "enforce_eager": (True, False),
    "max_cudagraph_capture_size": (128, 512),
    "enable_chunked_prefill": (True, False),
    "cpu_offload_gb": (8.0, 0.5),
    "limit_mm_per_prompt": ({"image": 2}, {"image": 4, "video": 1}),
    "speculative_config": (
        {"method": "eagle3", "model": "some/heads", "num_speculative_tokens": 3},
        {"method": "eagle", "model": "some/heads", "num_speculative_tokens": 2},
        {"method": "draft_model", "model": "Qwen/Qwen3-0.6B", "num_speculative_tokens": 4},
        {"method": "mtp", "num_speculative_tokens": 1, "acceptance": 0.8},
        {"method": "ngram", "num_speculative_tokens": 3},
        {"method": "medusa", "model": "some/heads", "num_speculative_tokens": 2},
    ),
    "enable_lora": (True, False),
    "max_loras": (3,),
    "max_lora_rank": (16, 64),
    "n_gpu_layers": (-1, 0, 20),
    "tensor_split": ((1.0, 2.0),),
    "override_tensor": (r"blk\.\d+\.ffn_.*_exps\.=CPU",),
    "n_cpu_moe": (3,),
    "flash_attn": (True, False),
    "kv_unified": (True, False),
    "ubatch_size": (256,),
    "trust_remote_code": (True, False),
    "served_model_name": ("qwen",),
}
# What a setting needs beside it to mean anything.
BESIDE: dict[str, dict[str, Any]] = {
    "enable_lora": {"max_lora_rank": 16},
    "enable_expert_parallel": {"tensor_parallel_size": 2},
    "expert_parallel_size": {"tensor_parallel_size": 2},
    "decode_context_parallel_size": {"tensor_parallel_size": 2},
    "enable_dp_attention": {"tensor_parallel_size": 2},
}
MODELS = {"gguf": "guide:q8_0", "hub": "Qwen/Qwen3-8B"}

# As many settings at once as each engine has.
FULL: dict[str, dict[str, Any]] = {
    "vllm": {
        "max_model_len": 8192,
        "max_num_seqs": 64,
        "max_num_batched_tokens": 4096,
        "kv_cache_dtype": "fp8",
        "enable_prefix_caching": False,
        "dtype": "bfloat16",
        "quantization": "fp8",
        "tensor_parallel_size": 4,
        "pipeline_parallel_size": 2,
        "enable_expert_parallel": True,
        "decode_context_parallel_size": 2,
        "gpu_memory_utilization": 0.85,
        "block_size": 32,
        "enforce_eager": True,
        "enable_chunked_prefill": False,
        "cpu_offload_gb": 8.0,
        "limit_mm_per_prompt": {"image": 2},
        "speculative_config": {"method": "eagle3", "model": "some/heads", "num_speculative_tokens": 3},
        "enable_lora": True,
        "max_loras": 3,
        "max_lora_rank": 64,
        "trust_remote_code": True,
        "served_model_name": "qwen",
        "max_cudagraph_capture_size": 128,
    },
    "sglang": {
        "max_model_len": 8192,
        "max_num_seqs": 64,
        "max_num_batched_tokens": 4096,
        "kv_cache_dtype": "fp8",
        "enable_prefix_caching": False,
        "dtype": "bfloat16",
        "quantization": "fp8",
        "tensor_parallel_size": 4,
        "pipeline_parallel_size": 2,
        "expert_parallel_size": 4,
        "enable_dp_attention": True,
        "mem_fraction_static": 0.8,
        "block_size": 32,
        "swa_full_tokens_ratio": 0.5,
        "max_cudagraph_capture_size": 128,
        "cpu_offload_gb": 8.0,
        "limit_mm_per_prompt": {"image": 2},
        "speculative_config": {"method": "eagle3", "model": "some/heads", "num_speculative_tokens": 3},
        "enable_lora": True,
        "max_loras": 3,
        "max_lora_rank": 64,
        "trust_remote_code": True,
        "served_model_name": "qwen",
    },
    "llamacpp": {
        "max_model_len": 4096,
        "max_num_seqs": 3,
        "max_num_batched_tokens": 1024,
        "ubatch_size": 256,
        "kv_cache_dtype": "q8_0",
        "enable_prefix_caching": False,
        "threads": 4,
        "n_gpu_layers": 20,
        "tensor_split": (1.0, 2.0),
        "override_tensor": "exps=CPU",
        "n_cpu_moe": 3,
        "flash_attn": True,
        "kv_unified": True,
        "served_model_name": "qwen",
        "speculative_config": {"method": "mtp", "num_speculative_tokens": 2},
    },
    "transformers": {
        "max_num_batched_tokens": 4096,
        "dtype": "bfloat16",
        "free_gpu_memory_fraction": 0.7,
        "block_size": 32,
        "enforce_eager": True,
        "quantization": "nf4",
        "trust_remote_code": True,
        "threads": 4,
    },
}


def settings(engine: str) -> Iterator[dict[str, Any]]:
    """Each value by itself, then mixes, then all at once."""
    yield {}
    for field, values in VALUES.items():
        yield from ({**BESIDE.get(field, {}), field: value} for value in values)
    draw = random.Random(f"{SEED} {engine}")
    for _ in range(MIXES):
        chosen = draw.sample(sorted(VALUES), PARTS)
        yield {key: value for field in chosen for key, value in _drawn(draw, field).items()}
    if engine in FULL:
        yield FULL[engine]


def _drawn(draw: random.Random, field: str) -> dict[str, Any]:
    return {**BESIDE.get(field, {}), field: draw.choice(VALUES[field])}


@cache
def commands(
    engine: str, version: str | None = None, accelerator: str = ACCELERATORS[0], step: int = 1
) -> tuple[Command, ...]:
    """Of every deployment in the matrix, or every `step`th from the last, that this version of the engine can have;
    settings that it lacks are taken away from a mix one by one, so that what is left is tried."""
    device = find_accelerator(accelerator)
    model = _model(engine)
    found: dict[tuple[str, ...], Command] = {}
    for asked in list(settings(engine))[::-step][::-1]:
        command = _command(engine, version, asked, model, device)
        if command is not None:
            found.setdefault(command.argv, command)
    return tuple(found.values())


def _model(engine: str) -> Model:
    if engine == "llamacpp":
        return model_from_config(CONFIG, name="qwen").model_copy(
            update={"format": "gguf", "files": ("/models/qwen.gguf",)}
        )
    return model_from_config(CONFIG, name=MODELS["hub"])


def _command(
    engine: str, version: str | None, asked: dict[str, Any], model: Model, device: Accelerator
) -> Command | None:
    hardware = {"accelerator": device.name}
    adapter = registry.engine(engine)
    left = dict(asked)
    while True:
        deployment = Deployment.of(
            MODELS["gguf" if engine == "llamacpp" else "hub"],
            engine=engine,
            hardware=hardware,
            engine_version=version if engine != "llamacpp" else None,
            **left,
        )
        wrong = [one for one in adapter.problems(deployment, model, (device,)) if one.severity == "error"]
        if not wrong:
            break
        lacking = next((field for field in left if any(field in _told(problem) for problem in wrong)), None)
        if lacking is None or len(left) == 1:
            return None
        del left[lacking]
    try:
        command = adapter.command(deployment, model)
    except InvalidInputError as error:  # what problems() does not say
        raise AssertionError(f"{engine} {version} with {left}: {error}") from error
    placed = command.on(device).model_copy(update={"header": HEADER, "load_s": 90.0})
    return placed if placed.options else placed.model_copy(update={"options": read_back(placed)})


def _told(problem: Any) -> str:
    return f"{problem.message} {problem.remedy}"
