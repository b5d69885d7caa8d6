"""vLLM's start-up log, of the first engine (V0) and of the second, on any device.

Wordings: vllm 0.5 to 0.33, vllm/worker/worker.py and vllm/v1/worker/gpu_worker.py, gpu_model_runner.py,
vllm/v1/core/kv_cache_utils.py, vllm/v1/engine/core.py.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from servolt.engines.logs.startup import GIB, RankLog, StartupLog
from servolt.engines.logs.text import Line, count, number, plain_value

__all__ = ["SIGNS", "WORDS", "parse"]

SIGNS = (
    "LLM engine (v",
    "vLLM API server",
    "Model loading took",
    "Loading model weights took",
    "model weights take",
    "Available KV cache memory",
    "KV cache size: ",
    "Free memory on device",
)

# Of all lines that are read.
WORDS = re.compile(
    r"Gi?B\b|LLM engine \(v|version|args: |KV cache size: |tokens per request|num_gpu_blocks|blocks: "
    r"|max_num_batched_tokens|memory.utilization|device_name=|GPU \d+: "
)
_FIGURE = r"(-?[\d.]{1,16}) ?Gi?B"  # it says GB in old versions and means GiB
# (wording, field of RankLog). Where several say the same, the later line of a log is the better one.
_TERMS = tuple(
    (re.compile(pattern.replace("#", _FIGURE)), field)
    for pattern, field in (
        (r"Loading model weights took #", "weights_bytes"),
        (r"Model loading took #", "weights_bytes"),
        (r"model weights take #", "weights_bytes"),
        (r"weights memory: #", "weights_bytes"),
        (r"Actual usage(?: is|:) # for weights?\b", "weights_bytes"),
        (r"PyTorch activation peak memory takes #", "activation_bytes"),
        (r"torch peak memory increase: #", "activation_bytes"),
        (r"# for peak activation", "activation_bytes"),
        (r"non_torch_memory takes #", "overhead_bytes"),
        (r"non-torch forward increase memory: #", "overhead_bytes"),
        (r"# for non-torch", "overhead_bytes"),
        (r"# for consumed memory", "consumed"),
        (r"# for (?:CUDAGraph|\w+ graph) memory", "larger_graph"),
        (r"Graph capturing finished in .{0,80}?took #", "graph_bytes"),
        (r"Estimated CUDA graph memory: #", "graph_estimate_bytes"),
        (r"CUDA graph pool memory: # \(actual\)", "graph_bytes"),
        (r"CUDA graph pool memory: .{0,80}?# \(estimated\)", "graph_estimate_bytes"),
        (r"the rest of the memory reserved for KV Cache is #", "kv_cache_bytes"),
        (r"Available KV cache memory: #", "kv_cache_bytes"),
        (r"reserved # memory for KV Cache as specified", "kv_cache_bytes"),
        (r"KV cache memory reduced to #", "kv_cache_bytes"),
        (r"kv cache memory in use is #", "kv_cache_bytes"),
        (r"total_gpu_memory \(#\)", "visible_bytes"),
        (r"Free memory on device[^(]{0,20}\([\d.]{1,16}/#\)", "visible_bytes"),
        (r"Initial free memory:? #", "free_before_bytes"),
    )
)
SIZE_TOLERANCE = 0.1  # of a block's size by the requests that fit, which are printed in hundredths
_FREE = re.compile(r"Free memory on device[^(]{0,20}\(([\d.]{1,16})/")
_START = re.compile(r"Initializing an? (?:V\d )?LLM engine \(v([^)\s]+)\) with config")
_SERVER = re.compile(r"vLLM API server version ([\w.+-]+)|█.* version (\d[\w.+-]*)")
_TOKENS = re.compile(r"\w+ KV cache size: ([\d,]+) tokens(, Maximum concurrency)?")
_CONCURRENCY = re.compile(r"Maximum concurrency for ([\d,]+) tokens per request: ([\d.]+)x")
_BLOCKS = re.compile(r"num_gpu_blocks is: (\d+)|# (?!CPU)(\w+) blocks: ([\d,]+)")
# Wordings of one engine only: the first was the only one up to 0.7 and is gone since 0.11.
_V0 = re.compile(
    r"model weights take|# (?!CPU)\w+ blocks: |a V0 LLM engine|Loading model weights took|PyTorch activation"
)
_V1 = re.compile(r"a V1 LLM engine|Available KV cache memory: |\w+ KV cache size: |EngineCore|Actual usage")
BLOCK_SIZE = 16  # tokens; of the first engine where nothing else is said, vllm 0.5 to 0.10
_UTILIZATION = re.compile(
    r"gpu_memory_utilization \(([\d.]+)\)|memory utilization is \(([\d.]+),"
    r"|gpu-memory-utilization=([\d.]+) is equivalent"
)
_BATCHED = re.compile(r"hunked prefill is enabled \(?with max_num_batched_tokens=(\d+)")
_DEVICE = re.compile(r"device_name=([\w-]+)|\bGPU \d+: (NVIDIA [\w -]+?)(?: \(UUID|$)")
_SPECULATION = re.compile(r"SpeculativeConfig\(([^)]{0,2000})\)")
_METHODS = ("draft_model", "eagle3", "eagle", "mtp", "medusa", "ngram")

# As the configuration of the engine prints them, all defaults filled in.
_CONFIGURED = {
    "max_seq_len": "max_model_len",
    "dtype": "dtype",
    "quantization": "quantization",
    "kv_cache_dtype": "kv_cache_dtype",
    "tensor_parallel_size": "tensor_parallel_size",
    "pipeline_parallel_size": "pipeline_parallel_size",
    "data_parallel_size": "data_parallel_size",
    "decode_context_parallel_size": "decode_context_parallel_size",
    "enforce_eager": "enforce_eager",
    "enable_prefix_caching": "enable_prefix_caching",
    "enable_chunked_prefill": "enable_chunked_prefill",
    "trust_remote_code": "trust_remote_code",
    "max_cudagraph_capture_size": "max_cudagraph_capture_size",
}
# As the server prints what it was asked for.
_ASKED = (
    "gpu_memory_utilization",
    "max_num_seqs",
    "max_num_batched_tokens",
    "max_model_len",
    "block_size",
    "kv_cache_dtype",
    "kv_cache_memory_bytes",
    "cpu_offload_gb",
    "enable_expert_parallel",
    "enable_lora",
    "max_loras",
    "max_lora_rank",
    "limit_mm_per_prompt",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "quantization",
    "enforce_eager",
)


class _Reader:
    """What the lines of one start have said so far."""

    def __init__(self) -> None:
        self.version: str | None = None
        self.settings: dict[str, Any] = {}
        self.asked: dict[str, Any] = {}
        self.clear()

    def clear(self) -> None:
        """A further start: what the one before it took says nothing about this one."""
        self.ranks: dict[str, dict[str, float]] = {}
        self.started: set[str] = set()
        self.tokens: dict[str, int] = {}
        self.blocks: dict[str, int] = {}
        self.concurrency: dict[str, float] = {}
        self.counted: dict[str, int] = {}  # blocks of the first engine, whose layers all have as many tokens
        self.generation: Literal["V0", "V1"] | None = None
        self.meaning: str | None = None
        self.accelerator: str | None = None

    def read(self, line: Line) -> None:
        self._start(line)
        self._asked(line)
        for pattern, field in _TERMS if "GiB" in line.text or "GB" in line.text else ():
            if found := pattern.search(line.text):
                self.ranks.setdefault(line.rank, {})[field] = number(found[1])
        if found := _FREE.search(line.text):
            self.ranks.setdefault(line.rank, {})["free_before_bytes"] = number(found[1])
        self._pool(line)
        if _V0.search(line.text):
            self.generation = "V0"
        elif self.generation is None and _V1.search(line.text):
            self.generation = "V1"
        if (found := _DEVICE.search(line.text)) and self.accelerator is None:
            self.accelerator = (found[1] or found[2]).replace("_", " ").strip()

    def _start(self, line: Line) -> None:
        if found := _SERVER.search(line.text):
            if self.ranks or self.started:
                self.clear()
            self.version = found[1] or found[2]
            self.settings, self.asked = {}, {}
        elif found := _START.search(line.text):
            if line.rank in self.started:
                self.clear()
            self.started.add(line.rank)
            self.version = found[1]
            self.settings = _configured(line.text)

    def _asked(self, line: Line) -> None:
        if "non-default args: " in line.text or "args: Namespace(" in line.text:
            stated = {name: plain_value(name, line.text) for name in _ASKED}
            self.asked = {name: value for name, value in stated.items() if value is not None}
            model = plain_value("model_tag", line.text) or plain_value("model", line.text)
            self.asked |= {"model": model} if isinstance(model, str) else {}
        if found := _UTILIZATION.search(line.text):
            self.asked.setdefault("gpu_memory_utilization", number(next(filter(None, found.groups()))))
        if found := _BATCHED.search(line.text):
            self.asked["max_num_batched_tokens"] = count(found[1])

    def _pool(self, line: Line) -> None:
        if found := _TOKENS.search(line.text):
            self.tokens[line.rank] = count(found[1])
            self.meaning = "length" if found[2] else "blocks"
        if found := _CONCURRENCY.search(line.text):
            self.settings.setdefault("max_model_len", count(found[1]))
            self.concurrency[line.rank] = number(found[2])
        if found := _BLOCKS.search(line.text):
            self.blocks[line.rank] = count(found[1] or found[3])
            if found[2]:
                self.counted[line.rank] = self.blocks[line.rank]


def parse(lines: Sequence[Line]) -> StartupLog:
    """Of the last start that the log holds."""
    reader = _Reader()
    for line in lines:
        reader.read(line)
    stated = {**reader.settings, **reader.asked}
    model = stated.pop("model", None)
    settings = {name: value for name, value in stated.items() if value is not None and _is_asked(name, value)}
    parallel = [settings.get(f"{name}_parallel_size", 1) for name in ("tensor", "pipeline", "data")]
    is_stated = any(name.endswith("_parallel_size") for name in settings)
    ranks = tuple(_rank(rank, said) for rank, said in reader.ranks.items() if said)
    return StartupLog(
        engine="vllm",
        engine_version=reader.version,
        generation=reader.generation,
        model=model,
        accelerator=reader.accelerator,
        devices=parallel[0] * parallel[1] * parallel[2] if is_stated else None,
        settings=settings,
        at_default=tuple(name for name in stated if name not in settings),
        ranks=ranks,
        kv_cache_tokens=min(reader.tokens.values(), default=_tokens_of_blocks(reader, settings)),
        tokens_meaning="length"
        if reader.meaning == "length"
        else "blocks"
        if reader.meaning or reader.counted
        else None,
        num_gpu_blocks=min(reader.blocks.values(), default=None),
        max_concurrency=min(reader.concurrency.values(), default=None),
    )


def _tokens_of_blocks(reader: _Reader, settings: Mapping[str, Any]) -> int | None:
    """The first engine says blocks only. How long a block is, its line of concurrency tells, else the settings."""
    blocks = min(reader.counted.values(), default=None)
    if blocks is None:
        return None
    size, length = settings.get("block_size") or BLOCK_SIZE, settings.get("max_model_len")
    requests = min(reader.concurrency.values(), default=None)
    if requests and length and blocks:
        told = 2 ** round(math.log2(max(1.0, requests * length / blocks)))
        size = told if abs(requests * length / blocks / told - 1) < SIZE_TOLERANCE else size
    return int(blocks * size)


def _configured(text: str) -> dict[str, Any]:
    stated = {name: plain_value(printed, text) for printed, name in _CONFIGURED.items()}
    stated["model"] = plain_value("model", text)
    if isinstance(stated["dtype"], str):
        stated["dtype"] = stated["dtype"].removeprefix("torch.")
    if found := _SPECULATION.search(text):
        stated["speculative_config"] = _speculation(found[1])
    return {name: value for name, value in stated.items() if value is not None}


def _speculation(text: str) -> dict[str, Any] | None:
    """None for a method that has no name here."""
    said = str(plain_value("method", text) or "")
    method = next((name for name in _METHODS if name in said), None)
    if method is None:
        return None
    tokens = plain_value("num_spec_tokens", text)
    found = {"method": method, "model": plain_value("model", text), "num_speculative_tokens": tokens}
    return {name: value for name, value in found.items() if value is not None}


def _is_asked(name: str, value: Any) -> bool:
    """What says no more than the engine's default is left open, as a deployment leaves it."""
    if name == "kv_cache_dtype":
        return bool(value != "auto")
    if name in ("cpu_offload_gb", "max_loras", "max_lora_rank", "limit_mm_per_prompt"):
        return bool(value)
    return not (value is False and name not in ("enable_prefix_caching", "enable_chunked_prefill"))


def _rank(rank: str, said: dict[str, float]) -> RankLog:
    """`consumed` holds weights and what isn't torch's; the last line's graphs are the larger of both figures."""
    if "consumed" in said and "weights_bytes" in said and "overhead_bytes" not in said:
        said["overhead_bytes"] = round(said["consumed"] - said["weights_bytes"], 2)
    if "larger_graph" in said and "graph_bytes" not in said:
        said["graph_bytes"] = said["larger_graph"]
    sizes = {name: round(size * GIB) for name, size in said.items() if name in RankLog.model_fields and size >= 0}
    stage = re.search(r"PP(\d+)", rank)
    return RankLog(rank=rank, stage=int(stage[1]) if stage else 0, **sizes)
