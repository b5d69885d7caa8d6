"""Results as other programs write them; the figures are made up, the names are theirs."""

import json
from pathlib import Path
from typing import Any

import pytest

from servolt.errors import InvalidInputError
from servolt.plan.known import KnownSpeed
from servolt.study.imported import read_results

H100 = {"model": "guide", "hardware": {"accelerator": "H100 SXM", "count": 1}}
VLLM = {
    "date": "20260701-100000",
    "endpoint_type": "vllm",
    "label": None,
    "model_id": "a-served-name",
    "num_prompts": 80,
    "request_rate": "inf",
    "max_concurrency": 8,
    "duration": 40.0,
    "completed": 80,
    "total_input_tokens": 81920,
    "total_output_tokens": 20480,
    "request_throughput": 2.0,
    "output_throughput": 512.0,
    "mean_ttft_ms": 30.0,
    "median_ttft_ms": 25.0,
    "mean_tpot_ms": 1.1,
    "median_tpot_ms": 1.0,
    "median_itl_ms": 0.9,
    "median_e2el_ms": 280.0,
}
SGLANG = {
    "backend": "sglang",
    "dataset_name": "random",
    "request_rate": float("inf"),
    "max_concurrency": 8,
    "completed": 80,
    "total_input_tokens": 81920,
    "total_output_tokens": 20480,
    "output_throughput": 512.0,
    "mean_e2e_latency_ms": 285.0,
    "median_e2e_latency_ms": 280.0,
    "median_ttft_ms": 25.0,
    "mean_tpot_ms": 1.0,
    "concurrency": 7.8,
}
LLAMA_BENCH: dict[str, Any] = {
    "build_commit": "abcdef0",
    "build_number": 6500,
    "cpu_info": "AMD Ryzen",
    "gpu_info": "NVIDIA GeForce RTX 4090",
    "model_filename": "guide",
    "n_batch": 2048,
    "n_ubatch": 512,
    "type_k": "f16",
    "n_gpu_layers": 99,
    "n_depth": 0,
}
GUIDELLM = {
    "benchmarks": [
        {
            "config": {"strategy": {"type_": "concurrent", "streams": 8}},
            "metrics": {
                "time_to_first_token_ms": {"successful": {"mean": 30.0, "median": 25.0}},
                "inter_token_latency_ms": {"successful": {"mean": 1.1, "median": 1.0}},
                "time_per_output_token_ms": {"successful": {"mean": 1.3, "median": 1.2}},
                "prompt_token_count": {"successful": {"mean": 1024.0}},
                "output_token_count": {"successful": {"mean": 256.0}},
            },
        },
        {"config": {"strategy": {"type_": "throughput"}}, "metrics": {}},
    ]
}


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("SERVOLT_HOME", str(tmp_path / "home"))


def read(text: str, **given: Any) -> dict[str, KnownSpeed]:
    found = read_results(text, date="2026-11-20T00:00:00Z", provenance="a", verified=True, given={**H100, **given})
    return {one.metric: one for one in found.speeds}


def values(found: dict[str, KnownSpeed]) -> dict[str, float]:
    return {name: round(one.value, 6) for name, one in found.items()}


def test_a_run_of_vllms_own_benchmark() -> None:
    found = read(json.dumps(VLLM), engine="vllm", engine_version="0.19.0")
    assert values(found) == {
        "ttft": 0.025,
        "tpot": 0.001,
        "itl": 0.0009,
        "e2el": 0.28,
        "output_throughput": 512.0,
        "request_throughput": 2.0,
    }
    one = found["tpot"]
    assert (one.concurrency, one.input_len, one.output_len) == (8, 1024, 256)
    assert (one.conditions.model, one.conditions.engine_version) == ("guide", "0.19.0"), "the name served is no model"
    assert one.predicted is not None


def test_runs_of_sglangs_one_on_each_line() -> None:
    second = {**SGLANG, "max_concurrency": 16, "median_ttft_ms": 40.0}
    text = f"{json.dumps(SGLANG)}\n{json.dumps(second)}\n"
    found = read_results(text, date="d", provenance="a", verified=True, given=H100)
    first = [one for one in found.speeds if one.metric == "ttft"]
    assert [(one.concurrency, one.value, one.conditions.engine) for one in first] == [
        (8, 0.025, "sglang"),
        (16, 0.04, "sglang"),
    ]
    assert {one.metric for one in found.speeds} == {"ttft", "tpot", "e2el", "output_throughput"}


def test_a_finite_rate_is_the_load_where_it_was_served() -> None:
    served = read(json.dumps({**VLLM, "request_rate": 2.1}))["tpot"]
    assert (served.request_rate, served.concurrency) == (2.1, None)
    capped = read(json.dumps({**VLLM, "request_rate": 50.0}))["tpot"]
    assert (capped.request_rate, capped.concurrency) == (None, 8)


def test_llama_bench_tells_a_prompt_and_a_stream() -> None:
    rows = [
        {**LLAMA_BENCH, "n_prompt": 512, "n_gen": 0, "avg_ts": 60000.0},
        {**LLAMA_BENCH, "n_prompt": 0, "n_gen": 128, "n_depth": 4096, "avg_ts": 2000.0},
        {**LLAMA_BENCH, "n_prompt": 512, "n_gen": 128, "avg_ts": 900.0},
    ]
    found = read_results(json.dumps(rows), date="d", provenance="a", verified=True)
    assert [(one.metric, one.value, one.input_len, one.output_len) for one in found.speeds] == [
        ("prefill_throughput", 60000.0, 512, 1),
        ("tpot", 0.0005, 4096, 128),
    ]
    where = found.speeds[0].conditions
    assert (where.engine, where.engine_version, where.devices) == ("llamacpp", "b6500", 1)
    assert "4090" in where.accelerator


def test_guidellms_time_between_tokens_is_tpot() -> None:
    found = read(json.dumps(GUIDELLM), engine="vllm")
    assert values(found) == {"ttft": 0.025, "tpot": 0.001}
    assert (found["tpot"].concurrency, found["tpot"].input_len, found["tpot"].output_len) == (8, 1024, 256)


@pytest.mark.parametrize(
    ("plain", "said"),
    [
        ({**VLLM, "max_concurrency": None}, "sent at once"),
        ({**VLLM, "completed": 0}, "no request of it came to an end"),
        ({**VLLM, "total_input_tokens": None}, "not how long prompts"),
    ],
)
def test_runs_that_say_nothing_are_refused(plain: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        read(json.dumps(plain))


def test_without_a_device_it_says_where_to_name_one() -> None:
    with pytest.raises(InvalidInputError, match="no accelerator") as refused:
        read_results(json.dumps(VLLM), date="d", provenance="a", verified=True)
    assert "--accelerator NAME --import" in refused.value.remedy


def test_flags_fill_up_rows_of_a_table_and_never_overrule_them() -> None:
    found = read_results(
        "gpu,concurrency,tpot_ms\nA100 80GB,8,0.9\n", date="d", provenance="a", verified=True, given=H100
    )
    assert found.speeds[0].conditions.accelerator.startswith("A100")
    assert found.speeds[0].conditions.model == "guide"
