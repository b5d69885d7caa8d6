"""`servolt plan` with --explain, --link, --from, --against and --batch."""

import csv
import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_a_saved_plan_is_planned_again_and_flags_win(servolt: Run, tmp_path: Path) -> None:
    saved = tmp_path / "plan.json"
    servolt("plan", "guide:f16", "--concurrency", "2", "--input-len", "99", "-o", str(saved))
    first = json.loads(saved.read_text())
    again = json.loads(servolt("plan", "--from", str(saved), "--json").stdout)
    assert (again["deployment_digest"], again["workload"]) == (first["deployment_digest"], first["workload"])
    as_model = json.loads(servolt("plan", str(saved), "--json").stdout)
    assert as_model["deployment_digest"] == first["deployment_digest"]
    changed = json.loads(servolt("plan", "--from", str(saved), "--json", "--max-num-seqs", "2").stdout)
    assert (changed["deployment"]["quantization"], changed["deployment"]["max_num_seqs"]) == ("f16", 2)
    loaded = json.loads(servolt("plan", "--from", str(saved), "--json", "--concurrency", "3").stdout)
    assert (loaded["workload"]["input_len"], loaded["workload"]["concurrency"]) == (99, [3])


@pytest.mark.parametrize("text", [None, "", "{", '{"schema": "servolt.deployment/1", "model": "guide"}', "[]"])
def test_what_is_no_saved_plan_is_refused(servolt: Run, tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "x.json"
    if text is not None:
        file.write_text(text)
    result = servolt("plan", "--from", str(file))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("Error [E-USE-001]")


def test_a_link_plans_what_it_was_made_of(servolt: Run) -> None:
    link = servolt("plan", "guide:f16", "--concurrency", "3", "--link").stdout.strip()
    assert link.startswith("servolt://plan?v=1&concurrency=3&engine=llamacpp")
    found = json.loads(servolt("plan", link, "--json").stdout)
    assert (found["deployment"]["quantization"], found["workload"]["concurrency"]) == ("f16", [3])
    refused = servolt("plan", link + "&tp=2")
    assert (refused.returncode, "tp is none of its fields" in refused.stderr) == (2, True)


def test_explain_names_the_formula_of_each_figure(servolt: Run) -> None:
    found = json.loads(servolt("plan", "guide", "--explain", "--json").stdout)
    assert found["schema"] == "servolt.explanation/1"
    assert {line["about"] for line in found["items"]} == {"memory", "step", "prediction"}
    people = servolt("plan", "guide", "--explain").stdout
    assert "4 sequences x 2,048 cells x 2,048 B" in people


def test_two_plans_are_compared_under_one_workload(servolt: Run) -> None:
    found = json.loads(servolt("plan", "guide:q8_0", "--against", "guide:f16", "--input-len", "32", "--json").stdout)
    assert found["schema"] == "servolt.plan_comparison/1"
    assert {one["field"] for one in found["differs"]} == {"quantization", "model: weights"}
    people = servolt("plan", "guide:q8_0", "--against", "guide:f16").stdout
    assert "probably the first" in people


def test_a_table_is_answered_row_by_row(servolt: Run, tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text('id,model,concurrency,max_model_len\nx,guide,"1,4",\ny,nope,,\nz,guide:f16,,512\n')
    result = servolt("plan", "--batch", str(source), "-o", str(target), "--input-len", "32")
    assert result.returncode == 0
    assert "3 rows, 1 of them refused" in result.stderr
    rows = list(csv.DictReader(io.StringIO(target.read_text())))
    assert [row["id"] for row in rows] == ["x", "y", "z"]
    assert [row["verdict"] for row in rows] == ["fits", "", "fits"]
    assert [row["code"] for row in rows] == ["", "E-MOD-001", ""]
    assert (rows[0]["concurrency"], rows[2]["planned_max_model_len"]) == ("1,4", "512")
    assert float(rows[0]["tpot_low"]) < float(rows[0]["tpot"]) < float(rows[0]["tpot_high"])
    assert not list(tmp_path.glob("*.partial"))
    as_json = json.loads(servolt("plan", "--batch", str(source), "--input-len", "32", "--json").stdout)
    assert [row["id"] for row in as_json["items"]] == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("model,tensor_paralel_size\nguide,1\n", "tensor_parallel_size"),
        ("model\nguide,3\n", "row 2 has 2 cells"),
        ('model\n"guide\n', "no CSV"),
    ],
)
def test_a_table_that_can_not_be_read_is_refused_before_anything_is_written(
    servolt: Run, tmp_path: Path, text: str, said: str
) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text(text)
    result = servolt("plan", "--batch", str(source), "-o", str(target))
    assert (result.returncode, said in result.stderr, target.exists()) == (2, True, False)


def test_two_doors_at_once_are_refused(servolt: Run) -> None:
    result = servolt("plan", "guide", "--explain", "--link")
    assert (result.returncode, "--explain and --link exclude each other" in result.stderr) == (2, True)


def test_a_model_may_be_stated_by_its_figures(servolt: Run) -> None:
    device = ("--accelerator", "H100", "--engine", "vllm")
    found = json.loads(servolt("plan", "--params", "8B", "--layers", "32", *device, "--json").stdout)
    assert (found["model"]["basis"], found["model"]["num_layers"]) == ("stated", 32)
    again = json.loads(servolt("plan", found["deployment"]["model"], *device, "--json").stdout)
    assert again["memory"] == found["memory"]
    for wrong in (("--layers", "32"), ("guide", "--params", "8B"), ("--params", "many")):
        refused = servolt("plan", *wrong, *device)
        assert (refused.returncode, refused.stdout) == (2, "")


def test_what_the_second_deployment_does_not_say_is_as_in_the_first(servolt: Run, tmp_path: Path) -> None:
    first = {"model": "Qwen/Qwen3-8B", "engine": "vllm", "engine_version": "0.19.0", "max_model_len": 8192}
    first |= {"hardware": {"accelerator": "H100"}, "gpu_memory_utilization": 0.9}
    (tmp_path / "first.json").write_text(json.dumps(first))
    (tmp_path / "model.json").write_text('{"model": "Qwen/Qwen3-14B"}')
    (tmp_path / "engine.yaml").write_text("model: Qwen/Qwen3-8B\nengine: sglang\nhardware: {accelerator: H200}\n")

    def differs(other: str) -> dict[str, tuple[object, object]]:
        said = servolt("plan", "--deployment", str(tmp_path / "first.json"), "--against", other, "--json")
        found = json.loads(said.stdout)["differs"]
        return {one["field"]: (one["first"], one["other"]) for one in found if ":" not in one["field"]}

    assert differs("Qwen/Qwen3-14B") == {"model": ("Qwen/Qwen3-8B", "Qwen/Qwen3-14B")}
    assert differs(str(tmp_path / "model.json")) == {"model": ("Qwen/Qwen3-8B", "Qwen/Qwen3-14B")}
    other = differs(str(tmp_path / "engine.yaml"))
    assert other["engine"] == ("vllm", "sglang")
    assert other["hardware.accelerator"] == ("H100", "H200")
    assert other["gpu_memory_utilization"] == (0.9, None)  # vllm's own
    assert "max_model_len" not in other


def test_a_document_that_is_nested_without_end_is_refused(servolt: Run, tmp_path: Path) -> None:
    deep = tmp_path / "deep.json"
    deep.write_text('{"model": "guide", "engine_args": ' + '{"a": ' * 200_000 + "1" + "}" * 200_001)
    for flag in ("--deployment", "--workload", "--measured"):
        words = [] if flag == "--deployment" else ["guide", "--accelerator", "H100"]
        result = servolt("plan", *words, flag, str(deep))
        assert result.returncode == 2
        assert "nested too deep" in result.stderr
