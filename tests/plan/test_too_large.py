"""What can't fit by arithmetic alone, and what only a default makes too large."""

from typing import Any

import pytest

from servolt.library import plan

LOAD = {"input_tokens": 1024, "output_tokens": 256, "concurrency": 4}
ENGINES = ("vllm", "sglang", "tensorrt_llm", "transformers", "an-engine-of-tomorrow")

# (model, format, device, how many): the weights alone, parameters times bytes, are more than all memory on the label.
IMPOSSIBLE = [
    ("meta-llama/Llama-3.1-8B-Instruct", None, "Tesla T4", 1),  # 16.1 GB on 16 GiB that show 14.6
    ("meta-llama/Llama-3.1-70B-Instruct", None, "NVIDIA H100 80GB HBM3", 1),  # 141 GB
    ("meta-llama/Llama-3.1-70B-Instruct", "fp8", "NVIDIA L40S", 1),  # 71 GB on 48
    ("meta-llama/Llama-3.1-70B-Instruct", "int4", "RTX 4090", 1),  # 36 GB on 24
    ("meta-llama/Llama-3.1-405B-Instruct", None, "NVIDIA H200", 4),  # 812 GB on 564
    ("deepseek-ai/DeepSeek-V3", None, "NVIDIA H100 80GB HBM3", 8),  # 671 GB of fp8 on 640
    ("deepseek-ai/DeepSeek-V3", None, "MI300X", 2),
    ("Qwen/Qwen3-235B-A22B", None, "NVIDIA A100-SXM4-80GB", 4),  # 470 GB on 320
    ("Qwen/Qwen3-30B-A3B", None, "RTX 3090", 2),  # 61 GB on 48
    ("google/gemma-3-27b-it", None, "NVIDIA L40S", 1),  # 54 GB on 48
    ("openai/gpt-oss-120b", None, "NVIDIA L40S", 1),  # 63 GB on 48
    ("Qwen/Qwen3-32B", None, "RTX 5090", 1),  # 65 GB on 32
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("model", "quantization", "device", "count"), IMPOSSIBLE)
def test_weights_beyond_all_memory_never_fit(
    engine: str, model: str, quantization: str | None, device: str, count: int
) -> None:
    asked: dict[str, Any] = {"model": model, "engine": engine, "hardware": {"accelerator": device, "count": count}}
    asked |= {"quantization": quantization} if quantization else {}
    asked |= {"tensor_parallel_size": count} if count > 1 and engine != "transformers" else {}
    for context in ({}, {"max_model_len": 2048, "max_num_seqs": 1}):
        assert plan(asked | context, LOAD).verdict == "no"


@pytest.mark.parametrize(
    ("model", "format_", "device", "count"),
    [
        ("meta-llama/Llama-3.1-70B-Instruct", "q4_k_m", "RTX 3090", 1),  # 43 GB on 24
        ("meta-llama/Llama-3.1-70B-Instruct", "q8_0", "RTX 3090", 3),  # 75 GB on 72
        ("Qwen/Qwen3-30B-A3B", "q8_0", "RTX 4090", 1),  # 32 GB on 24
        ("deepseek-ai/DeepSeek-V3", "q4_k_m", "NVIDIA H100 80GB HBM3", 4),  # 404 GB on 320
    ],
)
def test_a_file_beyond_all_memory_never_fits_without_offload(model: str, format_: str, device: str, count: int) -> None:
    asked: dict[str, Any] = {"model": model, "engine": "llamacpp", "quantization": format_, "n_gpu_layers": -1}
    asked |= {"hardware": {"accelerator": device, "count": count}}
    for slots in ({}, {"max_model_len": 2048, "max_num_seqs": 1}):
        assert plan(asked | slots, LOAD).verdict == "no"


def test_a_whole_context_that_nobody_asked_for_is_tight_and_says_what_to_set() -> None:
    """Qwen3-32B on an H100: 61 GiB of weights leave no room for one request of 40,960 tokens, but for this load."""
    asked: dict[str, Any] = {"model": "Qwen/Qwen3-32B", "engine": "vllm", "hardware": {"accelerator": "H100"}}
    asked |= {"engine_version": "0.11.1", "max_num_seqs": 32}
    found = plan(asked, LOAD)

    assert found.memory.max_concurrency < 1
    assert found.verdict == "tight"
    problem = next(one for one in found.problems if one.code == "default_too_large")
    assert "max_model_len of 40,960" in problem.message
    assert "Set max_model_len to 1280 or more" in problem.remedy
    assert any("max_model_len" in fix.change for fix in found.fixes)
    assert plan(asked | {"max_model_len": 40_960}, LOAD).verdict == "no"


def test_slots_that_nobody_asked_for_are_tight_where_the_load_needs_fewer() -> None:
    """Llama 3 70B at 4 bits on an L40S: 39 GiB of weights leave room for one context of 8,192 tokens, not for four."""
    asked: dict[str, Any] = {"model": "meta-llama/Llama-3.1-70B-Instruct", "engine": "llamacpp"}
    asked |= {"quantization": "q4_k_m", "hardware": {"accelerator": "NVIDIA L40S"}, "max_model_len": 8192}
    asked |= {"n_gpu_layers": -1}

    assert plan(asked, LOAD | {"concurrency": 1}).verdict == "tight"
    assert plan(asked | {"max_num_seqs": 4}, LOAD | {"concurrency": 1}).verdict == "no"


def test_an_unknown_engine_is_taken_to_use_all_devices_unless_it_is_told() -> None:
    asked: dict[str, Any] = {"model": "meta-llama/Llama-3.1-8B-Instruct", "engine": "an-engine-of-tomorrow"}
    asked |= {"hardware": {"accelerator": "NVIDIA L40S", "count": 4}}
    spread, single = plan(asked, LOAD), plan(asked | {"tensor_parallel_size": 1}, LOAD)

    assert spread.memory.weights_bytes * 3.9 < single.memory.weights_bytes
    assert any("spread evenly over 4 devices" in note for note in spread.memory.notes)


def test_llamacpp_that_is_not_told_how_many_layers_keeps_the_rest_on_the_host() -> None:
    """Qwen3 30B in f16 on a card of 24 GiB: llama.cpp of 2026 takes part of the layers by itself (--fit)."""
    asked: dict[str, Any] = {"model": "Qwen/Qwen3-30B-A3B", "engine": "llamacpp", "quantization": "f16"}
    asked |= {"hardware": {"accelerator": "RTX 4090"}, "max_model_len": 4096}
    found = plan(asked, LOAD)

    assert found.verdict == "tight"
    problem = next(one for one in found.problems if one.code == "spills_to_host")
    assert "n_cpu_moe to" in problem.remedy
    assert "n_gpu_layers to" in problem.remedy
    assert plan(asked | {"n_gpu_layers": -1}, LOAD).verdict == "no"
