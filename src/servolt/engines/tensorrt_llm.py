"""TensorRT-LLM: `trtllm-serve` of the vendor's container, with a file for what its command line does not take."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from servolt.command import Command, Image
from servolt.deployment import Deployment, Speculation
from servolt.document import Problem
from servolt.engines.flags import Known
from servolt.engines.folder_models import KV_NAMES, check_model, devices_of, gpu_only, told_model
from servolt.engines.options import Options, Special, fill
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.model.quantization import words_of

__all__ = ["TensorRtLlm"]

# Not measured: the vendor's libraries beside torch, for each rank.
PROCESS_BYTES = 3_000_000_000

OPTIONS_FILE = "options.yaml"

SIMPLE = {
    "max_model_len": ("--max_seq_len",),
    "max_num_seqs": ("--max_batch_size",),
    "max_num_batched_tokens": ("--max_num_tokens",),
    "tensor_parallel_size": ("--tp_size",),
    "pipeline_parallel_size": ("--pp_size",),
    "expert_parallel_size": ("--ep_size",),
    "free_gpu_memory_fraction": ("--kv_cache_free_gpu_memory_fraction",),
    "trust_remote_code": ("--trust_remote_code",),
}

# NVIDIA's documentation starts its container with these.
ULIMITS = {"memlock": -1, "stack": 67108864}


class TensorRtLlm:
    """Folders of safetensors and models on the Hub, by the PyTorch backend."""

    name = "tensorrt_llm"

    @property
    def version(self) -> str | None:
        """It is never part of this environment."""
        return None

    def command(self, deployment: Deployment, model: Model) -> Command:
        """Raises InvalidInputError for a setting that this version can't have."""
        options = _options(deployment, model)
        options.checked()
        told = told_model(deployment, model)
        words = [told, "--host", "127.0.0.1", "--port", "{port}", "--backend", "pytorch", *options.argv()]
        files = {}
        if options.file:
            files[OPTIONS_FILE] = yaml.safe_dump(options.file, sort_keys=False)
            words += ["--extra_llm_api_options", f"{{files}}/{OPTIONS_FILE}"]
        version = options.known.version
        return Command(
            argv=(deployment.engine_executable or "trtllm-serve", *words),
            engine=self.name,
            deployment_digest=deployment.digest,
            engine_version=version,
            model=told,
            options={**options.named(), **options.file},
            files=files,
            images={"nvidia": Image(name=f"nvcr.io/nvidia/tensorrt-llm/release:{version}")},
            image_argv=("trtllm-serve", *words),
            ulimits=ULIMITS,
            devices=devices_of(deployment, _used(deployment)),
        )

    def overhead(self, deployment: Deployment, model: Model) -> int:
        return PROCESS_BYTES * _used(deployment)

    def readings(self, metrics_text: str) -> Mapping[str, float]:
        """Its page is a list of JSON objects with names that change by version: nothing is read from it."""
        return {}

    def problems(self, deployment: Deployment, model: Model, accelerators: Sequence[Accelerator]) -> list[Problem]:
        options = _options(deployment, model)
        gpu_only(options, accelerators)
        if any(accelerator.kind == "gpu" and not _nvidia(accelerator) for accelerator in accelerators):
            options.refuse(
                "hardware",
                "TensorRT-LLM runs on NVIDIA's GPUs only.",
                "Take vllm or sglang.",
                code="unsupported_setting",
            )
        options.note(
            "no_key",
            "trtllm-serve asks nobody for a key.",
            "Let the gateway ask for keys, and keep the engine's port to this machine.",
        )
        return options.problems


def _nvidia(accelerator: Accelerator) -> bool:
    return accelerator.vendor is None or accelerator.vendor.lower() == "nvidia"


def _options(deployment: Deployment, model: Model) -> Options:
    options = Options("TensorRT-LLM", Known("tensorrt_llm", deployment.engine_version))
    check_model(options, deployment, model)
    fill(options, deployment, SIMPLE, SPECIAL)
    return options


def _used(deployment: Deployment) -> int:
    return (deployment.tensor_parallel_size or 1) * (deployment.pipeline_parallel_size or 1)


def _key(field: str, key: str, inner: str | None = None) -> Special:
    def write(options: Options, value: Any, deployment: Deployment) -> None:
        options.put_in_file(field, value, key, inner)

    return write


def _expert_parallel(options: Options, value: bool, deployment: Deployment) -> None:
    if value and deployment.expert_parallel_size is None and (deployment.tensor_parallel_size or 1) > 1:
        options.put("enable_expert_parallel", deployment.tensor_parallel_size, "--ep_size")


def _kv_cache_dtype(options: Options, value: str, deployment: Deployment) -> None:
    """auto keeps the model's own type, which is 16 bits wide."""
    spelled = KV_NAMES.get(value.lower(), value)
    if spelled in ("auto", "fp8", "nvfp4"):
        options.put_in_file("kv_cache_dtype", spelled, "kv_cache_config", "dtype")
    elif spelled not in ("float16", "bfloat16"):
        options.refuse(
            "kv_cache_dtype", f"TensorRT-LLM keeps no keys and values as {value}.", "Take one of auto, fp8, nvfp4."
        )
    else:
        options.put_in_file("kv_cache_dtype", "auto", "kv_cache_config", "dtype")


def _eager(options: Options, value: bool, deployment: Deployment) -> None:
    if value and deployment.max_cudagraph_capture_size is None:
        options.put_in_file("enforce_eager", None, "cuda_graph_config")


def _capture(options: Options, value: int, deployment: Deployment) -> None:
    options.put_in_file("max_cudagraph_capture_size", value, "cuda_graph_config", "max_batch_size")
    options.put_in_file("max_cudagraph_capture_size", True, "cuda_graph_config", "enable_padding")


def _lora(options: Options, value: bool, deployment: Deployment) -> None:
    if value:
        options.put_in_file("enable_lora", True, "enable_lora")


def _quantization(options: Options, value: str, deployment: Deployment) -> None:
    form = words_of(value)
    if form in ("float16", "bfloat16", "float32"):
        if deployment.dtype is None:
            options.put_in_file("quantization", form, "dtype")
    elif form is None or form != words_of(deployment.model.rpartition("/")[2]):
        options.warn(
            "checkpoint_quantization",
            f"TensorRT-LLM does not make {value} weights while it loads: the checkpoint has to hold them.",
            f"Name a checkpoint of {deployment.model} that is in {value} already.",
        )


def _speculation(options: Options, value: Speculation, deployment: Deployment) -> None:
    tokens, told = value.num_speculative_tokens, dict[str, Any]()
    if value.method == "mtp":
        told = {"decoding_type": "MTP", "num_nextn_predict_layers": tokens}
    elif value.method == "ngram":
        told = {"decoding_type": "NGram", "max_draft_len": tokens}
    elif value.method in ("eagle", "eagle3", "draft_model") and value.model is not None:
        kind = "DraftTarget" if value.method == "draft_model" else "Eagle"
        told = {"decoding_type": kind, "max_draft_len": tokens, "speculative_model_dir": value.model}
    if told:
        options.put_in_file("speculative_config", told, "speculative_config")
    elif value.method == "medusa":
        options.refuse(
            "speculative_config",
            "The PyTorch backend of TensorRT-LLM guesses no tokens by medusa.",
            "Take eagle3, mtp or ngram, or vllm.",
            code="unsupported_setting",
        )
    else:
        options.refuse(
            "speculative_config", f"{value.method} needs a model to guess with.", "Set speculative_config.model."
        )


SPECIAL: Mapping[str, Special] = {
    "quantization": _quantization,
    "kv_cache_dtype": _kv_cache_dtype,
    "enable_prefix_caching": _key("enable_prefix_caching", "kv_cache_config", "enable_block_reuse"),
    "block_size": _key("block_size", "kv_cache_config", "tokens_per_block"),
    "dtype": _key("dtype", "dtype"),
    "enable_chunked_prefill": _key("enable_chunked_prefill", "enable_chunked_prefill"),
    "enable_dp_attention": _key("enable_dp_attention", "enable_attention_dp"),
    "enable_expert_parallel": _expert_parallel,
    "enforce_eager": _eager,
    "max_cudagraph_capture_size": _capture,
    "enable_lora": _lora,
    "max_loras": _key("max_loras", "lora_config", "max_loras"),
    "max_lora_rank": _key("max_lora_rank", "lora_config", "max_lora_rank"),
    "speculative_config": _speculation,
}
