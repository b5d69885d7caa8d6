"""The adapter of llama.cpp: the very command, the engine's counters under our names, its problems."""

import sys
from pathlib import Path

import pytest

from servolt.deployment import Deployment
from servolt.engines.llamacpp import LlamaCpp, max_model_len, max_num_seqs
from servolt.engines.llamacpp_runner import _parser
from servolt.errors import ModelFileError
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.sources import find_model

CPU = Accelerator(name="two cores", kind="cpu", count=2, memory_bytes=2**34, source="made up")


@pytest.fixture(scope="module")
def guide() -> Model:
    return find_model(Deployment.of("guide"))


def flags(deployment: Deployment, model: Model) -> str:
    """What follows the executable, with the folder left out."""
    argv = LlamaCpp().command(deployment, model).argv
    start = argv.index("-m", 2 if argv[0] == sys.executable else 0)
    return " ".join(argv[start:]).replace(model.files[0], "FILE")


USUAL = "--fit off --cache-ram 0 --metrics -lv 2 -ngl 0 --no-op-offload"
PLAIN = f"-m FILE -a guide --host 127.0.0.1 --port {{port}} -np 4 -c 8192 {USUAL}"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, PLAIN),
        (
            {"max_model_len": 512, "max_num_seqs": 2},
            f"-m FILE -a guide --host 127.0.0.1 --port {{port}} -np 2 -c 1024 {USUAL}",
        ),
        (
            {"threads": 3, "kv_cache_dtype": "q8_0", "enable_prefix_caching": False, "max_num_batched_tokens": 256},
            f"{PLAIN} -b 256 -ub 256 -ctk q8_0 -ctv q8_0 --no-cache-prompt -t 3 -tb 3",
        ),
        (
            {"enable_prefix_caching": True},
            PLAIN,
        ),
    ],
)
def test_a_deployment_is_a_command(guide: Model, settings: dict[str, object], expected: str) -> None:
    assert flags(Deployment.of("guide", **settings), guide) == expected


def test_an_embedding_model_takes_its_whole_input_in_one_step(guide: Model) -> None:
    model = guide.model_copy(update={"pooling": "mean", "max_position_embeddings": 512})
    assert "-c 2048" in flags(Deployment.of("guide"), model)
    assert flags(Deployment.of("guide"), model).endswith("--embedding --pooling mean -b 512 -ub 512")


@pytest.mark.parametrize(
    ("name", "alias"), [("guide:f16", "guide:f16"), ("/models/--a,b.gguf", "a b.gguf"), ("~/-", "model")]
)
def test_the_engine_calls_the_model_by_a_name_without_folders(guide: Model, name: str, alias: str) -> None:
    argv = LlamaCpp().command(Deployment.of(name), guide).argv
    assert argv[argv.index("-a") + 1] == alias


def test_a_llama_server_gets_the_same_flags(guide: Model) -> None:
    settings = {"threads": 1, "kv_cache_dtype": "q8_0"}
    own = LlamaCpp().command(Deployment.of("guide", **settings), guide)
    other = LlamaCpp().command(Deployment.of("guide", engine_executable="/opt/llama-server", **settings), guide)
    assert own.argv[:3] == (sys.executable, "-m", "servolt.engines.llamacpp_runner")
    assert other.argv == ("/opt/llama-server", *own.argv[3:])
    assert own.announces
    assert not other.announces
    assert own.deployment_digest != other.deployment_digest


def test_the_runner_knows_every_flag(guide: Model) -> None:
    every = {
        "max_model_len": 512,
        "max_num_seqs": 2,
        "max_num_batched_tokens": 256,
        "kv_cache_dtype": "q8_0",
        "enable_prefix_caching": False,
        "threads": 1,
    }
    command = LlamaCpp().command(Deployment.of("guide", **every), guide.model_copy(update={"pooling": "cls"})).at(8000)
    asked = _parser().parse_args(command.argv[3:])
    assert (asked.ctx_size, asked.parallel, asked.port, asked.fit) == (1024, 2, 8000, "off")
    assert (asked.batch_size, asked.ubatch_size, asked.cache_ram) == (256, 256, 0)
    assert (asked.cache_type_k, asked.cache_type_v, asked.threads, asked.threads_batch) == ("q8_0", "q8_0", 1, 1)
    assert (asked.cache_prompt, asked.embedding, asked.pooling, asked.metrics) == (False, True, "cls", True)
    assert (asked.alias, asked.model, asked.log_verbosity) == ("guide", guide.files[0], 2)
    assert (asked.gpu_layers, asked.op_offload) == (0, False)


def test_the_defaults_are_said_and_fit_the_model(guide: Model) -> None:
    assert max_num_seqs(Deployment.of("guide")) == 4
    assert max_model_len(Deployment.of("guide"), guide) == guide.max_position_embeddings == 2048
    long = guide.model_copy(update={"max_position_embeddings": 131072})
    assert max_model_len(Deployment.of("guide"), long) == 4096


def test_a_model_of_another_format_has_no_command(guide: Model) -> None:
    with pytest.raises(ModelFileError, match="is no GGUF file"):
        LlamaCpp().command(Deployment.of("guide"), guide.model_copy(update={"format": "replay", "files": ()}))


def test_counters_come_under_our_names() -> None:
    recorded = Path(__file__).with_name("llamacpp_metrics.txt").read_text(encoding="utf-8")
    assert LlamaCpp().readings(recorded) == {
        "prompt_tokens": 88,
        "cached_prompt_tokens": 50,
        "prefill_s": 0.029191,
        "output_tokens": 108,
        "decode_s": 0.053102,
        "decode_calls": 95,
        "requests_running": 0,
        "requests_waiting": 0,
    }


def test_a_counter_that_is_not_there_is_absent() -> None:
    assert LlamaCpp().readings("llamacpp:prompt_tokens_total 3\nsomething:else 4\n") == {"prompt_tokens": 3}
    assert LlamaCpp().readings("") == {}


def codes(model: Model, **settings: object) -> dict[str, str]:
    found = LlamaCpp().problems(Deployment.of("guide", **settings), model, [CPU])
    assert all(problem.message and problem.remedy for problem in found)
    return {problem.code: problem.severity for problem in found}


def test_a_usual_deployment_has_no_problem(guide: Model) -> None:
    assert codes(guide) == {}
    assert codes(guide, threads=1, kv_cache_dtype="q8_0", max_model_len=512) == {}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"threads": 2}, {"threads_take_all_cores": "warning"}),
        ({"kv_cache_dtype": "fp8"}, {"kv_cache_dtype": "error"}),
        ({"max_model_len": 4096}, {"context_beyond_training": "warning"}),
        ({"max_model_len": 500}, {"context_rounded": "note"}),
        ({"engine_executable": "/opt/llama-server"}, {"threads_unset": "warning"}),
    ],
)
def test_what_will_go_wrong_is_said_before(guide: Model, settings: dict[str, object], expected: dict[str, str]) -> None:
    assert codes(guide, **settings) == expected


@pytest.mark.parametrize(
    ("slots", "context", "expected"),
    [
        (256, 256, set()),
        (257, 256, {"too_many_sequences"}),
        (1, 2**31 - 256, set()),
        (1, 2**31 - 255, {"too_many_cells"}),
        (4, 2**29 - 1, {"too_many_cells"}),  # each is rounded up, and together they are 2**31
        (2, 2_000_000_000, {"too_many_cells"}),
    ],
)
def test_numbers_that_the_engine_does_not_start_with_are_errors(
    guide: Model, slots: int, context: int, expected: set[str]
) -> None:
    found = codes(guide, max_num_seqs=slots, max_model_len=context)
    assert {code for code, severity in found.items() if severity == "error"} == expected


def test_what_a_program_of_the_users_own_was_built_for_is_not_known(guide: Model) -> None:
    assert "too_many_sequences" not in codes(guide, max_num_seqs=300, engine_executable="/opt/llama-server")


def test_a_model_of_another_format_is_a_problem(guide: Model) -> None:
    assert codes(guide.model_copy(update={"format": "replay"})) == {"model_format": "error"}
