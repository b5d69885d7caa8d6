"""Asks other planners, in the interpreter that has them: questions as JSON on stdin, one answer a line on stdout.

This file runs by its path, outside the project's environment, and imports nothing of it.
"""

import contextlib
import importlib
import json
import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Question = dict[str, Any]
Figures = dict[str, float]

# What they call the accelerators of the catalogue.
SYSTEMS = {
    "A100 SXM4 80GB": "a100_sxm",
    "A100 PCIe 80GB": "a100_pcie",
    "H100 SXM5 80GB": "h100_sxm",
    "H100 PCIe 80GB": "h100_pcie",
    "H200 SXM 141GB": "h200_sxm",
    "B200 SXM 180GB": "b200_sxm",
    "B300 SXM 270GB": "b300_sxm",
    "GB200 NVL72": "gb200",
    "GB300 NVL72": "gb300",
    "L40S": "l40s",
    "L4": "l4",
    "A30": "a30",
    "Arc Pro B60": "b60",
    "RTX PRO 6000 Blackwell Server Edition": "rtx_pro_6000_server",
}
BACKENDS = {"vllm": "vllm", "sglang": "sglang", "tensorrt_llm": "trtllm"}
# The format of matrices, and of experts; the second is tried where there are no tables for the first.
MODES = {
    "fp8": (("fp8", "fp8"), ("fp8_block", "fp8_block")),
    "fp8_dynamic": (("fp8", "fp8"),),
    "nvfp4": (("nvfp4", "nvfp4"),),
    "mxfp4": ((None, "w4a16_mxfp4"),),
    "int4": (("int4_wo", "int4_wo"),),
    "awq": (("int4_wo", "int4_wo"),),
    "gptq": (("int4_wo", "int4_wo"),),
    "w4a16": (("int4_wo", "int4_wo"),),
    "w8a8": (("sq", None),),
}
# What engines take where nothing is asked: vLLM's share since 0.21; SGLang's on a card of 80 GB; TensorRT-LLM's.
SHARES = {"vllm": 0.92, "sglang": 0.88, "tensorrt_llm": 0.9}
BATCH = (8192, 1024)  # tokens of a step, and requests


class RefusedError(Exception):
    """There is no answer, and this is why."""


class Aiconfigurator:
    """NVIDIA's aiconfigurator: tables of measured kernels. Offline for the models and systems that it packs."""

    name = "aiconfigurator"
    figures = ("weights_bytes", "kv_cache_bytes", "kv_cache_tokens", "tpot", "ttft", "output_throughput")

    def __init__(self) -> None:
        self._estimate = importlib.import_module("aiconfigurator.cli.api").cli_estimate
        self._memory = importlib.import_module("aiconfigurator.sdk.memory").estimate_kv_cache
        folder = Path(str(importlib.import_module("aiconfigurator_core").__file__)).parent / "model_configs"
        names = [path.name.removesuffix("_config.json") for path in folder.glob("*_config.json")]
        self._packed = {name.replace("--", "/").lower(): name.replace("--", "/") for name in names}

    def answer(self, question: Question) -> Figures:
        backend = BACKENDS.get(question["engine"])
        system = SYSTEMS.get(question["accelerator"])
        if backend is None:
            raise RefusedError("no such engine")
        if system is None:
            raise RefusedError("no such accelerator")
        with self._model(question) as model:
            return _first(lambda modes: self._with(question, model, system, backend, modes), _modes(question))

    def _with(self, question: Question, model: str, system: str, backend: str, modes: Question) -> Figures:
        shape = _parallel(question)
        if question["workload"] is None:
            return self._of_memory(question, model, system, backend, shape | modes)
        load = question["workload"]
        if "concurrency" not in load:
            raise RefusedError("open loop")
        found = self._estimate(
            model,
            system,
            backend_name=backend,
            isl=load["input_tokens"],
            osl=load["output_tokens"],
            batch_size=max(1, round(load["concurrency"] / shape["attention_dp_size"])),
            **shape,
            **modes,
        )
        return {"tpot": found.tpot / 1e3, "ttft": found.ttft / 1e3, "output_throughput": float(found.tokens_per_second)}

    def _of_memory(self, question: Question, model: str, system: str, backend: str, shape: Question) -> Figures:
        found = self._memory(
            model,
            system,
            backend,
            "current",
            max_num_tokens=question["tokens"] or BATCH[0],
            max_batch_size=question["requests"] or BATCH[1],
            memory_fraction_kind="of_free" if backend == "trtllm" else "of_total",
            memory_fraction_value=question["share"] or SHARES[question["engine"]],
            gpu_memory_capacity_bytes_override=question["visible_bytes"],
            **shape,
        )
        figures = {
            "kv_cache_bytes": float(found["total_kv_size_bytes"]),
            "kv_cache_tokens": float(found["total_kv_size_tokens"]),
        }
        weights = (found["memory_breakdown"] or {}).get("weights_bytes")
        return figures | ({"weights_bytes": float(weights)} if weights else {})

    @contextlib.contextmanager
    def _model(self, question: Question) -> Iterator[str]:
        """One that it packs, or the case's own config in a folder."""
        for name in (question["label"], question["stem"]):
            if name and name.lower() in self._packed:
                yield self._packed[name.lower()]
                return
        with _folder(question) as folder:
            yield folder


class HfMem:
    """hf-mem: sizes from the headers on the Hub. Without the Hub it has nothing to read."""

    name = "hf-mem"
    figures = ("weights_bytes",)

    def __init__(self) -> None:
        self._run = importlib.import_module("hf_mem").run
        self._offline = False

    def answer(self, question: Question) -> Figures:
        _one_device(question)
        if self._offline:
            raise RefusedError("needs the network")
        try:
            found = self._run(question["label"])
        except OSError as error:
            raise self._gone(error) from error
        except Exception as error:
            if type(error).__name__ in ("ConnectError", "ConnectTimeout"):
                raise self._gone(error) from error
            raise
        return {"weights_bytes": float(found.memory)}

    def _gone(self, error: Exception) -> RefusedError:
        self._offline = True
        return RefusedError(f"needs the network ({type(error).__name__})")


class Accelerate:
    """accelerate's estimate: the model built on no device, and counted. It knows a config, but no engine."""

    name = "accelerate"
    figures = ("weights_bytes",)

    def __init__(self) -> None:
        self._transformers = importlib.import_module("transformers")
        self._torch = importlib.import_module("torch")
        self._empty = importlib.import_module("accelerate").init_empty_weights
        self._sizes = importlib.import_module("accelerate.utils").calculate_maximum_sizes
        self._known: dict[str, float] = {}

    def answer(self, question: Question) -> Figures:
        _one_device(question)
        if question["quantization"]:
            raise RefusedError("no quantisation but by dtype")
        key = f"{question['config']} {question['dtype']}"
        if key not in self._known:
            self._known[key] = self._size(question)
        return {"weights_bytes": self._known[key]}

    def _size(self, question: Question) -> float:
        dtype = getattr(self._torch, question["dtype"] or "bfloat16")
        with _folder(question) as folder:
            config = self._transformers.AutoConfig.from_pretrained(folder)
            with self._empty():
                model = self._transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
        return float(self._sizes(model)[0])


PEERS: tuple[Callable[[], Any], ...] = (Aiconfigurator, HfMem, Accelerate)


def main() -> None:
    """Answers stand one a line: {"id", "peer", "figures"} or {"id", "peer", "refused"}; {"peer", "absent"} for one that
    is not installed."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    answers, sys.stdout = sys.stdout, Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - until the end
    questions: list[Question] = json.load(sys.stdin)

    def say(**answer: Any) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    for kind in PEERS:
        name = str(getattr(kind, "name", ""))
        try:
            peer = kind()
        except ImportError as error:
            say(peer=name, absent=str(error))
            continue
        for question in questions:
            wanted = [figure for figure in question["seen"] if figure in peer.figures]
            if not wanted:
                continue
            try:
                found = peer.answer(question)
                figures = {figure: found[figure] for figure in wanted if figure in found}
                say(id=question["id"], peer=name, figures=figures, wanted=wanted)
            except Exception as error:  # noqa: BLE001 - whatever a peer raises, it has no answer
                reason = str(error) if isinstance(error, RefusedError) else f"{type(error).__name__}: {error}"
                say(id=question["id"], peer=name, refused=_plain(reason), wanted=wanted)


def _plain(reason: str) -> str:
    """One line without the names of temporary folders, so that alike reasons count together."""
    return re.sub(r"\S*/tmp\w*/?\S*", "its config", " ".join(reason.split()))[:160]


def _first(ask: Callable[[Question], Figures], modes: list[Question]) -> Figures:
    """The first format that there are tables for."""
    failed: Exception | None = None
    for one in modes:
        try:
            return ask(one)
        except RefusedError:
            raise
        except Exception as error:  # noqa: BLE001 - the last one is raised again
            failed = failed or error
    raise failed or RefusedError("no format")


def _modes(question: Question) -> list[Question]:
    found: list[Question] = []
    for gemm, experts in MODES.get(question["quantization"] or "", ((None, None),)):
        modes = {"gemm_quant_mode": gemm, "moe_quant_mode": experts}
        if "fp8" in (question["kv_cache_dtype"] or ""):
            modes["kvcache_quant_mode"] = "fp8"
        found.append({name: mode for name, mode in modes.items() if mode})
    return found


def _parallel(question: Question) -> Question:
    """Attention in parallel over data shares the experts; plain replicas share nothing and are no part of a model."""
    tp, pp, ep = question["tp"], question["pp"], question["ep"]
    dp = question["dp"] if ep > 1 else 1
    if question["dp"] > 1 and dp == 1:
        raise RefusedError("replicas")
    return {
        "tp_size": tp,
        "pp_size": pp,
        "attention_dp_size": dp,
        "moe_tp_size": max(1, tp * dp // ep),
        "moe_ep_size": ep,
    }


def _one_device(question: Question) -> None:
    if question["tp"] * question["pp"] > 1:
        raise RefusedError("no share of one device of several")


@contextlib.contextmanager
def _folder(question: Question) -> Iterator[str]:
    if not question["config"]:
        raise RefusedError("needs the network")
    with tempfile.TemporaryDirectory() as folder:
        text = Path(question["config"]).read_text(encoding="utf-8")
        Path(folder, "config.json").write_text(text, encoding="utf-8")
        yield folder


if __name__ == "__main__":
    main()
