"""Every command of the matrix, read by the engine's own parser of the version that it is written for."""

from pathlib import Path
from typing import Any

import pytest

from servolt import registry
from servolt.engines.flags import versions
from servolt.errors import InvalidInputError
from tests.parsers.checked import PARSED, environment_of
from tests.parsers.matrix import FULL, commands
from tests.parsers.readers import read, refused
from tests.parsers.words import words_of

ENGINES = [
    (engine, version)
    for engine in ("vllm", "sglang", "transformers")
    for version in versions(engine)
    if environment_of(engine, version) is not None
]
LEAST = {"vllm": 100, "sglang": 80, "transformers": 30, "llamacpp": 60}  # of the matrix, that are commands at all

# What the newest parsers make of the deployment with all settings at once, under their own names.
EXPECTED: dict[str, dict[str, Any]] = {
    "vllm": {
        **{name: value for name, value in FULL["vllm"].items() if name not in ("served_model_name", "max_loras")},
        "served_model_name": ["qwen"],
        "max_loras": 3,
        "speculative_config": {"method": "eagle3", "model": "some/heads", "num_speculative_tokens": 3},
    },
    "sglang": {
        "context_length": 8192,
        "max_running_requests": 64,
        "chunked_prefill_size": 4096,
        "kv_cache_dtype": "fp8_e4m3",
        "disable_radix_cache": True,
        "dtype": "bfloat16",
        "quantization": "fp8",
        "tp_size": 4,
        "pp_size": 2,
        "ep_size": 4,
        "attn_dp_size": 4,
        "mem_fraction_static": 0.8,
        "page_size": 32,
        "swa_full_tokens_ratio": 0.5,
        "cuda_graph_max_bs_decode": 128,
        "cpu_offload_gb": 8,
        "limit_mm_data_per_request": {"image": 2},
        "speculative_algorithm": "EAGLE3",
        "speculative_draft_model_path": "some/heads",
        "speculative_num_steps": 3,
        "speculative_num_draft_tokens": 4,
        "enable_lora": True,
        "max_loras_per_batch": 3,
        "max_lora_rank": 64,
        "trust_remote_code": True,
        "served_model_name": "qwen",
        "enable_metrics": True,
    },
    "transformers": {
        "cb_max_batch_tokens": 4096,
        "dtype": "bfloat16",
        "cb_max_memory_percent": 0.7,
        "cb_block_size": 32,
        "cb_use_cuda_graph": False,
        "quantization": "bnb-4bit",
        "trust_remote_code": True,
        "continuous_batching": True,
    },
}
# What a target says in its own way: where it listens, what it calls the model, which machine this is.
OWN = {"host", "port", "node_rank", "model", "model_tag", "model_path", "force_model", "config", "config_file"}


def every_export(engine: str, version: str | None, folder: Path) -> list[dict[str, list[list[str]]]]:
    """For each command of the matrix the words of each start, by target."""
    found = []
    for command in commands(engine, version):
        starts = {}
        for target in PARSED:
            try:
                text = registry.launcher(target).render(command)
            except InvalidInputError:
                continue
            starts[target] = words_of(target, text, folder)
        found.append(starts)
    return found


def each_once(exports: list[dict[str, list[list[str]]]]) -> list[list[str]]:
    words = {tuple(start): None for starts in exports for several in starts.values() for start in several}
    return [list(one) for one in words]


@pytest.mark.engines
@pytest.mark.parametrize(("engine", "version"), ENGINES, ids=str)
def test_the_engine_takes_every_export(engine: str, version: str, tmp_path: Path) -> None:
    exports = every_export(engine, version, tmp_path)
    items = each_once(exports)
    assert len(exports) >= LEAST[engine]
    assert {"shell", "systemd", "env", "llama-swap", "skypilot"} <= set(exports[-1])
    wrong = [*items[0], "--no-such-option"]
    release, verdicts = read(engine, [*items, wrong], environment_of(engine, version))
    assert release == version
    assert [words for _, words in refused([*items, wrong], verdicts)] == [wrong], refused(items, verdicts[:-1])[:5]
    made = {tuple(words): verdict.values for words, verdict in zip(items, verdicts, strict=False)}
    for starts in exports:
        assert_all_targets_say_the_same(starts, made)
    if version == versions(engine)[-1]:
        values = made[tuple(exports[-1]["shell"][0])]
        assert {name: values.get(name) for name in EXPECTED[engine]} == EXPECTED[engine]


def assert_all_targets_say_the_same(
    starts: dict[str, list[list[str]]], made: dict[tuple[str, ...], dict[str, Any]]
) -> None:
    said = {target: _settings(made[tuple(several[0])]) for target, several in starts.items()}
    for target, settings in said.items():
        expected = dict(said["shell"])
        if target == "kserve":  # its controller always gives the model a name
            settings.pop("served_model_name", None)
            expected.pop("served_model_name", None)
        assert settings == expected, target


def _settings(values: dict[str, Any]) -> dict[str, Any]:
    """Prefix caching is on in vLLM where nothing is said, and the chart of production-stack has to say it."""
    kept = {name: value for name, value in values.items() if name not in OWN}
    return {name: value for name, value in kept.items() if not (name == "enable_prefix_caching" and value)}


@pytest.mark.engines
def test_llama_cpps_own_parser_takes_every_export(tmp_path: Path) -> None:
    exports = every_export("llamacpp", None, tmp_path)
    items = each_once(exports)
    assert len(exports) >= LEAST["llamacpp"]
    assert {"shell", "docker", "compose", "kubernetes", "systemd", "env", "llama-swap"} <= set(exports[-1])
    wrong = [*items[0], "--no-such-option"]
    _, verdicts = read("llamacpp", [*items, wrong])
    assert [words for _, words in refused([*items, wrong], verdicts)] == [wrong]
    made = {tuple(words): verdict.values for words, verdict in zip(items, verdicts, strict=False)}
    for starts in exports:
        assert_all_targets_say_the_same(starts, made)


def test_llama_cpp_reads_what_was_planned() -> None:
    command = commands("llamacpp")[-1]
    (verdict,) = read("llamacpp", [["llama-server", *command.at(8123).argv[1:]]])[1]
    assert verdict.fault is None
    expected = {
        "n_ctx": 3 * 4096,
        "n_parallel": 3,
        "n_batch": 1024,
        "n_ubatch": 256,
        "port": 8123,
        "n_gpu_layers": 20,
        "cache_prompt": False,
        "kv_unified": True,
        "fit_params": False,
        "threads": 4,
        "cache_type_k": "GGML_TYPE_Q8_0",
        "cache_type_v": "GGML_TYPE_Q8_0",
        "flash_attn": "LLAMA_FLASH_ATTN_TYPE_ENABLED",
        "alias": ["qwen"],
        "model": "/models/qwen.gguf",
    }
    assert {name: verdict.values[name] for name in expected} == expected
