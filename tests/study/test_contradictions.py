"""What a log and the deployment that is said to be its own contradict each other in.

The log's figures are those of Llama-3.1-8B on one H100 with vLLM 0.19 (jgchn/llm-d-planner, branch accuracy); those of
its graphs are made up.
"""

from pathlib import Path
from typing import Any

import pytest

from servolt import settings
from servolt.errors import InvalidInputError
from servolt.settings import Folders
from servolt.study.learn import Lesson, learn_log, read_known

LLAMA = """\
INFO [core.py:109] Initializing a V1 LLM engine (v{version}) with config: model='meta-llama/Llama-3.1-8B-Instruct', \
dtype=torch.bfloat16, max_seq_len=8192, tensor_parallel_size=1, pipeline_parallel_size=1, quantization=None, \
enforce_eager=False, kv_cache_dtype=auto
INFO Model loading took 14.99 GiB memory and 12.0 seconds
INFO Available KV cache memory: 54.15 GiB
INFO GPU KV cache size: 443,584 tokens
DEBUG Free memory on device (78.68/79.19 GiB) on startup. Desired GPU memory utilization is (0.9, 71.27 GiB). Actual \
usage is 14.99 GiB for weight, 1.89 GiB for peak activation, 0.25 GiB for non-torch memory
INFO CUDA graph pool memory: 0.62 GiB (actual), 0.85 GiB (estimated)
"""


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("SERVOLT_HOME", str(tmp_path / "home"))
    return settings.folders({"SERVOLT_HOME": str(tmp_path / "home")})


def learn(folders: Folders, *, version: str = "0.19.0", force: bool = False, **given: Any) -> Lesson:
    said = {"hardware": {"accelerator": "H100 SXM"}, **given}
    return learn_log(LLAMA.format(version=version), folders, given=said, force=force)


def test_the_log_of_another_model_is_refused_and_says_what_to_check(folders: Folders) -> None:
    with pytest.raises(InvalidInputError, match=r"15\.0 GiB of weights and names meta-llama/Llama-3\.1-8B") as refused:
        learn(folders, model="Qwen/Qwen3-32B")
    assert "--tensor-parallel-size" in refused.value.remedy
    assert not read_known(folders), "nothing of it is kept"


def test_with_force_it_is_kept_and_said(folders: Folders) -> None:
    lesson = learn(folders, model="Qwen/Qwen3-32B", force=True)
    assert read_known(folders).memory == (lesson.row,)
    assert any("names meta-llama/Llama-3.1-8B-Instruct" in problem.message for problem in lesson.problems)


def test_the_log_of_the_model_itself_is_learnt_without_a_word(folders: Folders) -> None:
    assert learn(folders, gpu_memory_utilization=0.9, kv_cache_dtype="auto", max_model_len=8192).problems == ()


def test_a_model_of_the_same_size_under_another_name_is_told(folders: Folders) -> None:
    (problem,) = learn(folders, model="Qwen/Qwen3-8B").problems
    assert (problem.code, problem.severity) == ("log_contradicts", "warning")
    assert "Qwen/Qwen3-8B" in problem.message


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"gpu_memory_utilization": 0.95}, {"utilization": 0.9}),
        ({"max_model_len": 4096}, {"max_model_len": 8192}),
        ({"kv_cache_dtype": "fp8"}, {"kv_cache_dtype": None}),
        ({"tensor_parallel_size": 2}, {"tp": 1}),
        ({"engine_version": "0.20.0"}, {"engine_version": "0.19.0"}),
        ({"dtype": "float16"}, {"dtype": "bfloat16"}),
    ],
)
def test_settings_that_the_log_tells_otherwise_are_told_and_kept_as_they_ran(
    folders: Folders, given: dict[str, Any], kept: dict[str, Any]
) -> None:
    lesson = learn(folders, **given)
    (problem,) = lesson.problems
    (name,) = given
    assert f"The log says {name}" in problem.message
    assert "--force" in problem.remedy
    where = lesson.row.conditions.model_dump()
    assert {name: where[name] for name in kept} == kept


def test_with_force_what_is_said_stands(folders: Folders) -> None:
    lesson = learn(folders, gpu_memory_utilization=0.95, force=True)
    assert lesson.row.conditions.utilization == 0.95
    assert len(lesson.problems) == 1


def test_another_device_than_the_log_saw_is_told(folders: Folders) -> None:
    lesson = learn(folders, hardware={"accelerator": "A100 40GB"})
    assert any("79.2 GiB of memory on a device" in problem.message for problem in lesson.problems)


def test_both_meanings_of_the_graphs_are_kept(folders: Folders) -> None:
    """Since 0.21 the estimate is taken off the pool; what they take comes after."""
    row = learn(folders, version="0.21.0").row
    assert row.terms["graph"].bytes == round(0.85 * 2**30)
    assert row.graphs_taken_bytes == round(0.62 * 2**30)
    older = learn(folders, version="0.19.0").row
    assert (older.terms["graph"].bytes, older.graphs_taken_bytes) == (round(0.62 * 2**30), None)
