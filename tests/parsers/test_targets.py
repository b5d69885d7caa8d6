"""Every export of the matrix, read by what the target itself reads it with, or by its schema."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from servolt import registry
from servolt.cli.rendered import TARGETS
from servolt.command import Command
from servolt.engines.flags import versions
from servolt.errors import InvalidInputError
from tests.parsers.checked import DOCUMENT, ENGINES, PARSED, WITH, document
from tests.parsers.matrix import ACCELERATORS, FULL, commands
from tests.parsers.readers import read, refused
from tests.parsers.words import pods

# Ray's own classes are asked with the version of vLLM that is installed beside them.
RAY_VLLM = "0.32.0"
STEP = 30  # of the matrix, on devices other than the first


def exports(target: str, version: str | None = None, engines: tuple[str, ...] = tuple(ENGINES)) -> Iterator[str]:
    """Of every engine, and some on other kinds of devices; refusals are left out."""
    for engine in engines:
        for accelerator in ACCELERATORS:
            for command in commands(engine, version, accelerator, 1 if accelerator == ACCELERATORS[0] else STEP):
                text = _rendered(target, command)
                if text is not None:
                    yield text


def _rendered(target: str, command: Command) -> str | None:
    try:
        return registry.launcher(target).render(command)
    except InvalidInputError:
        return None


def asked(script: str, items: list[Any], environment: str | None, least: int) -> None:
    """None is refused; and something that is wrong is."""
    assert len(items) >= least
    _, verdicts = read(script, items, environment)
    assert refused(items, verdicts)[:5] == []


@pytest.mark.engines
def test_the_compose_specifications_parser_takes_every_file() -> None:
    asked("compose", list(exports("compose")), "targets", 200)
    (_, (verdict,)) = read("compose", ["services: {a: {image: x, comand: []}}"], "targets")
    assert verdict.fault is not None


@pytest.mark.engines
@pytest.mark.parametrize("target", ["kubernetes", "lws", "kserve", "rayservice"])
def test_kubernetes_own_schemas_take_every_document(target: str) -> None:
    items = []
    for text in exports(target):
        items += [one for one in yaml.safe_load_all(text) if one["apiVersion"] in ("v1", "apps/v1")]
        items += [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": pod} for pod in pods(text)]
    once = {json.dumps(item, sort_keys=True): item for item in items}
    asked("kubernetes", list(once.values()), "targets", 8)
    wrong = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"nam": "a"}]}}
    (_, (verdict,)) = read("kubernetes", [wrong], "targets")
    assert verdict.fault is not None


@pytest.mark.engines
@pytest.mark.parametrize("target", ["ray-serve", "rayservice"])
def test_rays_own_classes_and_vllms_take_every_file(target: str) -> None:
    items = [yaml.safe_load(text) for text in exports(target, RAY_VLLM, ("vllm",))]
    if target == "rayservice":
        items = [yaml.safe_load(item["spec"]["serveConfigV2"]) for item in items]
    asked("ray-serve", items, "engines", 100)


@pytest.mark.engines
def test_ray_reads_what_was_planned_and_knows_what_is_wrong() -> None:
    command = commands("vllm", RAY_VLLM)[-1]
    config = yaml.safe_load(registry.launcher("ray-serve").render(command))
    wrong = json.loads(json.dumps(config))
    wrong["applications"][0]["args"]["llm_configs"][0]["engine_kwargs"]["no_such_option"] = 1
    _, (right, verdict) = read("ray-serve", [config, wrong], "engines")
    assert verdict.fault is not None
    assert right.fault is None
    apart = {"served_model_name"}  # it is the model_id
    assert {name: right.values.get(name) for name in FULL["vllm"] if name not in apart} == {
        name: value for name, value in FULL["vllm"].items() if name not in apart
    }


@pytest.mark.engines
def test_skypilots_own_reader_takes_every_task() -> None:
    asked("skypilot", [yaml.safe_load(text) for text in exports("skypilot")], "targets", 100)
    (_, (verdict,)) = read("skypilot", [{"run": "true", "resources": {"accelerator": {"H100": 1}}}], "targets")
    assert verdict.fault is not None


@pytest.mark.engines
def test_a_linter_for_modelfiles_takes_every_file() -> None:
    asked("modelfile", list(exports("modelfile", None, ("llamacpp",))), "targets", 10)
    (_, (verdict,)) = read("modelfile", ["FROM /a.gguf\nPARAMETER num_context 4096\n"], "targets")
    assert verdict.fault is not None


@pytest.mark.parametrize("target", ["json", "yaml"])
def test_our_own_documents_are_read_back(target: str) -> None:
    for command in commands("vllm")[-5:]:
        text = command.to_json() if target == "json" else command.to_yaml()
        assert Command.from_plain(yaml.safe_load(text)) == command


def test_the_documents_table_says_what_is_checked_with_what() -> None:
    assert set(WITH) == set(TARGETS)
    assert set(PARSED) <= set(TARGETS)
    assert set(ENGINES) == {engine for engine in registry.names("engines") if engine != "replay"}
    assert all(versions(engine) for engine in ENGINES)
    text = DOCUMENT.read_text(encoding="utf-8")
    assert document(text) == text, "python -m tests.parsers.checked writes it anew"


def test_the_lock_files_name_versions_and_hashes_and_no_place() -> None:
    folder = Path(__file__).parents[2] / "tools" / "engine_envs" / "locks"
    for path in folder.glob("*.txt"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert line.startswith("    --hash=sha256:") or "==" in line.partition(" ")[0], (path.name, line)
            assert "://" not in line
