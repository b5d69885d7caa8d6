"""The plan of a deployment on this machine: what it says before any arithmetic."""

import sys
from pathlib import Path

import pytest

from servolt import settings
from servolt.catalogue import AmbiguousNameError
from servolt.deployment import Deployment, Hardware
from servolt.settings import Folders
from servolt.study.plan import accelerator_of, plan_for, plan_here
from servolt.workload import Workload


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return settings.folders({"SERVOLT_HOME": str(tmp_path)})


@pytest.mark.parametrize(("what", "why"), [("none", "is not there"), ("", "is no program that can be run")])
def test_an_executable_that_can_not_be_run_is_an_error_of_the_plan(
    folders: Folders, tmp_path: Path, what: str, why: str
) -> None:
    deployment = Deployment.of("guide", engine_executable=str(tmp_path / what))
    plan = plan_here(deployment, Workload(), folders)
    errors = [one for one in plan.problems if one.severity == "error"]
    assert [one.code for one in errors] == ["engine_executable"]
    assert why in errors[0].message
    assert plan.command is None


def test_an_executable_of_ones_own_has_no_version_before_it_runs(folders: Folders) -> None:
    plan = plan_here(Deployment.of("guide", engine_executable=sys.executable), Workload(), folders)
    assert plan.engine_version is None
    assert plan.command is not None
    assert plan.command.argv[0] == sys.executable


def test_what_is_seen_of_its_memory_tells_which_of_two_cards_is_meant() -> None:
    def named(name: str, memory_gib: float | None = None) -> str:
        memory = None if memory_gib is None else round(memory_gib * 2**30)
        return accelerator_of(Deployment.of("guide", hardware={"accelerator": name, "memory_bytes": memory})).name

    assert (named("A100", 39.5), named("A100", 79.2)) == ("A100 SXM4 40GB", "A100 SXM4 80GB")
    with pytest.raises(AmbiguousNameError):  # other chips, not other sizes
        named("RTX 6000")


def test_a_card_of_two_sizes_is_the_smaller_and_that_is_said(folders: Folders) -> None:
    asked = Deployment.of("Qwen/Qwen3-8B", engine="vllm", hardware={"accelerator": "A100"})
    plan = plan_for(asked, Workload(), folders)
    assert plan.accelerator.name == "A100 SXM4 40GB"
    assert "A100 SXM4 80GB" in next(one.message for one in plan.problems if one.code == "accelerator_size")


@pytest.mark.parametrize(("name", "stored"), [("llama3.1:8b", "q4_k"), ("llama3.1:8b-instruct-q8_0", "q8_0")])
def test_a_tag_of_ollama_without_a_format_is_stored_as_its_library_stores_it(
    folders: Folders, name: str, stored: str
) -> None:
    asked = Deployment(model=name, engine="ollama", hardware=Hardware(accelerator="RTX 3090"))
    plan = plan_for(asked, Workload(), folders)
    assert plan.deployment.engine == "llamacpp"
    assert plan.model.quantization == stored
    assert plan.problems[0].code == "engine_inside"
