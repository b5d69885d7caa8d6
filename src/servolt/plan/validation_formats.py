"""Number formats against the device and the engine: of weights, of keys and values, of arithmetic."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from servolt.deployment import Deployment
from servolt.document import Problem
from servolt.engines.llamacpp import KV_CACHE_DTYPES as LLAMACPP_KV_DTYPES
from servolt.gpu import Accelerator
from servolt.model import LayerKind, Model
from servolt.model.ggml import dtype_bytes as ggml_bytes
from servolt.model.quantization import LOADERS
from servolt.plan.memory.sharding import ranks_of

__all__ = ["format_problems"]


class _Needs(NamedTuple):
    """Compute capabilities of NVIDIA's from which a format runs at all, and from which it is multiplied as it is."""

    runs: float
    native: float
    instead: str


# Source: vllm 0.33.0 vllm/model_executor/layers/quantization/*.py get_min_capability, and its kernels' own checks.
# Below `native` kernels turn the weights back into 16 bits (Marlin), so memory is saved and arithmetic is not.
WEIGHTS = {
    "fp8": _Needs(7.5, 8.9, "int8 or int4"),
    "nvfp4": _Needs(7.5, 10.0, "fp8 or int4"),
    "mxfp4": _Needs(7.5, 10.0, "fp8 or int4"),
    "int8": _Needs(7.5, 7.5, "float16"),
    "int4": _Needs(7.5, 7.5, "float16"),
    "nf4": _Needs(7.0, 7.0, "float16"),
}

# AMD's by gfx name: what multiplies it natively. Others run it through 16 bits, or not at all.
AMD_NATIVE = {"fp8": ("gfx942", "gfx950", "gfx12"), "mxfp4": ("gfx950",), "nvfp4": ()}

# By engine, as each spells them. Source: vllm 0.33.0 CacheConfig, sglang 0.5.23 ServerArgs, tensorrt_llm 1.2.1
# KvCacheConfig, openvino 2026.4 KV_CACHE_PRECISION.
_VLLM_KV = """auto float16 bfloat16 fp8 fp8_e4m3 fp8_e5m2 fp8_inc fp8_ds_mla nvfp4_ds_mla nvfp4 nvfp4_4over6
turboquant_k8v4 turboquant_4bit_nc turboquant_k3v4_nc turboquant_3bit_nc octave_k3v4 octave_k3v3 octave_k3v3_compact
ultraquant_4bit int4_per_token_head int8_per_token_head fp8_per_token_head"""
_OPENVINO_KV = "auto u8 i8 u4 i4 int8 int4 f16 bf16 f32 float16 bfloat16 float32"
KV_DTYPES: dict[str, tuple[str, ...]] = {
    "vllm": tuple(_VLLM_KV.split()),
    "sglang": ("auto", "fp8_e5m2", "fp8_e4m3", "bf16", "bfloat16", "fp4_e2m1"),
    "tensorrt_llm": ("auto", "fp8", "int8", "nvfp4", "float16", "bfloat16"),
    "openvino": tuple(_OPENVINO_KV.split()),
    "transformers": ("auto",),
    "llamacpp": (*LLAMACPP_KV_DTYPES, "auto", "float16", "bfloat16"),
}
# The nearest that each engine has for less memory.
SMALLER_KV = {"vllm": "fp8", "sglang": "fp8_e4m3", "tensorrt_llm": "fp8", "llamacpp": "q8_0", "openvino": "u8"}

SIXTEEN_BITS = ("bfloat16", "float16")

# bfloat16 needs Ampere; older cards compute in float16.
BFLOAT16_CAPABILITY = 8.0
FP8_KV_CAPABILITY, FP4_KV_CAPABILITY = 8.9, 10.0
LATENT_KV = ("fp8_ds_mla", "nvfp4_ds_mla")
DEFAULT_GROUP = {"int4": 128}


def format_problems(deployment: Deployment, model: Model, accelerator: Accelerator) -> Iterator[Problem]:
    yield from _files(deployment, model)
    yield from _replaced(deployment, model)
    yield from _only_a_loader(deployment, model)
    yield from _weights(deployment, model, accelerator)
    yield from _groups(deployment, model)
    yield from _arithmetic(deployment, model, accelerator)
    yield from _keys_and_values(deployment, model, accelerator)


def _problem(severity: str, code: str, message: str, remedy: str) -> Problem:
    return Problem.model_validate({"code": code, "severity": severity, "message": message, "remedy": remedy})


def _capability(accelerator: Accelerator) -> float | None:
    """NVIDIA's, such as 8.9; None for other vendors and where it is not known."""
    text = accelerator.compute_capability or ""
    return float(text) if re.fullmatch(r"\d+\.\d+", text) else None


def _files(deployment: Deployment, model: Model) -> Iterator[Problem]:
    is_ggml = model.format == "gguf" or (ggml_bytes(model.quantization) is not None and "_" in model.quantization)
    if deployment.engine in ("llamacpp", "ik_llamacpp") and not is_ggml and model.format in ("safetensors",):
        yield _problem(
            "error",
            "model_format",
            f"llama.cpp runs GGUF files, and {model.name} is {model.format}.",
            "Convert it, name a GGUF file of it, or take another engine.",
        )
    if deployment.engine in ("vllm", "sglang", "tensorrt_llm") and is_ggml:
        yield _problem(
            "warning" if deployment.engine != "tensorrt_llm" else "error",
            "model_format",
            f"{deployment.engine} doesn't read {model.quantization} of a GGUF file by itself.",
            "Take the model's safetensors, with fp8 or int4 for less memory, or llamacpp as engine.",
        )


def _replaced(deployment: Deployment, model: Model) -> Iterator[Problem]:
    """Engines quantise what is in 16 bits, and nothing twice."""
    stored = model.metadata.get("quantization.replaced")
    if stored and deployment.engine in ("vllm", "sglang", "tensorrt_llm", "transformers"):
        yield _problem(
            "warning",
            "quantization_replaced",
            f"This checkpoint is stored as {stored}, and engines don't turn it into {model.quantization}: planned as "
            "another copy of the model that is stored so.",
            "Name that copy, or unset quantization.",
        )


def _only_a_loader(deployment: Deployment, model: Model) -> Iterator[Problem]:
    name = (deployment.quantization or "").lower()
    if name in LOADERS - {"", "auto", "none"} and model.quantization in SIXTEEN_BITS:
        yield _problem(
            "warning",
            "quantization_unsaid",
            f"{name} is a way to store several formats, and neither the model nor the deployment says which: planned "
            f"as {model.quantization}.",
            "Set quantization to fp8, int8, int4, nvfp4 or mxfp4, or name the config of the quantised copy.",
        )


def _weights(deployment: Deployment, model: Model, accelerator: Accelerator) -> Iterator[Problem]:
    dtype = model.quantization
    needs = WEIGHTS.get(dtype)
    if needs is None or accelerator.kind == "cpu" or deployment.engine in ("llamacpp", "ik_llamacpp", "openvino"):
        return
    capability = _capability(accelerator)
    if capability is not None and capability < needs.runs:
        yield _problem(
            "error",
            "quantization",
            f"{dtype} weights need compute capability {needs.runs}, and {accelerator.name} has {capability}.",
            f"Set quantization to {needs.instead}.",
        )
    elif capability is not None and capability < needs.native:
        yield _problem(
            "warning",
            "quantization",
            f"{accelerator.name} (compute capability {capability}) multiplies no {dtype}, which needs {needs.native}: "
            "weights take less memory, and are turned into 16 bits in every step.",
            f"Plan speed as of 16 bits, or set quantization to {needs.instead}.",
        )
    elif (accelerator.vendor or "").lower() == "amd" and dtype in AMD_NATIVE:
        name = accelerator.compute_capability or ""
        if name and not name.startswith(AMD_NATIVE[dtype]):
            yield _problem(
                "warning",
                "quantization",
                f"{accelerator.name} ({name}) multiplies no {dtype}.",
                "Set quantization to int4 for less memory, or fp8 on gfx942 and later.",
            )
    elif (accelerator.vendor or "").lower() == "apple" and dtype in ("fp8", "nvfp4"):
        yield _problem(
            "error",
            "quantization",
            f"{accelerator.name} has no {dtype}.",
            "Take a GGUF file with llamacpp, such as q8_0 or q4_k_m.",
        )


def _groups(deployment: Deployment, model: Model) -> Iterator[Problem]:
    """Scales are shared by so many inputs of a matrix; a rank's share of the inputs must be whole groups."""
    stated = model.metadata.get("quantization.group_size")
    group = (
        stated if isinstance(stated, int) and not isinstance(stated, bool) else DEFAULT_GROUP.get(model.quantization)
    )
    ranks = ranks_of(deployment)
    if not group or group < 2 or deployment.engine not in ("vllm", "sglang", "tensorrt_llm"):
        return
    for kind in model.layers:
        tp, width = _shard(kind, deployment)
        if width and tp > 1 and (width % tp or width // tp % group):
            fitting = next((size for size in range(tp, 0, -1) if width % size == 0 and width // size % group == 0), 1)
            what = "expert" if kind.experts is not None else "layer"
            yield _problem(
                "error",
                "quantization_group",
                f"A width of {width:,} of each {what} on {tp} ranks is {width / tp:g}, which is no multiple of the "
                f"{group} inputs that share a scale.",
                f"Set tensor_parallel_size to {fitting}"
                + (", or enable_expert_parallel to true." if kind.experts is not None and ranks.ep <= 1 else "."),
            )
            return


def _shard(kind: LayerKind, deployment: Deployment) -> tuple[int, int]:
    ranks = ranks_of(deployment)
    if kind.experts is not None:
        return (1 if ranks.ep > 1 else ranks.tp), kind.experts.intermediate_size
    return ranks.tp, kind.intermediate_size


def _arithmetic(deployment: Deployment, model: Model, accelerator: Accelerator) -> Iterator[Problem]:
    dtype = (deployment.dtype or model.dtype or "").lower()
    capability = _capability(accelerator)
    engines = ("vllm", "sglang", "tensorrt_llm", "transformers")
    if dtype not in ("bfloat16", "bf16") or capability is None or deployment.engine not in engines:
        return
    if capability < BFLOAT16_CAPABILITY:
        # Left to themselves vLLM and SGLang compute in float16 there (vllm/config/model.py, sglang model_runner.py).
        falls_back = deployment.dtype is None and deployment.engine != "tensorrt_llm"
        yield _problem(
            "warning" if falls_back else "error",
            "dtype",
            f"bfloat16 needs compute capability {BFLOAT16_CAPABILITY}, and {accelerator.name} has {capability}"
            + (": the engine takes float16 by itself." if falls_back else "."),
            "Set dtype to float16.",
        )


def _keys_and_values(deployment: Deployment, model: Model, accelerator: Accelerator) -> Iterator[Problem]:
    asked = deployment.kv_cache_dtype
    if asked is None:
        return
    engine = "llamacpp" if deployment.engine == "ik_llamacpp" else deployment.engine
    known = KV_DTYPES.get(engine)
    names = [name.lower() for name in asked.split("/")] if engine == "llamacpp" else [asked.lower()]
    unknown = next((name for name in names if known is not None and name not in known), None)
    if unknown is not None and known is not None:
        smaller = SMALLER_KV.get(engine)
        yield _problem(
            "error",
            "kv_cache_dtype",
            f"{deployment.engine} keeps no keys and values as {unknown}.",
            f"Take one of {', '.join(known)}" + (f"; {smaller} for less memory." if smaller else "."),
        )
        return
    if names[0] in LATENT_KV and not any(kind.kv_lora_rank for kind in model.layers) and model.layers:
        yield _problem(
            "error",
            "kv_cache_dtype",
            f"{names[0]} stores the latent of multi-head latent attention, and {model.name} has none.",
            "Set kv_cache_dtype to fp8 for less memory.",
        )
        return
    if engine == "llamacpp" and deployment.flash_attn is False and names[-1] not in ("f32", "f16", "bf16", "auto"):
        yield _problem(
            "error",
            "kv_cache_dtype",
            f"Values as {names[-1]} need flash attention, which is off.",
            "Set flash_attn to true, or the values to f16.",
        )
    yield from _on_card(deployment, names[0], accelerator)


def _on_card(deployment: Deployment, dtype: str, accelerator: Accelerator) -> Iterator[Problem]:
    capability = _capability(accelerator)
    if capability is None or deployment.engine not in ("vllm", "sglang", "tensorrt_llm"):
        return
    if ("nvfp4" in dtype or dtype == "fp4_e2m1") and capability < FP4_KV_CAPABILITY:
        yield _problem(
            "error",
            "kv_cache_dtype",
            f"Keys and values as {dtype} need compute capability {FP4_KV_CAPABILITY}, and {accelerator.name} has "
            f"{capability}.",
            f"Set kv_cache_dtype to {'fp8' if capability >= FP8_KV_CAPABILITY else 'auto'}.",
        )
    elif dtype.startswith("fp8") and capability < FP8_KV_CAPABILITY:
        yield _problem(
            "warning",
            "kv_cache_dtype",
            f"{accelerator.name} (compute capability {capability}) computes nothing in fp8: keys and values take half "
            "the memory, and are converted when they are read.",
            "Set kv_cache_dtype to fp8_e5m2, which converts fastest, or to auto if decoding gets slower.",
        )
