"""What the cells of a case say, as fields of a deployment. An empty cell says nothing: the engine's default holds."""

import re
from collections.abc import Mapping
from typing import Any

from servolt.catalogue import find_accelerator
from servolt.errors import ServoltError
from servolt.model.quantization import words_of

__all__ = [
    "GIB",
    "MIB",
    "Row",
    "asked_format",
    "count",
    "hardware",
    "largest_of_devices",
    "memory_of",
    "number",
    "options",
    "scaled",
]

Row = Mapping[str, str]

MIB, GIB = 2**20, 2**30
# A card's own size, as its label says it, may differ from what is seen of it; this far off it is another one.
LABEL_TOLERANCE = 0.06
# Formats that are the checkpoint's own, whatever it is: nothing is asked for.
AS_IT_IS = frozenset({"", "bf16", "bfloat16", "fp16", "unset", "compressed-tensors", "auto", "none"})
# What cases call a format -> what a deployment asks for.
FORMATS = {
    "4-bit": "int4",
    "uint4": "int4",
    "gptq_marlin": "gptq",
    "deepseek_v4_fp8": None,
    "w8a8_fp8": "fp8_dynamic",
    "w8a8_int8": "w8a8",
    "modelopt_fp4": "nvfp4",
    "modelopt nvfp4": "nvfp4",
    "fp4": "nvfp4",
}
FOUR_BITS = frozenset({"int4", "nvfp4", "mxfp4", "awq", "gptq", "w4a16", "q4_0", "q4_k_m", "q4_k_xl"})
# The same word means the engine's own format of so many bits.
OF_ENGINE = {
    "llamacpp": {"int4": "q4_0", "int8": "q8_0", "nvfp4": "nvfp4", "4bit": "q4_k_m", "8bit": "q8_0"},
    "mlx": {"4bit": "mlx-4bit", "8bit": "mlx-8bit", "int4": "mlx-4bit", "q4_k_m": "mlx-4bit"},
}
# What stands in for formats that only one fork has.
BITS = {"2": "q2_k", "3": "q3_k_m", "4": "int4", "5": "q5_k_m", "6": "q6_k", "8": "int8"}
# Options that a deployment has a field for, under the names that engines give them.
FIELDS = {
    "tp": "tensor_parallel_size",
    "tp_size": "tensor_parallel_size",
    "pp_size": "pipeline_parallel_size",
    "quantization": None,  # has a column of its own
    "dtype": None,
    "max_total_tokens": None,
    "cuda_graph_max_bs": "max_cudagraph_capture_size",
    "cuda_graph_max_bs_decode": "max_cudagraph_capture_size",
    "max_loras_per_batch": "max_loras",
    "kv_cache_dtype": "kv_cache_dtype",
    "mem_fraction_static": "mem_fraction_static",
    "gpu_memory_utilization": "gpu_memory_utilization",
    "max_model_len": "max_model_len",
    "max_num_batched_tokens": "max_num_batched_tokens",
    "block_size": "block_size",
    "enable_prefix_caching": "enable_prefix_caching",
    "enforce_eager": "enforce_eager",
    "enable_lora": "enable_lora",
    "max_lora_rank": "max_lora_rank",
    "max_num_seqs": "max_num_seqs",
}
# --flag value, 'name': value, name=value, and name value where the name is one with underscores.
OPTION = re.compile(
    r"(?:--(?P<flag>[a-z][a-z0-9-]+)(?:[ =](?P<value>(?!-[a-z-])[^\s,;]+))?)"
    r"|(?:'?(?P<name>[a-z]+(?:_[a-z0-9]+)+)'?(?:\s*[:=]\s*|\s+)'?(?P<set>-?[A-Za-z0-9_.]+)'?)"
    r"|(?P<word>\benforce[_-]eager\b)"
)
HELD_BACK = frozenset({"image", "audio", "video"})


def number(row: Row, name: str) -> float | None:
    try:
        return float(row.get(name) or "")
    except ValueError:
        return None


def count(row: Row, name: str) -> int | None:
    found = number(row, name)
    return int(found) if found and found >= 1 else None


def scaled(row: Row, name: str, scale: float) -> float | None:
    """None for 0 too: what logs round to nothing says nothing."""
    found = number(row, name)
    return found * scale if found else None


def hardware(name: str, devices: int | None, memory_gib: float | None = None, cpu: str = "") -> dict[str, Any] | None:
    """`memory_gib` is what is seen of one device. None where nothing is said: this machine."""
    if name.lower().startswith("cpu only"):
        return {"accelerator": cpu if _known(cpu) else "CPU only"}
    if not _known(name):
        if not memory_gib:
            return None
        name = f"{memory_gib:g} GiB visible"
    found: dict[str, Any] = {"accelerator": name, "count": max(1, devices or 1)}
    return found | ({"memory_bytes": round(memory_gib * GIB)} if memory_gib else {})


def with_label(name: str, memory_gb: float | None) -> str:
    """A card that is sold in several sizes, with the size that it has."""
    if not memory_gb or not _known(name):
        return name
    label = find_accelerator(name).memory_bytes / GIB
    sized = f"{name} {memory_gb:g}GB"
    return sized if abs(label / memory_gb - 1) > LABEL_TOLERANCE and _known(sized) else name


def memory_of(name: str) -> int:
    """Bytes of one device; 0 where it is not known."""
    return find_accelerator(name).memory_bytes if _known(name) else 0


def _known(name: str) -> bool:
    try:
        return bool(name) and bool(find_accelerator(name).name)
    except ServoltError:
        return False


def asked_format(words: str, own: str | None, engine: str = "vllm") -> str | None:
    """What a deployment asks for; None where it is what the checkpoint holds already.

    >>> asked_format("fp4", "mxfp4"), asked_format("fp8", "bfloat16"), asked_format("Q4_K - Medium", None)
    (None, 'fp8', 'q4_k_m')
    """
    plain = words.strip().lower()
    if plain in ("bf16", "bfloat16") and own not in (None, "bfloat16", "float16", "float32"):
        return "bf16"
    if plain in AS_IT_IS or plain.startswith("unknown"):
        return "f16" if plain == "fp16" and engine == "llamacpp" else None
    plain = re.sub(r"^(mostly|ud-|unsloth-dynamic-)\s*", "", re.sub(r" - [\d.]+ bpw.*$", "", plain))
    plain = re.sub(r"_k - (s|m|l)\w*$", r"_k_\1", plain)
    asked = FORMATS.get(plain, plain)
    asked = OF_ENGINE.get(engine, {}).get(asked or "", asked)
    if asked is not None and words_of(asked) is None:
        asked = _of_bits(asked, engine)
    if asked is None or asked == own or (asked in FOUR_BITS and own in ("int4", "nvfp4", "mxfp4")):
        return None
    return asked


def _of_bits(words: str, engine: str) -> str | None:
    """Formats of forks, by their bits; None where the name tells none."""
    bits = re.search(r"[2-8]", words)
    plain = BITS.get(bits[0]) if bits else None
    return OF_ENGINE.get(engine, {}).get(plain or "", plain)


def options(words: str, engine: str) -> dict[str, Any]:
    """Options that stand in one cell, as on a command line or as in a log; what has no field goes to `engine_args`.

    >>> options("--mem-fraction-static 0.8 --disable-radix-cache, EAGLE draft", "sglang")["mem_fraction_static"]
    0.8
    """
    found: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for match in OPTION.finditer(words):
        name = (match["flag"] or match["name"] or match["word"]).replace("-", "_")
        value = _value(match["value"] if match["flag"] else match["set"] if match["name"] else None)
        field = FIELDS.get(name, name)
        if name in FIELDS and field is not None:
            found[field] = value
        elif match["flag"] or name in ("chunked_prefill_size", "max_total_tokens"):
            others[name] = value
    for name in ("quantization", "dtype"):
        others.pop(name, None)
    if images := re.search(r"limit_mm_per_prompt ((?:\w+=\d+ ?)+)", words):
        found["limit_mm_per_prompt"] = {
            kind: int(most) for kind, most in re.findall(r"(\w+)=(\d+)", images[1]) if kind in HELD_BACK
        }
    if re.search(r"\bLoRA\b[^;]*enabled", words):
        found["enable_lora"] = True
    if engine in ("vllm", "sglang") and re.search(r"EAGLE|NextN|\bMTP\b", words):
        found["speculative_config"] = {"method": "eagle" if "EAGLE" in words else "mtp", "num_speculative_tokens": 3}
    return found | ({"engine_args": others} if others else {})


def _value(text: str | None) -> str | int | float | bool:
    if text is None or text in ("True", "False"):
        return text != "False"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def largest_of_devices(words: str) -> float | None:
    """MiB of the device that has the most, the host's left out where there are devices.

    >>> largest_of_devices("CUDA0 compute buffer size = 640.01; CUDA1 640.02; CUDA_Host compute buffer size = 72.0")
    640.02
    """
    sizes = [(part.strip(), re.findall(r"\d+(?:\.\d+)?", part)) for part in words.split(";") if part.strip()]
    devices = [float(found[-1]) for name, found in sizes if found and "Host" not in name and not name.startswith("CPU")]
    hosts = [float(found[-1]) for name, found in sizes if found and name.startswith("CPU ")]
    return max(devices, default=max(hosts, default=0.0)) or None
