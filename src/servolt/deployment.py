"""One way to run one model."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, Field, field_validator, model_validator

from servolt.document import Document, Value, digest
from servolt.units import parse_count

__all__ = ["Deployment", "Hardware", "Speculation"]


def _counted(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"{value} is no number")
    return parse_count(value) if isinstance(value, str) else value


# In a file as on the command line: 8192, or 8k (8,000) and 8K (8,192).
Count = Annotated[int, BeforeValidator(_counted, json_schema_input_type=int | str)]


# Engines as people and logs write them, without case, dots and hyphens.
SPELLINGS = {
    "vllm": "vllm",
    "sglang": "sglang",
    "llamacpp": "llamacpp",
    "llamaserver": "llamacpp",
    "ikllamacpp": "ik_llamacpp",
    "tensorrtllm": "tensorrt_llm",
    "trtllm": "tensorrt_llm",
    "trtllmserve": "tensorrt_llm",
    "transformers": "transformers",
    "huggingfacetransformers": "transformers",
    "openvino": "openvino",
    "openvinogenai": "openvino",
}
# What engines call a field in their own options: SGLang 0.5.23's ServerArgs, TensorRT-LLM 1.2.1's LlmArgs, llama.cpp's.
SYNONYMS = {
    "tp_size": "tensor_parallel_size",
    "pp_size": "pipeline_parallel_size",
    "dp_size": "data_parallel_size",
    "ep_size": "expert_parallel_size",
    "moe_expert_parallel_size": "expert_parallel_size",
    "context_length": "max_model_len",
    "max_seq_len": "max_model_len",
    "max_running_requests": "max_num_seqs",
    "max_batch_size": "max_num_seqs",
    "parallel": "max_num_seqs",
    "n_parallel": "max_num_seqs",
    "chunked_prefill_size": "max_num_batched_tokens",
    "max_num_tokens": "max_num_batched_tokens",
    "batch_size": "max_num_batched_tokens",
    "cuda_graph_max_bs": "max_cudagraph_capture_size",
    "cuda_graph_max_bs_decode": "max_cudagraph_capture_size",
    "kv_cache_free_gpu_memory_fraction": "free_gpu_memory_fraction",
    "free_mem_fraction": "free_gpu_memory_fraction",
    "tokens_per_block": "block_size",
    "page_size": "block_size",
    "ngl": "n_gpu_layers",
    "attn_dp_size": "data_parallel_size",
    "disable_cuda_graph": "enforce_eager",
}
# Switches that say the opposite.
OPPOSITES = {"disable_radix_cache": "enable_prefix_caching", "no_enable_prefix_caching": "enable_prefix_caching"}
WITH_VERSION = re.compile(r"(?P<name>\S.*?)[\s@=]+v?(?P<version>\d+(?:\.\d+)+\S*|b\d{4,5})\s*")


Name = Annotated[str, Field(max_length=256)]  # the longest real ones have some 60 characters
Path = Annotated[str, Field(max_length=4096)]  # as PATH_MAX of Linux


class Hardware(Value):
    """What a deployment runs on. Without a name it is this machine."""

    accelerator: Name | None = Field(None, description="a name from the catalogue, as drivers or vendors write it")
    count: int = Field(1, ge=1, le=65536, description="devices, over all machines")
    memory_bytes: int | None = Field(None, ge=1, description="visible memory of one device, where it is known better")
    host_memory_bytes: int | None = Field(None, ge=1, description="memory of the machine that can be used")

    @model_validator(mode="before")
    @classmethod
    def _no_truth_is_a_number(cls, plain: Any) -> Any:
        return _without_truths(cls, plain)


class Speculation(Value):
    """Tokens that are guessed and then checked."""

    method: Literal["draft_model", "eagle", "eagle3", "mtp", "medusa", "ngram"]
    model: Path | None = Field(None, description="of the draft model or of the heads")
    num_speculative_tokens: int = Field(1, ge=1, le=64)
    acceptance: float | None = Field(None, ge=0, description="mean accepted tokens a step, measured; never assumed")
    prompt_lookup_max: int | None = Field(None, ge=1, le=1024, description="ngram: the longest run of tokens looked up")
    prompt_lookup_min: int | None = Field(None, ge=1, le=1024, description="ngram: the shortest")

    @model_validator(mode="before")
    @classmethod
    def _method_by_model(cls, plain: Any) -> Any:
        """Without a method the model's name tells it, as vLLM reads it (vllm/config/speculative.py, 0.33.0)."""
        if not isinstance(plain, dict) or plain.get("method") or not isinstance(plain.get("model"), str):
            return plain
        name = plain["model"].lower()
        if name in ("ngram", "[ngram]"):
            return {**plain, "method": "ngram", "model": None}
        known = next((word for word in ("eagle3", "eagle", "medusa", "mtp") if word in name), "draft_model")
        return {**plain, "method": known}


class Deployment(Document):
    """All that changes a deployment's speed, memory, energy or answers. None is the engine's own default.

    Field names are vLLM's wherever vLLM has one.
    """

    schema_: Literal["servolt.deployment/1"] = Field("servolt.deployment/1", alias="schema")
    model: Path = Field(min_length=1, description="a built-in name such as guide, a path, or a Hub id")
    quantization: Name | None = Field(None, description="which weights of the model: f16, q8_0, fp8 ...")
    engine: Name = "llamacpp"
    engine_executable: Path | None = Field(None, description="an executable to use in place of the engine's own")
    max_model_len: Count | None = Field(None, ge=1, le=2**31 - 1, description="context of one sequence, tokens")
    max_num_seqs: Count | None = Field(None, ge=1, le=4096, description="sequences that run at the same time")
    max_num_batched_tokens: Count | None = Field(None, ge=1, le=2**20, description="tokens of one step")
    kv_cache_dtype: Name | None = None
    enable_prefix_caching: bool | None = None
    threads: Count | None = Field(None, ge=1, le=4096)
    hardware: Hardware | None = Field(None, description="None is this machine")
    engine_version: Name | None = Field(None, description="of the engine that is planned for, such as 0.19.0")
    dtype: Name | None = Field(None, description="of weights and arithmetic: bfloat16, float16, float32")
    tensor_parallel_size: Count | None = Field(None, ge=1, le=65536)
    pipeline_parallel_size: Count | None = Field(None, ge=1, le=65536)
    data_parallel_size: Count | None = Field(None, ge=1, le=65536)
    enable_expert_parallel: bool | None = None
    expert_parallel_size: Count | None = Field(None, ge=1, le=65536, description="SGLang's and TensorRT-LLM's")
    decode_context_parallel_size: Count | None = Field(None, ge=1, le=65536)
    enable_dp_attention: bool | None = Field(None, description="SGLang's: attention in parallel over data")
    gpu_memory_utilization: float | None = Field(None, gt=0, le=1, description="vLLM's share of visible memory")
    kv_cache_memory_bytes: Count | None = Field(None, ge=1, description="vLLM's: the pool's size, without profiling")
    mem_fraction_static: float | None = Field(None, gt=0, lt=1, description="SGLang's share for weights and pool")
    free_gpu_memory_fraction: float | None = Field(None, gt=0, le=1, description="TensorRT-LLM's share of what is free")
    block_size: Count | None = Field(None, ge=1, le=65536, description="tokens of one KV block")
    swa_full_tokens_ratio: float | None = Field(None, gt=0, le=1, description="SGLang's sliding pool to its full pool")
    enforce_eager: bool | None = None
    max_cudagraph_capture_size: Count | None = Field(None, ge=0, le=65536)
    enable_chunked_prefill: bool | None = None
    cpu_offload_gb: float | None = Field(None, ge=0, description="GiB of weights of each device kept on the host")
    limit_mm_per_prompt: Mapping[str, Annotated[int, Field(ge=0)]] | None = Field(
        None, description="images, videos, audios of one prompt"
    )
    speculative_config: Speculation | None = None
    enable_lora: bool | None = None
    max_loras: Count | None = Field(None, ge=1, le=4096)
    max_lora_rank: Count | None = Field(None, ge=1, le=4096)
    n_gpu_layers: int | None = Field(None, ge=-1, le=65536, description="llama.cpp's: layers on devices, -1 is all")
    tensor_split: tuple[float, ...] | None = Field(None, description="llama.cpp's: shares of the devices")
    override_tensor: Path | None = Field(None, description="llama.cpp's: pattern=device, comma-separated")
    n_cpu_moe: int | None = Field(
        None, ge=0, le=65536, description="llama.cpp's: layers whose experts stay on the host"
    )
    flash_attn: bool | None = Field(None, description="llama.cpp's")
    kv_unified: bool | None = Field(None, description="llama.cpp's: one pool of cells for all sequences")
    ubatch_size: Count | None = Field(None, ge=1, le=2**20, description="llama.cpp's: tokens of one pass")
    trust_remote_code: bool | None = None
    served_model_name: Name | None = None
    engine_args: Mapping[str, str | int | float | bool | None] | None = Field(
        None, description="any other option of the engine, handed through under its own name"
    )

    @model_validator(mode="before")
    @classmethod
    def _as_long_as_fits(cls, plain: Any) -> Any:
        """vLLM's --max-model-len auto, or -1, is no number of tokens: it stands among the engine's own options.

        Of validators of this kind the last runs first: this one sees the engine's name as it is written here.
        """
        if not isinstance(plain, Mapping) or plain.get("engine") != "vllm":
            return plain
        if plain.get("max_model_len") not in (-1, "-1", "auto"):
            return plain
        others = {**(plain.get("engine_args") or {}), "max_model_len": "auto"}
        return {**plain, "max_model_len": None, "engine_args": others}

    @model_validator(mode="before")
    @classmethod
    def _no_truth_is_a_number(cls, plain: Any) -> Any:
        return _without_truths(cls, plain)

    @model_validator(mode="before")
    @classmethod
    def _engine_as_written(cls, plain: Any) -> Any:
        """TensorRT-LLM is tensorrt_llm, and "vLLM v0.9.2" is vllm with its engine_version."""
        if not isinstance(plain, dict) or not isinstance(plain.get("engine"), str):
            return plain
        written = plain["engine"]
        match = WITH_VERSION.fullmatch(written)
        if match and (name := _engine_named(match["name"])):
            if plain.get("engine_version") not in (None, match["version"]):
                raise ValueError(f"engine says {match['version']}, and engine_version says {plain['engine_version']}")
            return {**plain, "engine": name, "engine_version": match["version"]}
        return {**plain, "engine": _engine_named(written) or written}

    @model_validator(mode="before")
    @classmethod
    def _options_as_engines_call_them(cls, plain: Any) -> Any:
        """tp_size is tensor_parallel_size. Raises ValueError where both are set and differ."""
        if not isinstance(plain, dict):
            return plain
        named = {key: value for key, value in plain.items() if key not in SYNONYMS and key not in OPPOSITES}
        for key in plain.keys() - named.keys():
            field, value = SYNONYMS.get(key) or OPPOSITES[key], plain[key]
            if key in OPPOSITES and isinstance(value, bool):
                value = not value
            if key == "chunked_prefill_size" and value == -1:
                field, value = "enable_chunked_prefill", False
            _put(named, field, value, key)
        return _with_cache_types(named)

    @field_validator("model")
    @classmethod
    def _no_control_characters(cls, model: str) -> str:
        if not model.isprintable():
            raise ValueError("a model's name holds printable characters only")
        return model

    @property
    def digest(self) -> str:
        """Names this deployment everywhere: 64 hex digits over the fields that are set."""
        return digest(self.model_dump(mode="json", exclude_none=True))

    @property
    def label(self) -> str:
        """What people call it: guide:q8_0.

        >>> Deployment(model="guide", quantization="q8_0").label
        'guide:q8_0'
        """
        return f"{self.model}:{self.quantization}" if self.quantization else self.model

    @classmethod
    def of(cls, name: str, **settings: object) -> "Deployment":
        """From NAME or NAME:QUANTIZATION; a path may hold colons, so only a short last part counts as one.

        >>> Deployment.of("guide:q8_0").quantization
        'q8_0'
        """
        head, colon, tail = name.rpartition(":")
        is_tag = bool(colon and head) and "/" not in tail and "\\" not in tail and not tail.endswith(".gguf")
        if is_tag and tail != "latest":
            settings.setdefault("quantization", tail.lower())
        return cls.from_plain({"model": head if is_tag else name, **settings})


def _engine_named(written: str) -> str | None:
    """The engine that is meant; None where none of ours is.

    >>> [_engine_named(name) for name in ("vLLM", "llama.cpp", "TensorRT-LLM", "TGI")]
    ['vllm', 'llamacpp', 'tensorrt_llm', None]
    """
    return SPELLINGS.get(re.sub(r"[^a-z0-9]", "", written.lower()))


def _with_cache_types(named: dict[str, Any]) -> dict[str, Any]:
    """llama.cpp names the types of keys and of values apart, and its n_ctx is shared by the sequences."""
    keys, values = named.pop("cache_type_k", None), named.pop("cache_type_v", None)
    if keys or values:
        kept = {str(keys or "f16"): None, str(values or "f16"): None}
        _put(named, "kv_cache_dtype", "/".join(kept), "cache_type_k")
    for key in ("n_ctx", "ctx_size"):
        if key in named:
            context = _counted(named.pop(key))
            each = 1 if named.get("kv_unified") else named.get("max_num_seqs")
            is_shared = isinstance(context, int) and isinstance(each, int) and each > 0
            _put(named, "max_model_len", context // each if is_shared else context, key)
    return named


def _put(named: dict[str, Any], field: str, value: Any, key: str) -> None:
    """Raises ValueError where the field is set already, and to something else."""
    if named.setdefault(field, value) != value:
        raise ValueError(f"{key} is {value!r}, and {field}, which means the same, is {named[field]!r}")


def _without_truths(kind: type[BaseModel], plain: Any) -> Any:
    """True is no count of devices, though Python takes it for 1."""
    if not isinstance(plain, dict):
        return plain
    for name, value in plain.items():
        field = kind.model_fields.get(name)
        if (
            isinstance(value, bool)
            and field is not None
            and bool not in (field.annotation, *get_args(field.annotation))
        ):
            raise ValueError(f"{name} takes no {str(value).lower()}")
    return plain
