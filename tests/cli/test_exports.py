"""`servolt plan ... --export TARGET`."""

import json
import re

import pytest
import yaml

from servolt.cli.rendered import TARGETS
from tests.cli.conftest import Run

VLLM = ("plan", "Qwen/Qwen3-8B", "--engine", "vllm", "--accelerator", "H100 SXM5 80GB", "--tp", "2")


@pytest.mark.parametrize("target", [target for target in TARGETS if target != "modelfile"])
def test_a_plan_for_other_hardware_is_exported(servolt: Run, target: str) -> None:
    result = servolt(*VLLM, "--max-model-len", "8K", "--export", target)
    assert result.returncode == 0, result.stderr
    assert "Qwen/Qwen3-8B" in result.stdout
    if target in ("json", "yaml"):
        assert yaml.safe_load(result.stdout)["argv"][:3] == ["vllm", "serve", "Qwen/Qwen3-8B"]
    else:
        assert re.match(r"# servolt \S+: vllm 0\.33\.0, deployment [0-9a-f]{12}\n", result.stdout)
        assert re.search(r"^#\s+weights\s+[\d.]+ GiB\s+\[", result.stdout, re.MULTILINE)
        assert re.search(r"^# KV cache: room for [\d,]+ tokens", result.stdout, re.MULTILINE)


def test_a_plan_for_this_machine_is_exported_for_ollama(servolt: Run) -> None:
    result = servolt("plan", "guide", "--max-model-len", "2048", "--max-num-seqs", "2", "--export", "modelfile")
    assert re.search(r"^FROM /.*guide-q8_0\.gguf\nPARAMETER num_ctx 2048$", result.stdout, re.MULTILINE)


def test_the_targets_are_listed_in_the_help_and_for_one_that_is_none(servolt: Run) -> None:
    shown = re.sub(r"\s+", "", servolt("plan", "--help").stdout)
    refused = servolt("plan", "guide", "--export", "nomad")
    assert refused.returncode == 2
    for target in TARGETS:
        assert target in shown
        assert target in refused.stderr


def test_what_a_target_can_not_hold_is_a_usage_error_that_says_what(servolt: Run) -> None:
    result = servolt("plan", "guide", "--export", "kserve")
    assert result.returncode == 2
    assert "kserve can't hold a start of llamacpp." in result.stderr


def test_a_setting_that_the_engine_lacks_stops_the_export(servolt: Run) -> None:
    result = servolt(*VLLM, "--mem-fraction-static", "0.8", "--export", "shell")
    assert result.returncode == 2
    assert "sglang" in result.stderr
    assert result.stdout == ""


def test_an_image_of_ones_own_takes_the_place_of_the_engines(servolt: Run) -> None:
    text = servolt(*VLLM, "--export", "docker", "--image", "registry.example/vllm:mine").stdout
    assert "registry.example/vllm:mine serve Qwen/Qwen3-8B" in text
    assert "--entrypoint vllm" in text


def test_the_command_is_a_document_that_can_be_read_back(servolt: Run) -> None:
    from servolt.command import Command

    text = servolt(*VLLM, "--export", "json").stdout
    assert json.loads(text)["schema"] == "servolt.command/1"
    assert Command.from_json(text).devices is not None


@pytest.mark.parametrize(
    ("given", "option", "words"),
    [
        (VLLM, "max_model_len", "--max-model-len 8000"),
        (VLLM, "--max-model-len", "--max-model-len 8000"),
        (["plan", "guide", "--engine", "llamacpp"], "max_num_seqs", "-np 2 -c 16000"),
    ],
)
def test_one_option_is_exported_alone(servolt: Run, given: list[str], option: str, words: str) -> None:
    more = ["--max-model-len", "8k", "--max-num-seqs", "2", "--export", "shell", "--only", option]
    assert servolt(*given, *more).stdout == f"{words}\n"


def test_an_option_that_is_not_in_the_command_is_an_error_that_says_what_is(servolt: Run) -> None:
    result = servolt(*VLLM, "--max-model-len", "8k", "--export", "shell", "--only", "block_size")
    assert result.returncode == 2
    assert "It has --max-model-len" in result.stderr
    assert servolt(*VLLM, "--export", "docker", "--only", "block_size").returncode == 2
