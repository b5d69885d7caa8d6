"""Results of others, in the forms in which people have them."""

import json
from pathlib import Path
from typing import Any

import pytest

from servolt.errors import InvalidInputError
from servolt.study.imported import Imported, read_results

CSV = """\
engine,engine_version,model,gpu,n_gpus,tp,precision,isl,osl,concurrency,tpot_ms,ttft_ms,output_tok_s,notes
vllm,0.19.0,guide,NVIDIA H100 80GB,2,2,,512,128,8,0.9,20,,a remark
vllm,0.19.0,guide,NVIDIA H100 80GB,2,2,,512,128,16,1.1,,14000,
"""


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("SERVOLT_HOME", str(tmp_path / "home"))


def read(text: str, **more: Any) -> Imported:
    return read_results(text, **{"date": "2026-11-20T00:00:00Z", "provenance": "a test", "verified": True, **more})


def row(**more: Any) -> dict[str, Any]:
    return {"model": "guide", "accelerator": "H100 SXM", "concurrency": 8, "tpot": 0.0009, **more}


def test_each_value_of_a_row_is_a_point_at_its_load() -> None:
    found = read(CSV)
    told = [(one.metric, round(one.value, 6), one.concurrency, one.input_len, one.output_len) for one in found.speeds]
    assert told == [
        ("tpot", 0.0009, 8, 512, 128),
        ("ttft", 0.02, 8, 512, 128),
        ("tpot", 0.0011, 16, 512, 128),
        ("output_throughput", 14000.0, 16, 512, 128),
    ]
    assert all((one.conditions.devices, one.conditions.tp) == (2, 2) for one in found.speeds)
    assert all((one.source, one.verified, one.provenance) == ("imported", True, "a test") for one in found.speeds)


def test_what_was_predicted_is_kept_beside_it() -> None:
    point = read(CSV).speeds[0]
    assert point.predicted is not None
    assert point.low is not None
    assert point.high is not None
    assert 0 < point.low < point.predicted < point.high


def test_terms_of_memory_are_read_too() -> None:
    text = "engine,engine_version,model,gpu,tp,weights_gib,non_torch_gib,kv_avail_gib,kv_tokens\n"
    (found,) = read(f"{text}vllm,0.19.0,guide,H100 SXM,1,0.01,0.25,70.5,123456\n").memory
    assert found.terms["overhead"].bytes == 2**28
    assert found.terms["weights"].predicted is not None
    assert found.kv_cache_tokens == 123_456


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([row()]),
        json.dumps({"items": [row()]}),
        json.dumps(row()),
        json.dumps(
            [
                {
                    "model": "guide",
                    "accelerator": "H100 SXM",
                    "metric": "tpot",
                    "value": 0.0009,
                    "workload": {"concurrency": 8},
                }
            ]
        ),
        "Model,GPU,Concurrency,TPOT_ms\nguide,H100 SXM,8,0.9\n",
    ],
)
def test_json_and_csv_say_the_same(text: str) -> None:
    (point,) = read(text).speeds
    assert (point.metric, round(point.value, 6), point.concurrency) == ("tpot", 0.0009, 8)


def test_a_rate_of_requests_is_a_load_too() -> None:
    point = read(json.dumps([row(concurrency=None, request_rate=2.5)])).speeds[0]
    assert (point.request_rate, point.concurrency) == (2.5, None)


def test_a_model_that_is_not_here_is_kept_by_name_and_said() -> None:
    found = read(json.dumps([row(model="org/no-such-model"), row(model="org/no-such-model", concurrency=16)]))
    assert [one.predicted for one in found.speeds] == [None, None]
    assert [problem.code for problem in found.problems] == ["model_not_found"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no row"),
        ("a,b\n1,2\n", "row 1: it has no model"),
        ("model,tpot_ms\nguide,1\n", "row 1: it has no accelerator"),
        ("model,gpu\nguide,H100 SXM\n", "no row of it has a value"),
        ("model,gpu,tpot_ms\nguide,H100 SXM,fast\n", "row 1: tpot_ms is 'fast'"),
        ("model,gpu,tpot_ms\nguide,H100 SXM,-1\n", "row 1: tpot_ms"),
        ("model,gpu,tpot_ms\nguide,H100 SXM,0\n", "row 1: tpot_ms is 0"),
        ("model,gpu,tpot_ms\nguide,H100 SXM,1e999\n", "row 1: tpot_ms"),
        ("model,gpu,tpot_ms,concurrency\nguide,H100 SXM,1,0\n", "row 1: .*concurrency"),
        ("model,gpu,tpot_ms,isl\nguide,H100 SXM,1,-5\n", "row 1: .*input_len"),
        ("model,gpu,tp,tpot_ms\nguide,H100 SXM,0,1\n", "row 1: .*tensor_parallel_size"),
        ("model,gpu,tpot_ms\nguide,H100 SXM,1\nguide,No Such GPU 9,1\n", "row 2: .*No Such GPU 9"),
        ("model,gpu,tpot_ms\nguide,H100 SXM,1,2,3\n", "longer than the first line"),
        ("[1, 2]", "no list of rows"),
        ("{broken", "not JSON"),
        ('[{"schema": "servolt.measurement/1"}]', "row 1: .*measurement"),
    ],
)
def test_what_can_not_be_read_says_which_row_and_why(text: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=f"(?s){said}"):
        read(text)
