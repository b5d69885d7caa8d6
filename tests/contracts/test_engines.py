"""What holds for every engine that is registered, ours or another's."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

from servolt import registry
from servolt.command import Command, Engine
from servolt.deployment import Deployment
from servolt.document import Problem
from servolt.errors import InvalidInputError
from servolt.gpu import Accelerator
from servolt.model import Model, model_from_config
from servolt.sources import find_model

ENGINES = registry.names("engines")
MODELS = {"replay": "replay"}  # the model on which an engine is tried; guide for all others
FOLDERS = {"sglang", "tensorrt_llm", "transformers", "vllm"}  # they read folders of safetensors, and no GGUF
WITHOUT_KEY = {"sglang", "tensorrt_llm", "transformers"}  # they take none by the environment, or none at all
CONFIG = {
    "model_type": "qwen3",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
    "max_position_embeddings": 40960,
    "torch_dtype": "bfloat16",
}
GPU = Accelerator(name="one of a kind", kind="gpu", vendor="NVIDIA", memory_bytes=2**36, source="made up")
CPU = Accelerator(name="two cores", kind="cpu", count=2, memory_bytes=2**34, source="made up")
IMPURE = {"aiohttp", "asyncio", "httpx2", "os", "psutil", "random", "socket", "subprocess", "threading", "time"}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    return registry.engine(request.param)


@pytest.fixture
def deployment(engine: Engine) -> Deployment:
    if engine.name in FOLDERS:
        return Deployment.of("Qwen/Qwen3-0.6B", engine=engine.name)
    return Deployment.of(MODELS.get(engine.name, "guide"), engine=engine.name)


@pytest.fixture
def model(deployment: Deployment) -> Model:
    if deployment.engine in FOLDERS:
        return model_from_config(CONFIG, name=deployment.model)
    return find_model(deployment)


@pytest.fixture
def accelerator(engine: Engine) -> Accelerator:
    return GPU if engine.name in ("sglang", "tensorrt_llm") else CPU


def test_all_of_ours_are_registered() -> None:
    assert {"llamacpp", "replay", *FOLDERS} <= set(ENGINES)


def test_an_engine_that_is_not_registered_is_named_with_those_that_are() -> None:
    with pytest.raises(InvalidInputError, match=r"no engine is called 'warp'.*llamacpp.*replay"):
        registry.engine("warp")


def test_it_goes_by_the_name_it_is_registered_under(engine: Engine, request: pytest.FixtureRequest) -> None:
    assert engine.name == request.node.callspec.params["engine"]
    assert engine.version is None or engine.version


def test_its_command_is_complete(engine: Engine, deployment: Deployment, model: Model) -> None:
    command = engine.command(deployment, model)
    assert (command.engine, command.deployment_digest) == (engine.name, deployment.digest)
    assert command.port is None
    assert any("{port}" in part for part in command.argv)
    assert command.ready_path.startswith("/")
    placed = command.at(4321)
    assert placed.port == 4321
    assert not any("{port}" in part for part in placed.argv)
    assert any("4321" in part for part in placed.argv)


def test_its_command_is_a_value(engine: Engine, deployment: Deployment, model: Model) -> None:
    command = engine.command(deployment, model)
    assert engine.command(deployment, model) == command
    assert Command.from_json(command.to_json()) == command
    assert Command.from_yaml(command.to_yaml()) == command


def test_it_listens_on_this_machine_only(engine: Engine, deployment: Deployment, model: Model) -> None:
    command = engine.command(deployment, model)
    assert command.host == "127.0.0.1"
    assert command.host in command.argv


def test_its_key_goes_by_the_environment(engine: Engine, deployment: Deployment, model: Model) -> None:
    command = engine.command(deployment, model)
    assert (command.api_key_variable is None) == (engine.name in WITHOUT_KEY)
    if command.api_key_variable is None:
        assert any("key" in problem.code for problem in engine.problems(deployment, model, ()))
    assert not any("key" in part.lower() for part in command.argv[3:] if part.startswith("-"))


def test_a_setting_that_is_asked_for_changes_the_command(engine: Engine, deployment: Deployment, model: Model) -> None:
    plain = engine.command(deployment, model)
    for changed in ({"max_model_len": 256}, {"max_num_seqs": 3}, {"enable_prefix_caching": False}):
        asked = Deployment.of(deployment.model, engine=engine.name, **changed)
        if any(problem.severity == "error" for problem in engine.problems(asked, model, ())):
            with pytest.raises(InvalidInputError):  # what it can't have, it does not leave out in silence
                engine.command(asked, model)
            continue
        other = engine.command(asked, model)
        assert other.argv != plain.argv
        assert other.deployment_digest != plain.deployment_digest


def test_its_overhead_is_some_bytes(engine: Engine, deployment: Deployment, model: Model) -> None:
    assert 2**20 < engine.overhead(deployment, model) < 2**34


@pytest.mark.parametrize("page", ["", "not a page of metrics", "# HELP a b\n", 'a{le="1"} NaN\n', "\0\n\xff"])
def test_a_page_without_its_counters_gives_no_readings(engine: Engine, page: str) -> None:
    assert engine.readings(page) == {}


def test_its_problems_are_values_with_a_remedy(
    engine: Engine, deployment: Deployment, model: Model, accelerator: Accelerator
) -> None:
    found = engine.problems(deployment, model, [accelerator])
    assert all(isinstance(problem, Problem) and problem.message and problem.remedy for problem in found)
    assert not [problem for problem in found if problem.severity == "error"]


def test_a_model_of_a_strange_format_is_a_problem_before_it_is_an_error(engine: Engine, model: Model) -> None:
    strange = model.model_copy(update={"format": "onnx"})
    found = engine.problems(Deployment.of("strange", engine=engine.name), strange, [CPU])
    assert "error" in {problem.severity for problem in found}


def test_its_adapter_does_nothing_to_the_world(engine: Engine) -> None:
    source = Path(inspect.getfile(type(engine)))
    tree = ast.parse(source.read_text(encoding="utf-8"))
    imported = {
        name.name.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names
    }
    imported |= {(node.module or "").partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not imported & IMPURE
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert "open" not in called
    assert importlib.import_module(type(engine).__module__).__all__
