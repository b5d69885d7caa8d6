"""Rows of CSV files as `benchmarks.planner` reads them. All rows here are made up."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.planner.cases import Case, crowd_cases, memory_cases, speed_cases
from benchmarks.planner.names import Configs, total_errors
from servolt.deployment import Deployment
from servolt.workload import Workload

SMALL = {
    "model_type": "qwen3",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 4,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 1000,
    "torch_dtype": "bfloat16",
    "max_position_embeddings": 4096,
}
MEMORY = {
    "id": "m1",
    "engine": "vllm",
    "engine_version": "0.19.0",
    "model": "acme/Small-4B-Instruct",
    "gpu": "NVIDIA H100 80GB",
    "gpu_visible_gib": "79.19",
    "n_gpus": "2",
    "tp": "2",
    "max_model_len": "2048",
    "gpu_mem_util": "0.95",
    "kv_tokens": "1000",
    "quality": "A",
    "status": "ok",
    "a_column_of_tomorrow": "7",
}
SPEED = {
    "id": "s1",
    "source": "someone",
    "model": "acme/Small-4B",
    "engine": "trtllm",
    "gpu": "NVIDIA H100 SXM",
    "n_gpus": "4",
    "precision": "fp8",
    "mode": "agg",
    "concurrency": "8",
    "isl": "1024",
    "osl": "256",
    "ttft_ms": "100",
    "tpot_ms": "10",
}
CROWD = {
    "id": "c1",
    "model": "acme/Small-4B-GGUF",
    "quant": "Q4_K_M",
    "engine": "llama.cpp",
    "gpu": "RTX 3090",
    "n_gpus": "1",
    "vram_gb_each": "24",
    "decode_tok_s": "50",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "acme__Small-4B.json").write_text(json.dumps(SMALL))
    return tmp_path


def one(folder: Path, name: str, row: Mapping[str, str]) -> Case:
    with (folder / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row)
    read = {"memory_cases": memory_cases, "perf_cases": speed_cases, "crowd_cases": crowd_cases}[name]
    (case,) = read(folder, Configs(folder / "models"))
    Deployment.from_plain(case.deployment)
    Workload.from_plain(case.workload or {})
    return case


def test_a_memory_row_is_a_deployment_and_unknown_columns_are_ignored(folder: Path) -> None:
    case = one(folder, "memory_cases", MEMORY)
    deployment = Deployment.from_plain(case.deployment)
    assert Path(deployment.model).name == "acme__Small-4B.json"
    assert deployment.gpu_memory_utilization == 0.95
    assert deployment.tensor_parallel_size == 2
    assert deployment.hardware is not None
    assert deployment.hardware.memory_bytes == round(79.19 * 2**30)
    assert case.seen == {"kv_cache_tokens": 1000.0}
    assert case.classes == ("vllm", "gqa", "dense", "tp")


def test_an_empty_cell_asks_for_nothing(folder: Path) -> None:
    case = one(folder, "memory_cases", MEMORY | {"max_model_len": "", "gpu_mem_util": "", "engine_version": ""})
    assert not {"max_model_len", "gpu_memory_utilization", "engine_version"} & set(case.deployment)


@pytest.mark.parametrize(
    ("cell", "fields"),
    [
        ("--mem-fraction-static 0.8 --disable-radix-cache", {"mem_fraction_static": 0.8}),
        ("enforce_eager; prefix caching", {"enforce_eager": True}),
        ("dtype='float16' 'kv_cache_dtype': 'fp8' 'enable_prefix_caching': False", {"kv_cache_dtype": "fp8"}),
        (
            "limit_mm_per_prompt image=2 audio=0; enable_chunked_prefill",
            {"limit_mm_per_prompt": {"image": 2, "audio": 0}},
        ),
        ("max_total_tokens 131072", {"engine_args": {"max_total_tokens": 131072}}),
    ],
)
def test_options_in_one_cell_are_read(folder: Path, cell: str, fields: dict[str, Any]) -> None:
    case = one(folder, "memory_cases", MEMORY | {"engine": "sglang", "gpu_mem_util": "", "other_args": cell})
    assert fields.items() <= case.deployment.items()


def test_llama_cpps_own_columns_are_read(folder: Path) -> None:
    row = {
        "id": "l1",
        "engine": "llama.cpp",
        "engine_version": "b1691",
        "model": "Small-4B",
        "model_variant": "mostly Q4_0",
        "gpu": "NVIDIA GeForce RTX 3090",
        "n_gpus": "2",
        "ll_ngl": "3/5",
        "ll_n_ctx": "512",
        "ll_kv_type": "q8_0/q8_0",
        "ll_flash_attn": "1",
        "ll_kv_mib_total": "16.00",
        "quality": "B",
        "quant": "mostly Q4_0",
        "ll_compute_mib_by_dev": "CUDA0 compute buffer size = 3.00; CUDA_Host compute buffer size = 9.00",
    }
    case = one(folder, "memory_cases", row)
    asked = {"engine": "llamacpp", "engine_version": "b1691", "quantization": "q4_0", "n_gpu_layers": 3}
    assert (
        asked | {"flash_attn": True, "kv_cache_dtype": "q8_0", "max_model_len": 512}
    ).items() <= case.deployment.items()
    assert case.seen == {"kv_cache_bytes": 16.0 * 2**20, "activation_bytes": 3.0 * 2**20}


def test_a_row_without_shares_has_one_replica_on_all_its_devices(folder: Path) -> None:
    case = one(folder, "perf_cases", SPEED)
    assert case.deployment["engine"] == "tensorrt_llm"
    assert case.deployment["tensor_parallel_size"] == 4
    assert case.deployment["quantization"] == "fp8"
    assert case.workload == {"input_tokens": 1024, "output_tokens": 256, "concurrency": 8}
    assert case.seen == {"tpot": 0.01, "ttft": 0.1}


def test_the_decode_worker_is_what_a_disaggregated_row_is_planned_as(folder: Path) -> None:
    notes = "workers/tp/pp/dp/moe_tp/ep/batch: prefill 2/4/1/1/1/4/1 decode 1/1/1/8/1/8/16"
    case = one(folder, "perf_cases", SPEED | {"mode": "disagg", "n_gpus": "", "notes": notes})
    assert case.trap == "disagg"
    assert case.deployment["data_parallel_size"] == 8
    assert case.deployment["hardware"]["count"] == 8
    assert case.workload is not None
    assert case.workload["concurrency"] == 16 * 8
    assert "ttft" not in case.seen


@pytest.mark.parametrize(
    ("change", "trap"),
    [
        ({"flags": "precision_from_gemm_mode;multi_node"}, "multi_node"),
        ({"flags": "gpus_corrected:tp_ep_squared"}, None),
        ({"tpot_ms": "0.0001", "ttft_ms": "0.001"}, "more_flops"),
        ({"concurrency": "100000", "isl": "100000", "tpot_ms": "1000"}, "more_kv_cache"),
        ({"mode": "disagg"}, "disagg"),
    ],
)
def test_rows_that_cannot_be_count_for_no_score(folder: Path, change: dict[str, str], trap: str | None) -> None:
    if change.get("concurrency"):
        change = change | {"concurrency": "60000"}
    assert one(folder, "perf_cases", SPEED | change).trap == trap


def test_a_crowd_row_is_a_deployment_on_its_card(folder: Path) -> None:
    case = one(folder, "crowd_cases", CROWD)
    assert case.deployment["quantization"] == "q4_k_m"
    assert case.seen == {"tpot": 1 / 50}
    assert case.workload is not None
    assert case.workload["concurrency"] == 1


def test_a_name_is_found_in_any_spelling_and_a_model_without_one_by_its_size(folder: Path) -> None:
    (folder / "models" / "acme__Small-4B-FP8.json").write_text(
        json.dumps(SMALL | {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}})
    )
    configs = Configs(folder / "models")
    plain, quantised = (configs.find(name).config for name in ("Small 4B Instruct", "acme/small-4b-instruct-FP8"))
    assert plain is not None
    assert quantised is not None
    assert (plain.stem, quantised.stem) == ("acme__Small-4B", "acme__Small-4B-FP8")
    model = configs.find("acme/Small-4B").model
    assert model is not None
    nameless = configs.find("Models", float(model.total_params) * 1.0001)
    assert nameless.config is not None
    assert configs.find("Models", 1e12).config is None


def test_counted_parameters_are_compared_to_their_stated_digits(folder: Path) -> None:
    model = Configs(folder / "models").find("acme/Small-4B").model
    assert model is not None
    rounded = round(model.total_params, -6)
    table = f"file,true_total\nacme__Small-4B.json,{rounded}\nacme__Small-4B.json,{2 * rounded}\n"
    (folder / "models" / "params.csv").write_text(table)
    right, wrong = total_errors(folder / "models")
    assert right == 0
    assert wrong == pytest.approx(0.5, abs=0.01)
