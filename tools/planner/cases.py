"""Measured speeds in a folder of reference cases, as deployments that the planner can be asked about."""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from benchmarks.planner.cases import unstated_input
from benchmarks.planner.engines import engine_of
from servolt.catalogue import find_accelerator
from servolt.deployment import Deployment, Hardware
from servolt.errors import ServoltError
from servolt.gpu import Accelerator
from servolt.model import Model, model_from_config
from servolt.model.quantization import requantized

__all__ = ["Case", "Models", "family_of", "read_cases"]

ENGINES = ("vllm", "sglang", "trtllm", "llama.cpp", "mlc-llm", "exllamav2", "tensorrt", "mango", "pytorch")
ENGINE_NAMES = {"trtllm": "tensorrt_llm", "tensorrt": "tensorrt_llm", "llama.cpp": "llamacpp", "mango": "vllm"}
PRECISIONS = {
    "fp8": "fp8",
    "fp4": "nvfp4",
    "nvfp4": "nvfp4",
    "mxfp4": "mxfp4",
    "int4": "int4",
    "uint4": "int4",
    "4-bit": "int4",
    "q4_k - medium": "q4_k_m",
}
# Words of a model's name that say nothing about its sizes.
NOISE = re.compile(
    r"\b(meta|instruct|hf|base|chat|it|thinking|fp8|nvfp4|fp4|mxfp4|bf16|awq|gptq|int4|quark|amd|kv|checkpoint|nvidia"
    r"|2507|99|99\.9|nf4|gguf)\b"
)
# Models whose layers are those of another: what is tried where a name has no config of its own.
KIN = (("vl", ""), ("omni", ""), ("coder", ""), ("llama3.3", "llama3.1"), ("llama3", "llama3.1"))


class Case(NamedTuple):
    """One row: what was run, and what was seen. Times in seconds, rates in tokens/s; None where it was not measured."""

    id: str
    source: str
    kind: str  # closed, steady, offline, server, single, prefill, tuned, disaggregated
    flags: str
    family: str
    deployment: Deployment
    model: Model
    accelerator: Accelerator
    devices: int
    precision: str
    version: str
    concurrency: float
    input_len: float
    output_len: float
    ttft: float | None
    tpot: float | None
    itl: float | None
    output_throughput: float | None
    decode_throughput: float | None
    prefill_throughput: float | None
    power_w: float | None
    notes: str


class Models:
    """Configs of a folder, found by a row's name."""

    def __init__(self, folder: Path) -> None:
        self._files = {_plain(path.stem.split("__")[-1]): path for path in sorted(folder.glob("*.json"))}

    @cache  # noqa: B019 - one such object lives as long as the program
    def find(self, name: str, precision: str) -> Model | None:
        """The config whose name is the longest that this one starts with; None where there is none."""
        path = self._file(_plain(name))
        if path is None:
            return None
        config = json.loads(path.read_text(encoding="utf-8"))
        model = model_from_config(config, name=name)
        asked = PRECISIONS.get(precision.lower())
        if asked in (None, model.quantization) or model.quantization == "mxfp4":
            return model
        return requantized(model, asked or "")

    def _file(self, plain: str) -> Path | None:
        for name in (plain, *(plain.replace(word, other) for word, other in KIN)):
            known = [stem for stem in self._files if stem in name]
            if known:
                return self._files[max(known, key=len)]
        return None


def _plain(name: str) -> str:
    """Without owner, separators and words that say nothing of sizes."""
    words = re.sub(r"[-_() ]+", " ", name.split("/")[-1].lower())
    return re.sub(r"[ ]+|\bv0\.\d", "", NOISE.sub(" ", words))


def family_of(name: str) -> str:
    """What is left out together: a model in all its formats and tunings."""
    plain = _plain(name)
    for word, other in (*KIN[:4], ("deepseekr1", "deepseekv3"), ("deepseekv3.1", "deepseekv3")):
        plain = plain.replace(word, other)
    return plain


def read_cases(folder: Path, models: Path) -> Iterator[Case]:
    """Every row of `perf_cases*.csv` whose model and accelerator are known."""
    known = Models(models)
    for path in sorted(folder.glob("perf_cases*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                case = _case(row, known)
                if case is not None:
                    yield case


def _case(row: Mapping[str, str], known: Models) -> Case | None:
    model = known.find(row["model"], row["precision"])
    accelerator = _accelerator(row["gpu"])
    if model is None or accelerator is None:
        return None
    devices = int(float(row["n_gpus"] or accelerator.count or 1))
    kind = _kind(row)
    output_len = _number(row["osl"]) or 0.0
    return Case(
        id=row["id"],
        source=row["source"].split(" ")[0],
        kind=kind,
        flags=row["flags"],
        family=family_of(row["model"]),
        deployment=_deployment(row, devices),
        model=model,
        accelerator=accelerator,
        devices=devices,
        precision=row["precision"].lower(),
        version=row["engine_version"],
        concurrency=_number(row["concurrency"]) or 1.0,
        input_len=float(unstated_input(row) if row["isl"] == "" else row["isl"]),
        output_len=output_len,
        ttft=_seconds(row["ttft_ms"]),
        tpot=_seconds(row["tpot_ms"]),
        itl=_seconds(row["itl_p50_ms"]),
        output_throughput=_number(row["output_tok_s"]),
        decode_throughput=_number(row["decode_tok_s"]),
        prefill_throughput=_number(row["prefill_tok_s"]),
        power_w=_number(row["power_w_total"]),
        notes=row["notes"],
    )


@cache
def _accelerator(name: str) -> Accelerator | None:
    try:
        return find_accelerator(name)
    except ServoltError:
        return None


def _kind(row: Mapping[str, str]) -> str:
    if row["mode"] == "disagg":
        return "disaggregated"
    if row["source"].startswith("mlcommons"):
        return "tuned"
    if row["mode"] == "llama-bench":
        return "prefill" if row["prefill_tok_s"] else "single"
    if row["mode"] == "single stream":
        return "single"
    if row["mode"] == "offline batch":
        return "offline"
    if row["mode"] == "server":
        return "server"
    return "steady" if "steady state" in row["scenario"] else "closed"


def _deployment(row: Mapping[str, str], devices: int) -> Deployment:
    name = next((engine for engine in ENGINES if engine in row["engine"].lower()), row["engine"].lower() or "unknown")
    engine = ENGINE_NAMES.get(name, name)
    tp, dp, ep = (int(float(row[key] or 0)) for key in ("tp", "dp", "ep"))
    pp = int(float(row["pp"] or 1)) or 1
    if max(tp, 1) * max(dp, 1) * pp < devices:
        tp = devices // max(dp, 1) // pp  # where nothing is said, and rows that count experts' ranks only
    return Deployment(
        model=row["model"],
        engine=engine,
        hardware=Hardware(accelerator=row["gpu"], count=devices),
        tensor_parallel_size=None if engine == "llamacpp" else max(tp, 1),
        pipeline_parallel_size=pp if pp > 1 else None,
        data_parallel_size=dp if dp > 1 else None,
        expert_parallel_size=ep if ep > 1 else None,
        engine_version=engine_of(row["engine"], row["engine_version"]).version,
        kv_cache_dtype="fp8" if row["kv_dtype"].startswith("fp8") else None,
        enforce_eager="enforce-eager" in row["notes"] or None,
    )


def _number(text: str) -> float | None:
    return float(text) if text else None


def _seconds(milliseconds: str) -> float | None:
    return float(milliseconds) / 1e3 if milliseconds else None
