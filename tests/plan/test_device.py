"""Plans for named accelerators, from the deployment as people write it to the JSON that programs read."""

import json
from typing import Any

import pytest

from servolt.errors import InvalidInputError
from servolt.library import plan
from servolt.plan import Plan

LOAD = {"input_tokens": 1024, "output_tokens": 256, "concurrency": 16}


def deployment(**changes: Any) -> dict[str, Any]:
    """Llama 3.1 8B under vLLM 0.19 on one H100."""
    fields: dict[str, Any] = {
        "model": "meta-llama/Llama-3.1-8B-Instruct",
        "engine": "vllm",
        "engine_version": "0.19.0",
        "hardware": {"accelerator": "NVIDIA H100 80GB HBM3", "count": 1},
        "max_model_len": 8192,
        "gpu_memory_utilization": 0.95,
    }
    return fields | changes


def test_the_pool_is_what_the_engine_logs() -> None:
    """476,016 tokens: start-up log of vLLM 0.19.0 on an H100 80GB (jgchn/llm-d-planner, 2026-04)."""
    assert plan(deployment(), LOAD).memory.kv_cache_tokens == pytest.approx(476_016, rel=0.01)


def test_the_json_has_the_names_that_programs_rely_on() -> None:
    plain = json.loads(plan(deployment(), LOAD).to_json())
    assert plain["schema"] == "servolt.plan/1"
    assert plain["model"]["total_params"] == 8_030_261_248
    assert plain["model"]["active_params"] == 8_030_261_248
    names = ("total", "weights", "kv_cache", "state", "activation", "graph", "overhead", "available")
    for rank in plain["memory"]["per_rank"]:
        assert all(rank[f"{name}_bytes"] >= 0 for name in names)
        assert all(term["low"] <= term["bytes"] <= term["high"] for term in rank["terms"].values())
    assert plain["memory"]["kv_bytes_per_token"] == 131_072
    assert plain["memory"]["max_concurrency"] > 50
    for metric in ("ttft", "tpot", "output_throughput", "power", "energy_per_output_token", "load_time"):
        figure = plain["predictions"][metric]
        assert figure["low"] < figure["value"] < figure["high"]
        assert figure["unit"]
        assert figure["basis"] == "formula"
    assert plain["verdict"] == "fits"
    assert plain["binding"]
    assert plain["fixes"] == []


def test_a_plan_reads_what_it_writes() -> None:
    made = plan(deployment(), LOAD)
    assert Plan.from_json(made.to_json()) == made


def test_littles_law_holds_in_every_plan() -> None:
    figures = plan(deployment(), LOAD).predictions
    ttft, tpot, rate = (figures[name].value or 0 for name in ("ttft", "tpot", "output_throughput"))
    assert rate == pytest.approx(16 * 256 / (ttft + 255 * tpot))


def test_a_rate_of_requests_in_place_of_a_concurrency() -> None:
    slow = plan(deployment(), {"input_tokens": 1024, "output_tokens": 256, "rate": 1.0})
    assert slow.predictions["request_throughput"].value == pytest.approx(1.0, rel=0.01)
    impossible = plan(deployment(), {"input_tokens": 1024, "output_tokens": 256, "rate": 1e6})
    assert impossible.predictions["ttft"].value is None
    assert "faster" in (impossible.predictions["ttft"].reason or "")


def test_a_measured_point_corrects_this_plan_and_narrows_it() -> None:
    cold = plan(deployment(), LOAD).predictions["tpot"]
    known = [{"metric": "tpot", "workload": LOAD, "value": (cold.value or 0) * 1.3}]
    warm = plan(deployment(), LOAD, measured=known).predictions["tpot"]
    assert warm.basis == "measured"
    assert warm.value == pytest.approx(1.3 * (cold.value or 0), rel=0.1)
    assert (warm.high or 0) / (warm.low or 1) < (cold.high or 0) / (cold.low or 1)
    assert plan(deployment(), LOAD).predictions["tpot"] == cold  # nothing was kept


def test_what_does_not_fit_says_what_would_each_computed_again() -> None:
    made = plan(
        deployment(hardware={"accelerator": "RTX 4090"}, model="Qwen/Qwen3-14B", gpu_memory_utilization=0.9), LOAD
    )
    assert made.verdict == "no"
    assert made.fixes
    best = made.fixes[0]
    assert best.verdict in ("fits", "tight")


def test_two_devices_hold_half_of_the_weights_each() -> None:
    one = plan(deployment(), LOAD).memory
    two = plan(deployment(hardware={"accelerator": "H100", "count": 2}, tensor_parallel_size=2), LOAD).memory
    assert two.per_rank[0].ranks == 2
    assert two.weights_bytes == pytest.approx(one.weights_bytes / 2, rel=0.01)


def test_a_share_that_does_not_divide_is_a_problem_with_its_remedy() -> None:
    made = plan(deployment(hardware={"accelerator": "H100", "count": 3}, tensor_parallel_size=3), LOAD)
    errors = [problem for problem in made.problems if problem.severity == "error"]
    assert errors
    assert all(problem.remedy for problem in errors)


def test_an_unknown_accelerator_names_the_nearest() -> None:
    with pytest.raises(InvalidInputError, match="H100"):
        plan(deployment(hardware={"accelerator": "H1000"}), LOAD)


def test_a_version_that_is_not_known_is_planned_wider_and_said() -> None:
    known, unknown = (plan(deployment(engine_version=version), LOAD) for version in ("0.19.0", "9.9.9"))
    wide, narrow = unknown.memory.per_rank[0], known.memory.per_rank[0]
    assert wide.high_bytes - wide.low_bytes >= narrow.high_bytes - narrow.low_bytes
    assert any(problem.code == "planned_wider" for problem in unknown.problems)
