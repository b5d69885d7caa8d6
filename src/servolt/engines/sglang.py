"""SGLang: `python3 -m sglang.launch_server`, on GPUs. It runs in an environment of its own."""

from collections.abc import Mapping, Sequence

from servolt.command import Command, Image, Joining
from servolt.deployment import Deployment, Speculation
from servolt.document import Problem
from servolt.engines.flags import Known
from servolt.engines.folder_models import check_model, devices_of, gpu_only, quantizer, told_model
from servolt.engines.options import Options, Special, fill
from servolt.engines.prometheus import summed
from servolt.gpu import Accelerator
from servolt.model import Model

__all__ = ["SGLang"]

# Not measured: set like vLLM's server and workers, which import the same libraries.
SERVER_BYTES = 1_260_000_000
WORKER_BYTES = 750_000_000

JOIN_PORT = 20000  # on which the first machine waits for the others; free choice

SIMPLE = {
    "max_model_len": ("--context-length",),
    "max_num_seqs": ("--max-running-requests",),
    "dtype": ("--dtype",),
    "tensor_parallel_size": ("--tp-size",),
    "pipeline_parallel_size": ("--pp-size",),
    "expert_parallel_size": ("--ep-size",),
    "decode_context_parallel_size": ("--dcp-size",),
    "mem_fraction_static": ("--mem-fraction-static",),
    "block_size": ("--page-size",),
    "swa_full_tokens_ratio": ("--swa-full-tokens-ratio",),
    "max_cudagraph_capture_size": ("--cuda-graph-max-bs-decode", "--cuda-graph-max-bs"),
    "limit_mm_per_prompt": ("--limit-mm-data-per-request",),
    "max_loras": ("--max-loras-per-batch",),
    "max_lora_rank": ("--max-lora-rank",),
    "trust_remote_code": ("--trust-remote-code",),
    "served_model_name": ("--served-model-name",),
}

KV_DTYPES = {"fp8": "fp8_e4m3", "bf16": "bfloat16"}
ALGORITHMS = {"draft_model": "STANDALONE", "eagle": "EAGLE", "eagle3": "EAGLE3", "mtp": "NEXTN", "ngram": "NGRAM"}

READINGS = {
    "prompt_tokens_total": "prompt_tokens",
    "cached_tokens_total": "cached_prompt_tokens",
    "generation_tokens_total": "output_tokens",
    "num_retracted_requests_total": "preemptions",
    "num_running_reqs": "requests_running",
    "num_queue_reqs": "requests_waiting",
    "token_usage": "kv_cache_usage",
}


class SGLang:
    """Folders of safetensors and models on the Hub."""

    name = "sglang"

    @property
    def version(self) -> str | None:
        """It is never part of this environment."""
        return None

    def command(self, deployment: Deployment, model: Model) -> Command:
        """Raises InvalidInputError for a setting that this version can't have."""
        options = _options(deployment, model)
        options.checked()
        told = told_model(deployment, model)
        words = ["--model-path", told, "--host", "127.0.0.1", "--port", "{port}", *options.argv()]
        version = options.known.version
        return Command(
            argv=(*_start(deployment.engine_executable), *words),
            metrics_path="/metrics",
            engine=self.name,
            deployment_digest=deployment.digest,
            engine_version=version,
            model=told,
            served_model_name=deployment.served_model_name,
            options=options.named(),
            images={"nvidia": Image(name=f"lmsysorg/sglang:v{version}")},
            image_argv=(*_start(None), *words),
            devices=devices_of(deployment, _used(deployment)),
            joining=Joining(
                every=("--nnodes", "{machines}", "--node-rank", "{rank}", "--dist-init-addr", f"{{leader}}:{JOIN_PORT}")
            ),
        )

    def overhead(self, deployment: Deployment, model: Model) -> int:
        return SERVER_BYTES + WORKER_BYTES * _used(deployment)

    def readings(self, metrics_text: str) -> Mapping[str, float]:
        return summed(metrics_text, "sglang:", READINGS, frozenset({"kv_cache_usage"}))

    def problems(self, deployment: Deployment, model: Model, accelerators: Sequence[Accelerator]) -> list[Problem]:
        options = _options(deployment, model)
        gpu_only(options, accelerators)
        options.note(
            "no_key_by_environment",
            "SGLang takes its key on the command line only, where everybody on the machine can read it.",
            "Let the gateway ask for keys, and keep the engine's port to this machine.",
        )
        return options.problems


def _start(executable: str | None) -> tuple[str, ...]:
    """The user's executable is a Python, or the program `sglang`."""
    if executable is not None and executable.rpartition("/")[2] == "sglang":
        return (executable, "serve")
    return (executable or "python3", "-m", "sglang.launch_server")


def _options(deployment: Deployment, model: Model) -> Options:
    options = Options("SGLang", Known("sglang", deployment.engine_version))
    check_model(options, deployment, model)
    options.put("metrics", True, "--enable-metrics")
    fill(options, deployment, SIMPLE, SPECIAL)
    return options


def _used(deployment: Deployment) -> int:
    """Attention in parallel over data shares the devices of tensor parallel; replicas have their own."""
    own = (deployment.tensor_parallel_size or 1) * (deployment.pipeline_parallel_size or 1)
    return own if deployment.enable_dp_attention else own * (deployment.data_parallel_size or 1)


def _data_parallel_size(options: Options, value: int, deployment: Deployment) -> None:
    if not deployment.enable_dp_attention:
        options.put("data_parallel_size", value, "--dp-size")


def _dp_attention(options: Options, value: bool, deployment: Deployment) -> None:
    """--attn-dp-size since 0.5.23; before, a switch that gave --dp-size another meaning."""
    if not value:
        return
    size = deployment.data_parallel_size or deployment.tensor_parallel_size or 1
    if options.known.flag("--attn-dp-size") is not None:
        options.put("enable_dp_attention", size, "--attn-dp-size")
    else:
        options.put("enable_dp_attention", True, "--enable-dp-attention")
        options.put("data_parallel_size", size, "--dp-size")


def _expert_parallel(options: Options, value: bool, deployment: Deployment) -> None:
    if value and deployment.expert_parallel_size is None and (deployment.tensor_parallel_size or 1) > 1:
        options.put("enable_expert_parallel", deployment.tensor_parallel_size, "--ep-size")


def _prefix_caching(options: Options, value: bool, deployment: Deployment) -> None:
    if not value:
        options.put("enable_prefix_caching", True, "--disable-radix-cache")


def _batched_tokens(options: Options, value: int, deployment: Deployment) -> None:
    """Of prompts in one step: the chunk, or without chunks the sum of whole prompts."""
    whole = deployment.enable_chunked_prefill is False
    options.put("max_num_batched_tokens", value, "--max-prefill-tokens" if whole else "--chunked-prefill-size")


def _chunked_prefill(options: Options, value: bool, deployment: Deployment) -> None:
    if not value:
        options.put("enable_chunked_prefill", -1, "--chunked-prefill-size")


def _eager(options: Options, value: bool, deployment: Deployment) -> None:
    if not value:
        return
    if options.known.flag("--cuda-graph-backend-decode") is None:
        options.put("enforce_eager", True, "--disable-cuda-graph")
        return
    options.put("enforce_eager", "disabled", "--cuda-graph-backend-decode")
    options.put("enforce_eager", "disabled", "--cuda-graph-backend-prefill")


def _offload(options: Options, value: float, deployment: Deployment) -> None:
    if value.is_integer():
        options.put("cpu_offload_gb", int(value), "--cpu-offload-gb")
    else:
        options.refuse("cpu_offload_gb", f"SGLang offloads whole GiB, not {value}.", "Set a whole number.")


def _kv_cache_dtype(options: Options, value: str, deployment: Deployment) -> None:
    options.put("kv_cache_dtype", KV_DTYPES.get(value.lower(), value), "--kv-cache-dtype")


def _lora(options: Options, value: bool, deployment: Deployment) -> None:
    """Without adapters from the start, SGLang has to know their rank and what they change."""
    if not value:
        return
    options.put("enable_lora", True, "--enable-lora")
    given = {name.lstrip("-").replace("_", "-") for name in deployment.engine_args or {}}
    if given & {"lora-paths", "lora-target-modules"}:
        return
    options.put("enable_lora", "all", "--lora-target-modules")
    if deployment.max_lora_rank is None:
        options.refuse("enable_lora", "SGLang needs the rank of adapters that come later.", "Set max_lora_rank too.")


def _speculation(options: Options, value: Speculation, deployment: Deployment) -> None:
    """One guess after the other: as many steps as tokens, and a token more to check, since the last one goes along."""
    algorithm = ALGORITHMS.get(value.method)
    if algorithm is None:
        options.refuse(
            "speculative_config",
            f"SGLang guesses no tokens by {value.method}.",
            f"Take one of {', '.join(ALGORITHMS)}, or vllm.",
            code="unsupported_setting",
        )
        return
    options.put("speculative_config", algorithm, "--speculative-algorithm")
    if value.model is not None:
        options.put("speculative_config", value.model, "--speculative-draft-model-path")
    elif value.method in ("draft_model", "eagle", "eagle3"):
        options.refuse(
            "speculative_config", f"{value.method} needs a model to guess with.", "Set speculative_config.model."
        )
    if value.method != "ngram":
        options.put("speculative_config", value.num_speculative_tokens, "--speculative-num-steps")
        options.put("speculative_config", 1, "--speculative-eagle-topk")
    options.put("speculative_config", value.num_speculative_tokens + 1, "--speculative-num-draft-tokens")


SPECIAL: Mapping[str, Special] = {
    "quantization": quantizer({"fp8": "fp8", "mxfp8": "mxfp8", "nf4": "bitsandbytes", "nvfp4": "nvfp4_online"}),
    "kv_cache_dtype": _kv_cache_dtype,
    "data_parallel_size": _data_parallel_size,
    "enable_dp_attention": _dp_attention,
    "enable_expert_parallel": _expert_parallel,
    "enable_prefix_caching": _prefix_caching,
    "max_num_batched_tokens": _batched_tokens,
    "enable_chunked_prefill": _chunked_prefill,
    "enforce_eager": _eager,
    "cpu_offload_gb": _offload,
    "enable_lora": _lora,
    "speculative_config": _speculation,
}
