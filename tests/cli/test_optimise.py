"""`servolt plan --optimise` and the questions, as a user asks them."""

import csv
import io
import json
import shlex
import subprocess
from collections.abc import Callable

import pytest
from jsonschema import Draft202012Validator

from servolt.cli.schema import json_schema

Result = subprocess.CompletedProcess[str]
Run = Callable[..., Result]

MODEL = ("plan", "Qwen/Qwen3-8B", "--max-model-len", "8192", "--input-len", "512", "--output-len", "128")
SEARCH = (*MODEL, "--optimise", "--accelerators", "H100 SXM5 80GB,L40S", "--counts", "1,2", "--engines", "vllm")


def test_the_best_is_named_with_reasons_and_what_to_measure(servolt: Run) -> None:
    result = servolt(*SEARCH, "--max-tpot", "40ms")
    assert result.returncode == 0, result.stderr
    assert "BEST" in result.stdout
    assert "it is the cheapest of" in result.stdout.replace("It is", "it is")
    assert "bounds on times with a chance of" in " ".join(result.stdout.split())
    assert "cost_per_million_output_tokens" in result.stdout


def test_the_document_keeps_its_schema(servolt: Run) -> None:
    result = servolt(*SEARCH, "--json")
    plain = json.loads(result.stdout)
    assert plain["schema"] == "servolt.search/1"
    Draft202012Validator(json_schema("search")).validate(plain)
    assert plain["choice"]["devices"] in (1, 2)
    for advice in plain["measure"]:
        assert shlex.split(advice["command"])[:2] == ["servolt", "measure"]


def test_a_table_has_the_choice_first_and_one_row_for_each_of_the_front(servolt: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(servolt(*SEARCH, "--format", "csv").stdout)))
    assert rows[0]["row"] == "choice"
    assert {"front", "next"} <= {row["row"] for row in rows}
    assert float(rows[0]["cost_per_million_output_tokens"]) > 0


def test_where_nothing_fits_it_is_3_with_the_nearest_and_what_would_help(servolt: Run) -> None:
    result = servolt("plan", "Qwen/Qwen3-32B", "--optimise", "--accelerators", "L4", "--counts", "1")
    assert result.returncode == 3
    assert "nearest" in result.stdout
    assert "memory of a device" in result.stdout
    assert "E-FIT-001" in result.stderr
    assert "--counts" in result.stderr


def test_a_load_that_must_be_served_is_served(servolt: Run) -> None:
    plain = json.loads(servolt(*SEARCH, "--request-rate", "4", "--json").stdout)
    assert plain["choice"]["request_rate"] == 4
    assert plain["choice"]["figures"]["output_throughput"]["value"] == pytest.approx(4 * 128)


@pytest.mark.parametrize(
    ("question", "unit"),
    [("largest-context", "tokens"), ("largest-batch", "requests"), ("best-quantization", "")],
)
def test_questions_the_other_way_round(question: str, unit: str, servolt: Run) -> None:
    result = servolt(*MODEL, "--engine", "vllm", "--accelerator", "L40S", "--question", question, "--json")
    plain = json.loads(result.stdout)
    Draft202012Validator(json_schema("answer")).validate(plain)
    assert plain["unit"] == unit
    assert plain["value"]


def test_the_cheapest_accelerator_is_the_first_of_those_that_fit(servolt: Run) -> None:
    result = servolt(*MODEL, "--engine", "vllm", "--question", "cheapest-accelerator", "--json")
    plain = json.loads(result.stdout)
    known = [place["usd_per_hour"] for place in plain["places"] if place["usd_per_hour"] is not None]
    assert known == sorted(known)
    assert plain["value"] == plain["places"][0]["accelerator"]


def test_models_that_share_a_machine(servolt: Run) -> None:
    shared = ("--engine", "vllm", "--accelerator", "H100 SXM5 80GB", "--gpu-memory-utilization")
    together = ("--together", "Qwen/Qwen3-4B")
    assert servolt(*MODEL, *shared, "0.4", *together, "-q").stdout.split() == ["fits"]
    refused = servolt(*MODEL, *shared, "0.9", *together)
    assert refused.returncode == 3
    assert "do not fit" in refused.stdout


@pytest.mark.parametrize(
    "flags",
    [("--min-bits", "8"), ("--counts", "1"), ("--optimise", "--question", "largest-context"), ("--max-tpot", "soon")],
)
def test_flags_that_nothing_heeds_are_refused(flags: tuple[str, ...], servolt: Run) -> None:
    result = servolt(*MODEL, *flags)
    assert result.returncode == 2
    assert result.stdout == ""


def test_counts_are_numbers(servolt: Run) -> None:
    result = servolt(*MODEL, "--optimise", "--counts", "1,two")
    assert result.returncode == 2
    assert "'two' is no number of devices" in result.stderr


def test_speculation_wants_its_acceptance(servolt: Run) -> None:
    result = servolt(*SEARCH, "--speculations", "ngram:3")
    assert result.returncode == 2
    assert "how many tokens are accepted" in result.stderr
    plain = json.loads(servolt(*SEARCH, "--concurrency", "1", "--speculations", "none,ngram:3:1.5", "--json").stdout)
    assert plain["choice"]["deployment"]["speculative_config"]["acceptance"] == 1.5


def test_a_chance_to_keep_the_bounds_is_kept(servolt: Run) -> None:
    plain = json.loads(servolt(*SEARCH, "--max-tpot", "20ms", "--min-chance", "0.9", "--json").stdout)
    assert plain["choice"]["chance"] >= 0.9


def test_an_unknown_engine_is_refused_with_the_nearest() -> None:
    from servolt.errors import InvalidInputError
    from servolt.study.search import _engines_named

    assert _engines_named(["vLLM", "TensorRT-LLM"]) == ["vllm", "tensorrt_llm"]
    with pytest.raises(InvalidInputError, match="nearest: vllm"):
        _engines_named(["vlm"])


def test_of_what_breaks_a_budget_the_price_is_said_and_not_the_memory_of_others(servolt: Run) -> None:
    result = servolt(*SEARCH, "--max-usd-per-hour", "0.01")
    assert result.returncode == 3
    assert "USD/h in place of 0.01" in result.stderr
    assert "a request of the longest context" not in result.stdout


def test_lengths_that_nobody_said_are_told(servolt: Run) -> None:
    few = ("--accelerators", "L40S", "--counts", "1", "--engines", "vllm", "--max-model-len", "2048")
    result = servolt("plan", "Qwen/Qwen3-8B", "--optimise", *few)
    assert result.returncode == 0
    assert "--input-len" in result.stderr
    assert "--input-len" not in servolt(*SEARCH).stderr
