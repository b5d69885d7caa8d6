"""What other programs write when they have measured a server, as rows of `servolt calibrate --import`.

`vllm bench serve --save-result` (vllm/benchmarks/serve.py of 2026), `sglang.bench_serving --output-file`
(sglang 0.5.5), `llama-bench -o json` and `-o jsonl` (llama.cpp of 2026), and GuideLLM's benchmarks.json (0.8.1).
Of these only llama-bench names the device: else it is said beside them.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from servolt.errors import InvalidInputError

__all__ = ["rows_of"]

Row = dict[str, Any]

# (their name without statistic, ours); the median where they give it, as it is what the constants were fitted on.
TIMES = (("ttft_ms", "ttft_ms"), ("tpot_ms", "tpot_ms"), ("itl_ms", "itl_ms"), ("e2el_ms", "e2el_ms"))
SGLANG_TIMES = (*TIMES[:3], ("e2e_latency_ms", "e2el_ms"))
# Its time_per_output_token_ms counts the first token too; what it calls between tokens is what tpot means here.
GUIDELLM_TIMES = (("time_to_first_token_ms", "ttft_ms"), ("inter_token_latency_ms", "tpot_ms"))
# What users add with --metadata, under these names.
STATED = (
    *("accelerator", "gpu", "hardware", "count", "n_gpus", "engine", "engine_version", "version", "quantization"),
    *("precision", "kv_cache_dtype", "tp", "tp_size", "tensor_parallel_size", "pp", "dp", "ep"),
    *("pipeline_parallel_size", "data_parallel_size", "max_num_seqs", "max_num_batched_tokens", "max_model_len"),
)
SERVED = 0.9  # of the asked rate: with less the server, or the cap on what is in flight, was the limit
ALL_LAYERS = 99  # llama-bench's own default, and more than any model has that it is given for


def rows_of(plain: Mapping[str, Any]) -> list[Row] | None:
    """None where it is of none of them. Raises InvalidInputError for a run without a load that repeats."""
    if "build_number" in plain and "avg_ts" in plain:
        return list(_llama_bench(plain))
    if isinstance(plain.get("benchmarks"), list):
        return [row for one in plain["benchmarks"] if isinstance(one, Mapping) for row in _guidellm(one)]
    if "total_output_tokens" in plain and "completed" in plain:
        return [_serving(plain)]
    return None


def _serving(plain: Mapping[str, Any]) -> Row:
    is_sglang = "mean_e2e_latency_ms" in plain or str(plain.get("backend", "")).startswith("sglang")
    completed, sent, made = (_first(plain, name) for name in ("completed", "total_input_tokens", "total_output_tokens"))
    if completed is None:
        raise InvalidInputError("no request of it came to an end.", "Leave the run out.")
    if sent is None or made is None:
        raise InvalidInputError("it says not how long prompts and answers were.", "Leave the run out.")
    server = plain.get("server_info") if isinstance(plain.get("server_info"), Mapping) else {}
    row: Row = {name: plain[name] for name in STATED if plain.get(name) is not None}
    row |= {"engine": row.get("engine", "sglang" if is_sglang else None), "model": plain.get("model_id")}
    if is_sglang and server:
        row |= {"model": server.get("model_path"), "engine_version": server.get("version")}
        row |= {"tensor_parallel_size": server.get("tp_size"), "data_parallel_size": server.get("dp_size")}
    row |= _load(plain)
    row["input_len"], row["output_len"] = max(1, round(sent / completed)), max(1, round(made / completed))
    for theirs, ours in SGLANG_TIMES if is_sglang else TIMES:
        row[ours] = _first(plain, f"median_{theirs}", f"mean_{theirs}")
    row |= {name: _first(plain, name) for name in ("output_throughput", "request_throughput")}
    return {name: value for name, value in row.items() if value is not None}


def _load(plain: Mapping[str, Any]) -> Row:
    """Streams in flight, or requests at a rate, whichever was the limit."""
    streams, rate = _first(plain, "max_concurrency"), _first(plain, "request_rate")
    if rate is not None and math.isinf(rate):
        rate = None
    served = _number(plain.get("request_throughput"))
    if rate is not None and (streams is None or (served is not None and served >= SERVED * rate)):
        return {"request_rate": rate}
    if streams is None:
        raise InvalidInputError(
            "all its requests were sent at once: that is no load that repeats.",
            "Measure with --max-concurrency or a finite --request-rate.",
        )
    return {"concurrency": round(streams)}


def _llama_bench(plain: Mapping[str, Any]) -> Iterator[Row]:
    """A prompt alone, or one stream of tokens; tests of both in one tell neither."""
    prompt, tokens = (_number(plain.get(name)) or 0.0 for name in ("n_prompt", "n_gen"))
    rate, depth = _number(plain.get("avg_ts")), _number(plain.get("n_depth")) or 0.0
    if not rate or (prompt > 0) == (tokens > 0):
        return
    devices = [name.strip() for name in str(plain.get("gpu_info") or "").split(",") if name.strip()]
    layers = _number(plain.get("n_gpu_layers"))
    row: Row = {
        "engine": "llamacpp",
        "engine_version": f"b{plain['build_number']}",
        "model": plain.get("model_filename"),
        "accelerator": devices[0] if devices else plain.get("cpu_info") or None,
        "count": len(devices) if len(devices) > 1 else None,
        "max_num_batched_tokens": plain.get("n_batch"),
        "ubatch_size": plain.get("n_ubatch"),
        "kv_cache_dtype": None if plain.get("type_k") in (None, "f16") else plain["type_k"],
        "n_gpu_layers": round(layers) if layers is not None and 0 <= layers < ALL_LAYERS else None,
        "concurrency": 1,
        "input_len": max(1, round(prompt or depth)),
        "output_len": max(1, round(tokens)),
    }
    row |= {"prefill_throughput": rate} if prompt else {"tpot": 1.0 / rate}
    yield {name: value for name, value in row.items() if value is not None}


def _guidellm(plain: Mapping[str, Any]) -> Iterator[Row]:
    metrics = plain.get("metrics")
    strategy = _inner(plain, "config", "strategy")
    if not isinstance(metrics, Mapping) or strategy is None:
        return
    rate, streams = _number(strategy.get("rate")), _number(strategy.get("streams"))
    kind = str(strategy.get("type_") or "")
    if kind == "synchronous":
        streams = 1.0
    if streams is None and (rate is None or kind == "throughput"):
        return
    row: Row = {"concurrency": round(streams)} if streams is not None else {"request_rate": rate}
    for theirs, ours in (("prompt_token_count", "input_len"), ("output_token_count", "output_len")):
        value = _statistic(metrics, theirs, "mean")
        row[ours] = None if value is None else max(1, round(value))
    for theirs, ours in GUIDELLM_TIMES:
        row[ours] = _statistic(metrics, theirs, "median")
    yield {name: value for name, value in row.items() if value is not None}


def _statistic(metrics: Mapping[str, Any], name: str, statistic: str) -> float | None:
    found = _inner(metrics, name, "successful")
    return None if found is None else _first(found, statistic, "mean")


def _inner(plain: Mapping[str, Any], *names: str) -> Mapping[str, Any] | None:
    found: Any = plain
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else None


def _first(plain: Mapping[str, Any], *names: str) -> float | None:
    """The first of them that is there and above 0: what was not measured they write as 0."""
    numbers = (_number(plain.get(name)) for name in names)
    return next((number for number in numbers if number is not None and number > 0), None)


def _number(value: Any) -> float | None:
    """None for what is none; `inf` is a number, as they write a rate without a limit."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return None if math.isnan(number) else number
