"""What deployments were seen to take and to do: kept, and found again for the deployments that it holds for."""

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from servolt.deployment import Deployment
from servolt.document import Document, Value, digest
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.plan.memory import Budget, TermName
from servolt.plan.memory.profiles import profile_of, version_key
from servolt.plan.memory.sharding import ranks_of

__all__ = [
    "Conditions",
    "KnownDeployments",
    "KnownMemory",
    "KnownSpeed",
    "LoggedTerm",
    "Source",
    "alike_version",
    "bare_name",
    "conditions_of",
    "same_model",
    "same_parallelism",
    "same_size",
]

Source = Literal["measured", "log", "imported"]

# Patch releases of these engines differ in memory and speed by more than logs of one release do; of others they don't.
PATCHES_MATTER = ("sglang", "tensorrt_llm")
# Settings whose absence means off or none: one that is set makes another deployment.
STRICT = (
    "enforce_eager",
    "cpu_offload_gb",
    "speculative_config",
    "enable_lora",
    "max_loras",
    "max_lora_rank",
    "limit_mm_per_prompt",
    "enable_dp_attention",
    "kv_cache_memory_bytes",
    "tensor_split",
    "override_tensor",
    "n_cpu_moe",
    "decode_context_parallel_size",
)
# Settings that a log tells even where they are the engine's defaults: those that both sides tell have to agree.
LENIENT = (
    "block_size",
    "max_cudagraph_capture_size",
    "enable_prefix_caching",
    "enable_chunked_prefill",
    "swa_full_tokens_ratio",
    "n_gpu_layers",
    "flash_attn",
    "kv_unified",
    "ubatch_size",
    "mem_fraction_static",
    "free_gpu_memory_fraction",
)
GUESSED = 0.1  # share of the parameters by which a size in a name is off
# Options under the engine's own names that change no memory.
HARMLESS = ("host", "port", "api_key", "served_model_name", "attention_backend", "tool_call_parser", "reasoning_parser")


class Conditions(Value):
    """What a value holds for: all that changes a deployment's memory or speed, the engine's defaults filled in."""

    engine: str
    engine_version: str | None = None
    accelerator: str
    devices: int = Field(1, ge=1)
    tp: int = Field(1, ge=1)
    pp: int = Field(1, ge=1)
    dp: int = Field(1, ge=1)
    ep: int = Field(1, ge=1)
    model: str = Field(description="the last part of its name or path, in lower case")
    shape: str | None = Field(None, description="digest of its layers and parts; None where only the name was known")
    parameters: int | None = None
    family: str | None = Field(None, description="the architecture")
    quantization: str | None = None
    dtype: str | None = None
    kv_cache_dtype: str | None = None
    utilization: float | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    strict: Mapping[str, Any] = Field(default_factory=dict)
    lenient: Mapping[str, Any] = Field(default_factory=dict)


class LoggedTerm(Value):
    """Bytes of one device of the first stage, and what was predicted for it."""

    bytes: int = Field(ge=0)
    predicted: int | None = Field(None, ge=0)
    predicted_low: int | None = Field(None, ge=0)
    predicted_high: int | None = Field(None, ge=0)

    @property
    def ratio(self) -> float | None:
        """Logged over predicted."""
        return self.bytes / self.predicted if self.predicted else None


class KnownMemory(Value):
    """What one start-up log said."""

    conditions: Conditions
    terms: Mapping[TermName, LoggedTerm]
    kv_cache_tokens: int | None = Field(None, ge=0)
    predicted_tokens: int | None = Field(None, ge=0)
    num_gpu_blocks: int | None = Field(None, ge=0)
    max_concurrency: float | None = Field(None, ge=0)
    graphs_taken_bytes: int | None = Field(
        None, ge=0, description="by the captured graphs, where the term is what the engine reckoned for them before"
    )
    source: Source = "log"
    date: str = Field(description="when it was learnt, RFC 3339")
    provenance: str = Field("", description="the file, or who says so")
    verified: bool = Field(True, description="else it may widen an interval, and never narrows one")
    tool_version: str = Field(description="of the planner that predicted")

    @property
    def said(self) -> str:
        """In words: which terms."""
        return " ".join([*self.terms, *(["kv_cache_tokens"] if self.kv_cache_tokens is not None else [])])

    @property
    def id(self) -> str:
        """Names what was said, not when: the same log twice is one."""
        return digest(self.model_dump(mode="json", include={"conditions", "terms", "kv_cache_tokens"}))[:12]


class KnownSpeed(Value):
    """One measured value at one load."""

    conditions: Conditions
    metric: str
    input_len: int = Field(ge=1)
    output_len: int = Field(ge=1)
    concurrency: int | None = Field(None, ge=1)
    request_rate: float | None = Field(None, gt=0)
    value: float = Field(gt=0)
    predicted: float | None = Field(None, gt=0, description="without any correction")
    low: float | None = Field(None, gt=0, description="of what was predicted, P10")
    high: float | None = Field(None, gt=0, description="of what was predicted, P90")
    source: Source = "measured"
    date: str
    provenance: str = ""
    verified: bool = True
    tool_version: str

    @property
    def said(self) -> str:
        """In words: the value and its load."""
        load = f"c={self.concurrency}" if self.request_rate is None else f"{self.request_rate:g}/s"
        return f"{self.metric} {self.value:.4g} at {load}, {self.input_len}+{self.output_len} tokens"

    @property
    def id(self) -> str:
        said = {"conditions", "metric", "input_len", "output_len", "concurrency", "request_rate", "value"}
        return digest(self.model_dump(mode="json", include=said))[:12]


class KnownDeployments(Document):
    """All that is known of deployments, on whatever machine."""

    schema_: Literal["servolt.known/1"] = Field("servolt.known/1", alias="schema")
    memory: tuple[KnownMemory, ...] = ()
    speeds: tuple[KnownSpeed, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.memory or self.speeds)

    @property
    def rows(self) -> "tuple[KnownMemory | KnownSpeed, ...]":
        return (*self.memory, *self.speeds)

    @property
    def ids(self) -> list[str]:
        return [one.id for one in self.rows]

    def having(self, *found: KnownMemory | KnownSpeed) -> "KnownDeployments":
        """With these, each once; what is learnt again replaces what was learnt before."""
        fresh = {one.id for one in found}
        return KnownDeployments(
            memory=(
                *(one for one in self.memory if one.id not in fresh),
                *{one.id: one for one in found if isinstance(one, KnownMemory)}.values(),
            ),
            speeds=(
                *(one for one in self.speeds if one.id not in fresh),
                *{one.id: one for one in found if isinstance(one, KnownSpeed)}.values(),
            ),
        )

    def without(self, beginning: str) -> "KnownDeployments":
        """Less those whose id begins so."""
        return KnownDeployments(
            memory=tuple(one for one in self.memory if not one.id.startswith(beginning)),
            speeds=tuple(one for one in self.speeds if not one.id.startswith(beginning)),
        )


def conditions_of(
    deployment: Deployment, model: Model | None, accelerator: Accelerator, budget: Budget | None = None
) -> Conditions:
    """`budget` tells the lengths and batches that the engine takes by itself."""
    ranks = ranks_of(deployment)
    devices = max(ranks.devices, accelerator.count, deployment.hardware.count if deployment.hardware else 1)
    return Conditions(
        engine=deployment.engine,
        engine_version=deployment.engine_version,
        accelerator=accelerator.name,
        devices=devices,
        tp=ranks.tp,
        pp=ranks.pp,
        dp=ranks.dp,
        ep=ranks.ep,
        model=bare_name(deployment.model),
        shape=None if model is None else _shape(model),
        parameters=None if model is None else model.total_params,
        family=None if model is None else model.architecture,
        quantization=deployment.quantization if model is None else model.quantization,
        dtype=deployment.dtype or (None if model is None else model.dtype),
        kv_cache_dtype=_kv_dtype(deployment, model),
        utilization=_utilization(deployment),
        max_model_len=deployment.max_model_len if budget is None else budget.max_model_len,
        max_num_seqs=deployment.max_num_seqs if budget is None else budget.max_num_seqs,
        max_num_batched_tokens=deployment.max_num_batched_tokens if budget is None else budget.max_num_batched_tokens,
        strict=_stated(deployment, STRICT) | _arguments(deployment),
        lenient=_stated(deployment, LENIENT),
    )


def alike_version(one: str | None, other: str | None, engine: str) -> bool:
    """Whether what is known of one version holds for the other. A version that isn't known is like every other.

    >>> alike_version("0.19.0", "0.19.1", "vllm"), alike_version("0.19.0", "0.20.0", "vllm")
    (True, False)
    """
    keys = [version_key(version) if version else None for version in (one, other)]
    if keys[0] is None or keys[1] is None:
        return one is None or other is None or one == other
    numbers = 3 if engine in PATCHES_MATTER else 2
    return keys[0][:numbers] == keys[1][:numbers]


def same_model(one: Conditions, other: Conditions) -> bool:
    """The same layers and weights, whatever they are called; or the same name, where nothing speaks against it: a later
    servolt may tell layers in other words."""
    if one.shape is not None and one.shape == other.shape:
        return True
    return (
        one.model == other.model and len({one.quantization, other.quantization} - {None}) <= 1 and same_size(one, other)
    )


def same_size(one: Conditions, other: Conditions) -> bool:
    """As many parameters, as far as that is known: a model that was only guessed from its name is off by a little."""
    if one.parameters is None or other.parameters is None:
        return True
    return abs(one.parameters - other.parameters) <= GUESSED * max(one.parameters, other.parameters)


def same_parallelism(one: Conditions, other: Conditions) -> bool:
    return (one.tp, one.pp, one.dp, one.ep) == (other.tp, other.pp, other.dp, other.ep)


def bare_name(name: str) -> str:
    """Of a Hub id or a path, what names the model.

    >>> bare_name("meta-llama/Llama-3.1-8B-Instruct"), bare_name("/models/Llama-3.1-8B-Instruct/")
    ('llama-3.1-8b-instruct', 'llama-3.1-8b-instruct')
    """
    parts = [part for part in re.split(r"[/\\]", name) if part]
    return (parts[-1] if parts else name).lower()


def _shape(model: Model) -> str:
    """Of what memory and speed depend on, not of the name."""
    parts = {"layers", "layer_order", "parts", "hidden_size", "vocab_size", "total_params", "weights_bytes"}
    return digest(model.model_dump(mode="json", include=parts))[:16]


def _kv_dtype(deployment: Deployment, model: Model | None) -> str | None:
    """None where it is the model's own type. fp8_e4m3 is what fp8 means."""
    own = None if model is None else model.metadata.get("kv_cache_dtype")
    asked = deployment.kv_cache_dtype or (own if isinstance(own, str) else None)
    return {"auto": None, "fp8_e4m3": "fp8", "float8_e4m3fn": "fp8"}.get(asked or "auto", asked)


def _utilization(deployment: Deployment) -> float | None:
    """vLLM's share, its default where it isn't set. Engines that reckon their own share leave it to `lenient`."""
    if deployment.gpu_memory_utilization is not None:
        return deployment.gpu_memory_utilization
    profile = profile_of(deployment.engine, deployment.engine_version)
    known = profile is not None and "gpu_memory_utilization" in profile
    return profile.number("gpu_memory_utilization") if profile is not None and known else None


def _stated(deployment: Deployment, names: tuple[str, ...]) -> dict[str, Any]:
    plain = deployment.model_dump(mode="json", include=set(names), exclude_none=True)
    return {name: value for name, value in plain.items() if value not in (False, 0, {}) or name in LENIENT}


def _arguments(deployment: Deployment) -> dict[str, Any]:
    given = {name.lstrip("-").replace("-", "_"): value for name, value in (deployment.engine_args or {}).items()}
    return {name: value for name, value in given.items() if name not in HARMLESS and value not in (None, False)}
