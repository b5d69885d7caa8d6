"""What `benchmarks.planner` makes of plans: errors, verdicts, goals, and the peers' answers."""

import doctest
import importlib
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.planner.answers import Answers
from benchmarks.planner.cases import Case
from benchmarks.planner.goals import goals_of
from benchmarks.planner.peers import WORKER, Peers
from benchmarks.planner.report import Report
from benchmarks.planner.score import Error, errors_of, quantile, rows
from benchmarks.planner.verdicts import verdicts_of
from servolt.library import plan
from servolt.plan import Plan

MODULES = ("answers", "cases", "classes", "columns", "engines", "names", "peer_worker", "score", "traps", "verdicts")


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_true(name: str) -> None:
    assert doctest.testmod(importlib.import_module(f"benchmarks.planner.{name}")).failed == 0


def case(**changes: Any) -> Case:
    plain: dict[str, Any] = {
        "id": "one",
        "kind": "agg",
        "deployment": {"model": "guide:q8_0", "engine": "llamacpp"},
        "workload": {"input_tokens": 16, "output_tokens": 16, "concurrency": 1},
        "seen": {"tpot": 0.01},
        "classes": ("dense",),
        "group": "guide x here",
    }
    return Case(**plain | changes)


def error(value: float | None, **changes: Any) -> Error:
    return Error(case(**changes), "tpot", 1.0, value, *((None, None) if value is None else (0.9, 1.2)))


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setenv("SERVOLT_HOME", str(tmp_path))
    return plan("guide:q8_0", case().workload)


def test_an_error_is_of_what_the_plan_says(made: Plan) -> None:
    predicted = made.predictions["tpot"].value
    assert predicted is not None
    (found,) = errors_of(case(seen={"tpot": predicted / 2}), made)
    assert found.size == pytest.approx(1)
    assert found.low is not None
    assert errors_of(case(), None)[0].size == math.inf


def test_a_refusal_counts_and_says_why() -> None:
    answers = Answers(plan)
    (found,) = answers.errors([case(deployment={"model": "no/such-model", "engine": "llamacpp"})])
    assert found.value is None
    assert not answers.plans
    assert len(answers.refusals) == 1


def test_the_worst_class_stands_first() -> None:
    errors = [error(1.1, classes=("good",))] * 5 + [error(2.0, classes=("bad",))] * 5
    assert [row.name for row in rows(errors, all_classes=True)] == ["all", "bad", "good"]
    (whole,) = rows([*errors, error(None)], all_classes=False)
    assert (whole.cases, whole.refused) == (11, 1)
    assert whole.inside == 1  # of those that say between what they lie


def test_a_quantile_of_refusals_has_no_bound() -> None:
    assert quantile([0.1, math.inf], 0.5) == math.inf
    assert quantile([0.1, 0.2, math.inf], 0.5) == 0.2


def test_false_verdicts_are_named(made: Plan) -> None:
    deployment = {"model": "guide:q8_0", "engine": "llamacpp", "hardware": {"accelerator": "L4"}}
    ran, out = (
        case(id=name, deployment=deployment, status=status) for name, status in (("a", "ok"), ("b", "later_oom"))
    )
    fits, no = (made.model_copy(update={"verdict": verdict}) for verdict in ("fits", "no"))
    found = verdicts_of([ran, out], {"a": no, "b": fits})
    assert (found.false_no, found.false_fits) == (("a",), ("b",))
    assert found.false_no_share == 1


def test_goals_say_whether_they_were_reached() -> None:
    near, far = [error(1.05)] * 10, [error(1.5)] * 10
    found = {goal.quantity: goal for goal in goals_of([], [], near, [far, near], [], [0.0], [], [0.01])}
    assert found["TPOT cold"].reached is True
    assert found["TPOT after 1 point"].reached is False
    assert found["power"].reached is None
    assert found["parameters, exact"].reached is True
    assert found["one plan, processor time"].reached is True


def test_a_trap_counts_for_no_goal() -> None:
    found = {goal.quantity: goal for goal in goals_of([], [], [error(9.0, trap="tuned")], [[], []], [], [], [], [])}
    assert found["TPOT cold"].cases == 0


def test_a_report_is_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(tables={"speed": rows([error(1.1)], all_classes=False)}, errors=[error(1.1)], plans=1, seconds=0.1)
    report.show(worst=1)
    assert "worst of agg: tpot" in capsys.readouterr().out
    report.write(tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["schema"] == "servolt.benchmark.planner/1"
    assert found["errors"][0]["id"] == "one"


def test_a_peer_that_is_not_installed_is_named() -> None:
    deployment = {"model": "acme/small", "engine": "vllm", "hardware": {"accelerator": "L4"}}
    peers = Peers(sys.executable, [case(deployment=deployment)], most=10)
    found, refusals = peers.rows([])
    assert not found
    assert all("not installed" in reason for reasons in refusals.values() for reason in reasons)
    assert set(refusals) == {"aiconfigurator", "hf-mem", "accelerate"}


def test_the_peers_worker_imports_nothing_of_the_project() -> None:
    asked = subprocess.run(
        [sys.executable, "-I", "-S", str(WORKER)], input="[]", capture_output=True, text=True, check=True, timeout=60
    )
    assert len(asked.stdout.splitlines()) == 3
