"""SGLang's start-up log, and its answer to GET /server_info.

It says GB and means GiB. Wordings: sglang 0.4 to 0.5.23, sglang/srt/model_executor/model_runner.py,
sglang/srt/mem_cache/memory_pool.py, swa_memory_pool.py, sglang/srt/managers/scheduler.py.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from servolt.engines.logs.startup import GIB, RankLog, StartupLog
from servolt.engines.logs.text import Line, number, plain_value

__all__ = ["SIGNS", "WORDS", "parse", "parse_server_info", "server_info"]

SIGNS = ("ServerArgs(", "Load weight end", "KV Cache is allocated", "max_total_num_tokens=", "DSV4 pool sizes")

# Of all lines that are read.
WORDS = re.compile(r"GB\b|ServerArgs|max_total_num_tokens=|DSV4|version|sglang==|device_name=|GPU \d+: ", re.IGNORECASE)
_FIGURE = r"([\d.]{1,16}) ?GB"
_BEGIN = re.compile(rf"Load weight begin\. avail mem={_FIGURE}")
_LOADED = re.compile(r"Load weight end\.")
_USAGE = re.compile(rf"mem usage={_FIGURE}")
_AVAILABLE = re.compile(rf"avail mem={_FIGURE}")
_POOL = re.compile(r"KV Cache is allocated\.")
_TOKENS = re.compile(r"#tokens: ([\d,]+)")
_SIZES = re.compile(rf"\b(?:KV|K|V) size: {_FIGURE}")
_SLIDING = re.compile(rf"SWAKVPool mem usage: {_FIGURE}")
_STATE = re.compile(r"Mamba Cache is allocated\.")
_STATE_SIZES = re.compile(rf"(?:conv_state|ssm_state|intermediate_\w+) size: {_FIGURE}")
_COMPRESSED = re.compile(r"DSV4 pool sizes: full=(\d+)")
_GRAPHS = re.compile(r"Capture .{0,60}(?:cuda|CUDA) graph end\.")
_FINAL = re.compile(r"max_total_num_tokens=(\d+)")
_LEFT = re.compile(rf"available_gpu_mem={_FIGURE}")
_VERSION = re.compile(r"\bsglang(?: version|_version|==)?[ :=]+v?(\d+\.\d+\.\d+[\w.+]*)", re.IGNORECASE)
_DEVICE = re.compile(r"device_name=([\w-]+)|\bGPU \d+: (NVIDIA [\w -]+?)(?: \(UUID|$)")
_DTYPE = re.compile(r"Load weight end\..{0,200}?dtype=torch\.(\w+)")

# Its own names, and a deployment's.
_SETTINGS = {
    "dtype": "dtype",
    "quantization": "quantization",
    "kv_cache_dtype": "kv_cache_dtype",
    "mem_fraction_static": "mem_fraction_static",
    "context_length": "max_model_len",
    "max_running_requests": "max_num_seqs",
    "tp_size": "tensor_parallel_size",
    "pp_size": "pipeline_parallel_size",
    "dp_size": "data_parallel_size",
    "ep_size": "expert_parallel_size",
    "enable_dp_attention": "enable_dp_attention",
    "page_size": "block_size",
    "swa_full_tokens_ratio": "swa_full_tokens_ratio",
    "cuda_graph_max_bs": "max_cudagraph_capture_size",
    "cuda_graph_max_bs_decode": "max_cudagraph_capture_size",
    "trust_remote_code": "trust_remote_code",
}
# Handed through under their own names.
_ARGUMENTS = ("max_total_tokens", "speculative_algorithm")
_DEFAULTS = (None, "auto", False)


class _Rank:
    def __init__(self) -> None:
        self.weights: list[float] = []
        self.pools: list[float] = []
        self.state: list[float] = []
        self.graphs: list[float] = []
        self.begin: float | None = None
        self.before: float | None = None
        self.left: float | None = None
        self.tokens: int | None = None


class _Reader:
    """What the lines of one start have said so far. Weights and pools of a draft model come on top of the target's."""

    def __init__(self) -> None:
        self.version: str | None = None
        self.accelerator: str | None = None
        self.dtype: str | None = None
        self.arguments = ""
        self.final = ""
        self.ranks: dict[str, _Rank] = {}

    def read(self, line: Line) -> None:
        if "server_args=" in line.text or "ServerArgs(" in line.text:
            self.arguments, self.final = line.text, ""
            self.ranks = {}
        if found := _VERSION.search(line.text):
            self.version = found[1]
        if (found := _DEVICE.search(line.text)) and self.accelerator is None:
            self.accelerator = (found[1] or found[2]).replace("_", " ").strip()
        if found := _DTYPE.search(line.text):
            self.dtype = self.dtype or found[1]
        rank = self.ranks.setdefault(line.rank, _Rank())
        self._weights(rank, line.text)
        self._pools(rank, line.text)
        if _GRAPHS.search(line.text):
            rank.graphs += _figures(_USAGE, line.text)
        if found := _FINAL.search(line.text):
            self.final = line.text
            rank.tokens = int(found[1])
            rank.left = next(_figures(_LEFT, line.text), rank.left)

    def _weights(self, rank: _Rank, text: str) -> None:
        if found := _BEGIN.search(text):
            rank.begin = number(found[1])
            rank.before = rank.begin if rank.before is None else rank.before
        if _LOADED.search(text):
            usage, after = next(_figures(_USAGE, text), None), next(_figures(_AVAILABLE, text), None)
            if usage is None and rank.begin is not None and after is not None:
                usage = round(rank.begin - after, 2)
            rank.weights += [] if usage is None else [usage]

    def _pools(self, rank: _Rank, text: str) -> None:
        if _POOL.search(text):
            rank.pools += [sum(_figures(_SIZES, text))] if _SIZES.search(text) else []
            if (found := _TOKENS.search(text)) and rank.tokens is None:
                rank.tokens = int(number(found[1]))
        if found := _SLIDING.search(text):  # the sum over the two pools before it
            rank.pools = [*rank.pools[:-2], number(found[1])]
        if _STATE.search(text):
            rank.state += [sum(_figures(_STATE_SIZES, text))]
        if found := _COMPRESSED.search(text):
            rank.tokens = int(found[1])


def parse(lines: Sequence[Line]) -> StartupLog:
    """Of the last start that the log holds."""
    reader = _Reader()
    for line in lines:
        reader.read(line)
    settings = _settings({name: plain_value(name, reader.arguments) for name in (*_SETTINGS, *_ARGUMENTS)})
    settings |= _batch(reader)
    defaults = ("kv_cache_dtype",) if plain_value("kv_cache_dtype", reader.arguments) == "auto" else ()
    if reader.dtype is not None:
        settings["dtype"] = reader.dtype
    tokens = [one.tokens for one in reader.ranks.values() if one.tokens is not None]
    model = plain_value("model_path", reader.arguments)
    return StartupLog(
        engine="sglang",
        engine_version=reader.version,
        model=model if isinstance(model, str) else None,
        accelerator=reader.accelerator,
        devices=_devices(settings) if reader.arguments else None,
        settings=settings,
        at_default=defaults,
        ranks=tuple(one for name, said in reader.ranks.items() if (one := _rank(name, said)) is not None),
        kv_cache_tokens=min(tokens, default=None),
    )


def parse_server_info(plain: Mapping[str, Any]) -> StartupLog:
    """What GET /server_info answers: the arguments, and the memory of the ranks."""
    states = plain.get("internal_states") or [plain]
    usages = [state.get("memory_usage") or {} for state in states if isinstance(state, Mapping)]
    fields = {"weight": "weights_bytes", "kvcache": "kv_cache_bytes", "graph": "graph_bytes"}
    ranks = []
    for place, usage in enumerate(usages):
        sizes = {field: round(float(usage[name]) * GIB) for name, field in fields.items() if _is_size(usage.get(name))}
        if sizes:
            ranks.append(RankLog(rank=f"DP{place}" if len(usages) > 1 else "", **sizes))
    capacities = [round(usage["token_capacity"]) for usage in usages if _is_size(usage.get("token_capacity"))]
    settings = _settings({name: plain.get(name) for name in (*_SETTINGS, *_ARGUMENTS)})
    chunk = plain.get("chunked_prefill_size")
    settings |= {"max_num_batched_tokens": chunk} if isinstance(chunk, int) and chunk > 0 else {}
    version, model = plain.get("version"), plain.get("model_path")
    return StartupLog(
        engine="sglang",
        engine_version=version if isinstance(version, str) else None,
        model=model if isinstance(model, str) else None,
        devices=_devices(settings),
        settings=settings,
        ranks=tuple(ranks),
        kv_cache_tokens=min(capacities, default=None),
    )


def server_info(text: str) -> Mapping[str, Any] | None:
    """The object that the text is, if it is one with memory in it."""
    try:
        plain = json.loads(text)
    except ValueError:
        return None
    is_one = isinstance(plain, dict) and ("internal_states" in plain or "memory_usage" in plain)
    return plain if is_one else None


def _figures(pattern: re.Pattern[str], text: str) -> Iterator[float]:
    return (number(found) for found in pattern.findall(text))


def _is_size(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def _settings(stated: Mapping[str, Any]) -> dict[str, Any]:
    """As a deployment has them: what is the engine's default is left open."""
    settings = {ours: stated.get(name) for name, ours in _SETTINGS.items() if stated.get(name) not in _DEFAULTS}
    given = {name: stated[name] for name in _ARGUMENTS if stated.get(name) not in _DEFAULTS}
    return settings | ({"engine_args": given} if given else {})


def _batch(reader: _Reader) -> dict[str, Any]:
    """The last line says what became of the settings that the engine fills in by itself."""
    found: dict[str, Any] = {}
    text = reader.final or reader.arguments
    chunk, context = plain_value("chunked_prefill_size", text), plain_value("context_len", text)
    if isinstance(chunk, int) and chunk > 0:
        found["max_num_batched_tokens"] = chunk
    elif isinstance(chunk, int):
        found["enable_chunked_prefill"] = False
    if isinstance(context, int):
        found["max_model_len"] = context
    return found


def _devices(settings: Mapping[str, Any]) -> int:
    sizes = {name: settings.get(f"{name}_parallel_size") or 1 for name in ("tensor", "pipeline", "data")}
    copies = 1 if settings.get("enable_dp_attention") else sizes["data"]
    return int(sizes["tensor"] * sizes["pipeline"] * copies)


def _rank(name: str, said: _Rank) -> RankLog | None:
    lists = {
        "weights_bytes": said.weights,
        "kv_cache_bytes": said.pools,
        "state_bytes": said.state,
        "graph_bytes": said.graphs,
    }
    sizes = {field: round(sum(figures) * GIB) for field, figures in lists.items() if figures}
    if said.before is not None:
        sizes["free_before_bytes"] = round(said.before * GIB)
    if said.left is not None:
        sizes["free_after_bytes"] = round(said.left * GIB)
    stage = re.search(r"PP(\d+)", name)
    return RankLog(rank=name, stage=int(stage[1]) if stage else 0, **sizes) if sizes else None
