"""Rows of a table, planned."""

import pytest

from servolt import settings
from servolt.errors import InvalidInputError
from servolt.library import plan
from servolt.study.bulk import ANSWERS, Defaults, Planner, answers, columns_of, read_row


def test_a_row_is_a_deployment_and_a_workload_and_an_empty_cell_is_not_set() -> None:
    row = {
        "id": "7",
        "model": "org/name:fp8",
        "tensor_parallel_size": "2",
        "max_model_len": "8k",
        "enforce_eager": "true",
        "hardware.accelerator": "H100",
        "hardware.count": "",
        "engine_args.x": "1.5",
        "limit_mm_per_prompt": '{"image": 2}',
        "concurrency": "1, 4 8",
        "input_tokens": "1024",
    }
    deployment, workload = read_row(row)
    assert (deployment.label, deployment.tensor_parallel_size, deployment.max_model_len) == ("org/name:fp8", 2, 8000)
    assert deployment.hardware is not None
    assert deployment.hardware.model_fields_set == {"accelerator"}
    assert (deployment.engine_args, deployment.limit_mm_per_prompt) == ({"x": 1.5}, {"image": 2})
    assert (workload.concurrency, workload.input_len) == ((1, 4, 8), 1024)


def test_defaults_hold_where_a_row_says_nothing() -> None:
    defaults = Defaults({"engine": "vllm", "hardware": {"accelerator": "H100"}}, {"input_len": 512})
    row = {"model": "m", "hardware.count": "2", "input_len": ""}
    deployment, workload = read_row(row, defaults)
    assert deployment.engine == "vllm"
    assert deployment.hardware is not None
    assert (deployment.hardware.accelerator, deployment.hardware.count, workload.input_len) == ("H100", 2, 512)
    assert defaults.deployment["hardware"] == {"accelerator": "H100"}  # and the next row finds it as it was


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (["model", "tensor_paralel_size"], "tensor_parallel_size"),
        (["model", "model"], "twice"),
        (["engine"], "model"),
        (["model", ""], "''"),
    ],
)
def test_a_column_that_is_no_field_is_refused_before_anything_is_planned(header: list[str], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        columns_of(header)


def test_each_row_is_answered_or_refused_in_its_place() -> None:
    rows = [
        {"model": "guide", "concurrency": "2"},
        {"model": "no-such-model"},
        {"model": "guide", "max_model_len": "-3"},
        {"model": ""},
        {"model": "guide:f16"},
    ]
    found = list(answers(rows, Planner(settings.folders()), "0"))
    assert [row["code"] for row in found] == [None, "E-MOD-001", "E-USE-001", "E-USE-001", None]
    assert all(set(row) == set(ANSWERS) for row in found)
    assert all(row["remedy"] for row in found if row["code"])
    assert found[1]["tpot"] is None
    one = plan("guide", {"concurrency": 2})
    assert found[0]["tpot"] == one.predictions["tpot"].value
    assert found[0]["weights_bytes"] == one.memory.weights_bytes
    assert found[0]["planned_max_model_len"] == one.memory.max_model_len


def test_a_fault_of_the_planner_costs_one_row() -> None:
    def broken(*args: object) -> None:
        raise KeyError("x")

    found = list(answers([{"model": "a"}, {"model": "b"}], broken, "0"))  # type: ignore[arg-type]
    assert [row["code"] for row in found] == ["E-BUG-001", "E-BUG-001"]
