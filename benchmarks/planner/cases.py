"""Cases from CSV files: what was deployed, under which load, and what was seen. Unknown columns are ignored."""

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.planner.classes import classes_of
from benchmarks.planner.columns import (
    GIB,
    MIB,
    Row,
    asked_format,
    count,
    hardware,
    largest_of_devices,
    memory_of,
    number,
    options,
    scaled,
    with_label,
)
from benchmarks.planner.engines import engine_of
from benchmarks.planner.names import Configs, Named, family_of, format_in
from benchmarks.planner.traps import trap_of
from servolt.model import Model

__all__ = ["Case", "crowd_cases", "memory_cases", "speed_cases", "unstated_input"]

# Where a row says no lengths: people's questions with a system prompt, and answers of a chat.
UNSTATED_INPUT, UNSTATED_OUTPUT = 400, 512
# About, of the tasks of ML.ENERGY's leaderboard, whose rows say no lengths of prompts: what their rates imply, with the
# time that pictures take in their encoder.
TASK_INPUT = {"gpqa": 300, "lm-arena-chat": 250, "sourcegraph-fim": 900, "image-chat": 1800, "video-chat": 4500}
# Mean tokens of a prompt and of an answer in MLPerf's data sets, which its rows don't repeat (about; OpenOrca,
# LongBench and others, CNN/DailyMail, five sets of reasoning, OpenOrca with GSM8K and MBXP).
MLPERF_LENGTHS = {
    "llama2-70b": (294, 294),
    "llama3.1-405b": (9428, 685),
    "llama3.1-8b": (778, 128),
    "deepseek-r1": (800, 3886),
    "mixtral-8x7b": (294, 145),
}
WEIGHTS_SHARE = 0.6  # of a device's memory, where a copy of the model has to leave room for its streams
MLPERF_STREAMS = 512  # of one device: its Offline and Server rows keep devices full
# Engines that give each device some of the layers.
SPREADING_LAYERS = ("llamacpp", "ik_llamacpp", "exllamav2", "mlx")
# Of one prefill or decode worker: workers/tp/pp/dp/moe_tp/ep/batch.
WORKER = re.compile(r"(prefill|decode) (\d*)/(\d*)/(\d*)/(\d*)/(\d*)/(\d*)/(\d*)")


@dataclass(frozen=True)
class Case:
    """`classes` are what errors are shown by; `group` is left out as a whole when constants are fitted."""

    id: str
    kind: str  # memory, or how the speed was measured: agg, disagg, llama-bench, crowd ...
    deployment: dict[str, Any]
    workload: dict[str, Any] | None
    seen: dict[str, float]
    classes: tuple[str, ...]
    group: str
    trap: str | None = None  # why it counts for no score
    key: str = ""  # equal for one deployment at several loads
    config: Path | None = None
    label: str = ""  # the model's name as the row has it
    status: str = ""


def memory_cases(folder: Path, configs: Configs) -> Iterator[Case]:
    for row in _rows(folder, "memory_cases*.csv"):
        yield _memory_case(row, configs)


def speed_cases(folder: Path, configs: Configs) -> Iterator[Case]:
    for row in _rows(folder, "perf_cases*.csv"):
        yield _speed_case(row, configs)


def crowd_cases(folder: Path, configs: Configs) -> Iterator[Case]:
    for row in _rows(folder, "crowd_cases*.csv"):
        yield _crowd_case(row, configs)


def _rows(folder: Path, pattern: str) -> Iterator[Row]:
    for path in sorted(folder.glob(pattern)):
        with path.open(newline="", encoding="utf-8") as lines:
            yield from csv.DictReader(lines)


def _memory_case(row: Row, configs: Configs) -> Case:
    engine = engine_of(row["engine"], row.get("engine_version", ""), row.get("date", ""))
    billions = re.match(r"[\d.]+", row.get("ll_params_b", ""))
    named = configs.find(row["model"], float(billions[0]) * 1e9 if billions else None)
    is_llama = engine.name in SPREADING_LAYERS
    words = row.get("quant") or row.get("model_variant") or ""
    deployment = _deployment(row, engine, named, words) | {
        "hardware": hardware(row.get("gpu", ""), count(row, "n_gpus"), number(row, "gpu_visible_gib"))
        or {"accelerator": "CPU only" if is_llama else "80 GiB visible"},  # what stands in where none is named
        "dtype": row.get("dtype") or None,
        "max_model_len": count(row, "max_model_len"),
        "max_num_seqs": count(row, "max_num_seqs"),
        "max_num_batched_tokens": count(row, "max_num_batched_tokens"),
        "block_size": count(row, "block_size"),
        "mem_fraction_static" if engine.name == "sglang" else "gpu_memory_utilization": number(row, "gpu_mem_util"),
    }
    remarks = f"{row.get('other_args', '')}; {' '.join(row['model'][:200].split()[1:])}"
    deployment = _set(deployment) | (_llama(row) if is_llama else options(remarks, engine.name))
    return _case(
        row,
        "memory",
        deployment,
        None,
        _seen_of_llama(row, engine.name) if is_llama else _seen_of_pool(row, engine.name),
        named,
        said=row.get("attn_class", ""),
        trap=_memory_trap(row),
    )


def _memory_trap(row: Row) -> str | None:
    if row.get("quality", "") not in ("A", "B", ""):
        return f"quality {row['quality']}"
    if not row.get("gpu") or not hardware(row["gpu"], 1, number(row, "gpu_visible_gib")):
        return None if row["engine"] == "llama.cpp" else "no_accelerator"  # whose cache is the same on all of them
    if "notebook" in row.get("other_args", ""):
        return "shared_device"  # a training run holds memory beside the engine
    bits = number(row, "ll_bpw") or 0.0
    sixteen = (row.get("quant") or row.get("model_variant") or "").lower() in ("bf16", "f16")
    return "format_contradicts_size" if sixteen and 0 < bits < 15 else None


def _seen_of_pool(row: Row, engine: str) -> dict[str, float | None]:
    """SGLang's log names the full pool alone where there is a sliding one too."""
    halves = engine == "sglang" and row.get("attn_class", "").startswith("swa")
    return {
        "weights_bytes": scaled(row, "weights_gib", GIB),
        "activation_bytes": scaled(row, "activation_peak_gib", GIB),
        "overhead_bytes": scaled(row, "non_torch_gib", GIB),
        "graph_bytes": scaled(row, "cudagraph_gib", GIB),
        "kv_cache_bytes": None if halves else scaled(row, "kv_avail_gib", GIB),
        "kv_cache_tokens": number(row, "kv_tokens"),
        "max_concurrency": number(row, "max_concurrency_x"),
    }


def _seen_of_llama(row: Row, engine: str) -> dict[str, float | None]:
    """Of all devices together, but for the buffer that a step needs, which is the largest one's; forks have others."""
    compute = largest_of_devices(row.get("ll_compute_mib_by_dev", "")) if engine == "llamacpp" else None
    return {
        "weights_bytes": scaled(row, "ll_file_gib", GIB),
        "activation_bytes": compute * MIB if compute else None,
        "kv_cache_bytes": scaled(row, "ll_kv_mib_total", MIB),
        "state_bytes": scaled(row, "ll_recurrent_mib", MIB),
    }


def _llama(row: Row) -> dict[str, Any]:
    layers = row.get("ll_ngl", "")
    offloaded = -1 if layers == "all" else int(layers.split("/")[0]) if "/" in layers else None
    keys, _, values = row.get("ll_kv_type", "").partition("/")
    flash = row.get("ll_flash_attn", "")
    notes = row.get("notes", "")
    extra: dict[str, Any] = {"cache_type_v": values} if values and values != keys else {}
    extra |= {"mla": int(row["ll_mla_mode"])} if row.get("ll_mla_mode", "").isdigit() else {}
    extra |= {"amb": int(most[1])} if (most := re.search(r" -amb (\d+)", notes)) else {}
    streams = re.search(r"(\d+) (?:seq(?:uence)?s|slots)", notes)
    if streams and (cells := count(row, "ll_n_ctx")):
        extra |= {"ctx_size": cells}  # of all of them together
    overrides = [one.strip("\"'") for one in re.findall(r"(?:-ot|--override-tensor) (\"[^\"]+\"|'[^']+'|\S+)", notes)]
    split = re.search(r" -ts ([\d.,]+)", notes)
    return _set(
        {
            "n_gpu_layers": offloaded,
            "max_model_len": count(row, "ll_n_ctx"),
            "max_num_seqs": int(streams[1]) if streams else 1,
            "max_num_batched_tokens": count(row, "ll_n_batch"),
            "ubatch_size": count(row, "ll_n_ubatch"),
            "flash_attn": flash == "1" if flash else None,
            "kv_unified": True if streams else None,
            "override_tensor": ",".join(one for one in overrides if "=" in one) or None,
            "tensor_split": [float(share) for share in split[1].split(",") if share] if split else None,
            "kv_cache_dtype": keys or None,
            "engine_args": extra or None,
        }
    )


def _speed_case(row: Row, configs: Configs) -> Case:
    # A date doesn't tell how a run's steps were scheduled: recipes turned that on before it was an engine's default.
    engine = engine_of(row["engine"], row.get("engine_version", ""))
    named = configs.find(row["model"])
    notes, mode = row.get("notes", ""), row.get("mode", "")
    deployment = _deployment(row, engine, named, row.get("precision", ""))
    if engine.name not in SPREADING_LAYERS:
        deployment |= _parallel(row, _devices(row))
    if row.get("scenario", "").startswith("MLPerf") and not row.get("tp") and named.model:
        deployment |= _replicas(row, named.model, _devices(row))
    deployment |= _noted(notes)
    if mode == "disagg":
        deployment |= _worker(notes)
    devices = deployment.pop("devices", None) or _devices(row)
    deployment["hardware"] = hardware(row["gpu"], devices)
    seen = {
        "tpot": scaled(row, "tpot_ms", 1e-3) if mode != "disagg" else None,
        # No prompts come between the tokens of a worker that only decodes.
        "itl": scaled(row, "tpot_ms" if mode == "disagg" else "itl_p50_ms", 1e-3)
        if mode == "disagg" or not number(row, "tpot_ms")
        else None,
        "ttft": scaled(row, "ttft_ms", 1e-3) if mode != "disagg" else None,  # of another worker
        "output_throughput": number(row, "output_tok_s"),
        "prefill_throughput": number(row, "prefill_tok_s"),
        "power": number(row, "power_w_total"),
        "energy_per_output_token": number(row, "j_per_output_token"),
    }
    decode = number(row, "decode_tok_s")
    if decode:
        seen["tpot"] = 1 / decode
    return _case(
        row,
        f"{mode}, tuned" if "tuned" in row.get("flags", "") else mode,
        _set(deployment),
        _workload(row, deployment, devices),
        seen,
        named,
        said=row.get("arch", ""),
        trap=None if mode in ("agg", "llama-bench", "single stream", "offline batch", "server") else mode,
        key="|".join((mode, *(row.get(name, "") for name in (*KEY, *LOAD)))),
    )


# Columns that are equal for one deployment at several loads.
KEY = ("model", "engine", "engine_version", "gpu", "n_gpus", "tp", "pp", "dp", "ep", "precision", "kv_dtype")
LOAD = ("scenario", "isl", "osl")


def _workload(row: Row, deployment: Mapping[str, Any], devices: int) -> dict[str, Any]:
    """llama-bench reads or writes from an empty context; MLPerf keeps its devices full."""
    benchmark = next((name for name in MLPERF_LENGTHS if row["model"].startswith(name)), None)
    if row.get("scenario", "").startswith("MLPerf") and benchmark:
        prompt, answer = MLPERF_LENGTHS[benchmark]
        streams = MLPERF_STREAMS * devices
        return {"input_tokens": prompt, "output_tokens": answer, "concurrency": min(streams, 65536)}
    lengths = {
        "input_tokens": round(_or(number(row, "isl"), unstated_input(row))) or 1,
        "output_tokens": round(_or(number(row, "osl"), UNSTATED_OUTPUT)) or 1,
    }
    if rate := re.search(r"open loop ([\d.]+) req/s", row.get("scenario", "")):
        return lengths | {"rate": float(rate[1])}
    streams = round(number(row, "concurrency") or deployment.get("max_num_seqs") or 1)
    if row.get("mode") == "disagg" and (batch := WORKER.findall(row.get("notes", ""))):
        one = batch[-1]
        streams = int(one[7]) * int(one[4] or 1) if one[7] else max(1, streams // int(one[1] or 1))
    return lengths | {"concurrency": max(1, streams)}


def unstated_input(row: Row) -> int:
    """Of a row that doesn't say how long its prompts are."""
    task = (row.get("scenario") or " ").split(" ")[0]
    return TASK_INPUT.get(task, UNSTATED_INPUT)


def _parallel(row: Row, devices: int) -> dict[str, Any]:
    """Rows that say experts are spread over the devices, or say nothing, have one replica on all of them."""
    tp, pp, dp = (count(row, name) or 1 for name in ("tp", "pp", "dp"))
    experts = count(row, "ep") or 1
    if devices > tp * pp * dp and (not row.get("tp") or experts > 1):
        tp = max(1, devices // (pp * dp))
    found: dict[str, Any] = {"tensor_parallel_size": tp, "pipeline_parallel_size": pp, "data_parallel_size": dp}
    if experts > 1:
        found |= {"enable_expert_parallel": True, "expert_parallel_size": experts}
        if dp > 1:
            found |= {"enable_dp_attention": True}
    return {name: value for name, value in found.items() if value is True or value > 1 or name.startswith("tensor")}


def _replicas(row: Row, model: Model, devices: int) -> dict[str, Any]:
    """Submissions that don't say how they share a machine run as many copies of the model as leave room for streams."""
    device = (hardware(row["gpu"], 1) or {}).get("accelerator", "")
    bits = {"fp4": 4, "fp8": 8}.get(row.get("precision", "")[-3:].lower(), 16)
    weights, memory = model.total_params * bits / 8, memory_of(device)
    tp = 1
    while memory and tp < devices and weights / tp > memory * WEIGHTS_SHARE:
        tp *= 2
    return {"tensor_parallel_size": tp, "data_parallel_size": max(1, devices // tp)}


def _worker(notes: str) -> dict[str, Any]:
    """The decode worker, which the time per token is of."""
    found = WORKER.findall(notes)
    if not found:
        return {}
    tp, pp, dp, _, experts, _ = (int(cell or 1) for cell in found[-1][2:])
    worker = {"tp": str(tp), "pp": str(pp), "dp": str(dp), "ep": str(experts)}
    return _parallel(worker, tp * pp * dp) | {"devices": tp * pp * dp}


def _noted(notes: str) -> dict[str, Any]:
    """Options of the run that stand among the remarks."""
    found: dict[str, Any] = {}
    for name, field in (
        ("max_num_seqs", "max_num_seqs"),
        ("block-size", "block_size"),
        ("max-num-batched-tokens", "max_num_batched_tokens"),
    ):
        if match := re.search(rf"{name}[= ](\d+)", notes):
            found[field] = int(match[1])
    return found | ({"enforce_eager": True} if "enforce-eager" in notes else {})


def _crowd_case(row: Row, configs: Configs) -> Case:
    engine = engine_of(row["engine"], row.get("engine_version", ""), row.get("date", ""))
    named = configs.find(row["model"])
    devices = count(row, "n_gpus") or 1
    memory = number(row, "vram_gb_each") if devices == 1 else None
    unified = row.get("unified") == "True"
    name = row.get("gpu", "") if unified else with_label(row.get("gpu", ""), memory)
    tp = count(row, "tensor_parallel") or (devices if engine.name in ("vllm", "sglang") else 1)
    deployment = _deployment(row, engine, named, row.get("quant", "")) | {
        "hardware": hardware(name, devices, memory if unified and memory and memory >= 1 else None, row.get("cpu", "")),
        "tensor_parallel_size": tp if tp > 1 else None,
        "max_model_len": count(row, "context"),
    }
    decode, peak = number(row, "decode_tok_s"), number(row, "peak_vram_gb")
    seen = {
        "tpot": 1 / decode if decode else None,
        "ttft": scaled(row, "ttft_ms", 1e-3),
        "prefill_throughput": number(row, "prefill_tok_s"),
        "power": number(row, "power_w"),
        "total_bytes": peak * GIB if peak and peak > 0.1 else None,
    }
    workload = {
        "input_tokens": round(number(row, "prompt_tokens") or UNSTATED_INPUT),
        "output_tokens": round(number(row, "output_tokens") or 128),
        "concurrency": 1,
    }
    return _case(row, "crowd", _set(deployment), workload, seen, named)


def _deployment(row: Row, engine: Any, named: Named, words: str) -> dict[str, Any]:
    """The fields that all kinds of rows have. llama.cpp and its kin spread layers over devices, not heads."""
    own = named.model.quantization if named.model else None
    is_tagged = ":" in row["model"] and row["engine"] == "ollama"  # whose tags without a format are Q4_K_M
    words = "" if words == "compressed-tensors" else words  # says how it is stored, not in which format
    words = words or format_in(row["model"]) or ("q4_k_m" if is_tagged else "")
    kv = (row.get("kv_dtype") or row.get("kv_type") or "").split(",")[0].split("/")[0].split(" ")[0].lower()
    return {
        "model": named.name,
        "engine": engine.name,
        "engine_version": engine.version,
        "tensor_parallel_size": None if engine.name in SPREADING_LAYERS else count(row, "tp"),
        "pipeline_parallel_size": count(row, "pp"),
        "data_parallel_size": count(row, "dp"),
        "quantization": asked_format(words, own, engine.name),
        "kv_cache_dtype": {"": None, "auto": None, "fp16": None, "f16": None}.get(kv, kv),
    }


def _devices(row: Row) -> int:
    return count(row, "n_gpus") or 1


def _case(
    row: Row,
    kind: str,
    deployment: dict[str, Any],
    workload: dict[str, Any] | None,
    seen: Mapping[str, float | None],
    named: Named,
    *,
    said: str = "",
    trap: str | None = None,
    key: str = "",
) -> Case:
    known = {name: value for name, value in seen.items() if value}
    model: Model | None = named.model
    return Case(
        id=row["id"],
        kind=kind,
        deployment=deployment,
        workload=workload,
        seen=known,
        classes=classes_of(deployment, model, said),
        group=f"{family_of(named.name if len(row['model']) > 80 else row['model'])} x {row.get('gpu', '')}",
        trap=trap_of(row.get("flags", ""), deployment, workload, known, model) or trap,
        key=key,
        config=named.config,
        label=row["model"][:80],
        status=row.get("status", ""),
    )


def _set(plain: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in plain.items() if value is not None}


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
