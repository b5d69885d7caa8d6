"""From a log to the data folder, and from there to the next plan."""

from pathlib import Path
from typing import Any

import pytest

from servolt import settings
from servolt.errors import InvalidInputError, StorageError
from servolt.settings import Folders
from servolt.study.learn import forget, keep, learn_log, read_known, read_text

# Written from llama.cpp's wordings; the sizes of the built-in model are its header's.
LLAMACPP = """\
srv    load_model: loading model 'guide-q8_0.gguf'
load_tensors:   CPU_Mapped model buffer size =     3.33 MiB
llama_context: n_seq_max     = 4
llama_context: n_ctx         = 8192
llama_context: n_ctx_seq     = 2048
llama_context: n_batch       = 2048
llama_context: n_ubatch      = 512
llama_kv_cache:        CPU KV buffer size =    16.00 MiB
llama_kv_cache: size =   16.00 MiB (  2048 cells,   4 layers,  4/4 seqs), K (f16):    8.00 MiB, V (f16):    8.00 MiB
sched_reserve:        CPU compute buffer size =     8.27 MiB
"""
VLLM = """\
INFO [core.py:109] Initializing a V1 LLM engine (v0.19.0) with config: model='org/no-such-model', \
dtype=torch.bfloat16, max_seq_len=8192, tensor_parallel_size=2, pipeline_parallel_size=1, kv_cache_dtype=auto
INFO Model loading took 7.51 GiB memory and 12.0 seconds
INFO Available KV cache memory: 63.76 GiB
INFO GPU KV cache size: 1,044,688 tokens
"""


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("SERVOLT_HOME", str(tmp_path / "home"))
    return settings.folders({"SERVOLT_HOME": str(tmp_path / "home")})


def learn(folders: Folders, text: str = VLLM, **given: Any) -> Any:
    return learn_log(text, folders, given=given)


def h100(**more: Any) -> dict[str, Any]:
    return {"hardware": {"accelerator": "H100 SXM"}, **more}


def test_a_log_is_compared_with_what_is_predicted_and_kept(folders: Folders) -> None:
    lesson = learn(folders, LLAMACPP, model="guide")
    assert {name: term.ratio for name, term in lesson.row.terms.items()} == pytest.approx(
        {"weights": 1.0, "kv_cache": 1.0, "activation": 1.0}, rel=0.01
    )
    assert (lesson.row.kv_cache_tokens, lesson.row.predicted_tokens) == (8192, 8192)
    assert lesson.problems == ()
    assert read_known(folders).memory == (lesson.row,)


def test_the_same_log_twice_is_kept_once(folders: Folders) -> None:
    learn(folders, LLAMACPP, model="guide")
    learn(folders, LLAMACPP, model="guide")
    assert len(read_known(folders).memory) == 1


def test_a_model_that_is_not_here_is_kept_by_its_name_and_said(folders: Folders) -> None:
    lesson = learn(folders, **h100())
    assert lesson.row.conditions.model == "no-such-model"
    assert lesson.row.terms["weights"].predicted is None
    assert [problem.code for problem in lesson.problems] == ["model_not_found"]


def test_the_devices_are_as_many_as_the_log_says(folders: Folders) -> None:
    where = learn(folders, **h100()).row.conditions
    assert (where.devices, where.tp, where.engine_version) == (2, 2, "0.19.0")


def test_without_a_device_there_is_nothing_to_learn_for(folders: Folders) -> None:
    with pytest.raises(InvalidInputError, match="device that it ran on"):
        learn(folders)
    assert not read_known(folders)


def test_without_a_model_there_is_nothing_to_learn_for(folders: Folders) -> None:
    with pytest.raises(InvalidInputError, match="name its model"):
        learn(folders, "INFO Available KV cache memory: 63.76 GiB\n", **h100())


def test_a_device_that_nobody_knows_is_refused_with_the_nearest(folders: Folders) -> None:
    with pytest.raises(InvalidInputError, match="H1000"):
        learn(folders, hardware={"accelerator": "H1000 XYZ"})


def test_a_log_of_another_engine_than_asked_is_refused(folders: Folders) -> None:
    with pytest.raises(InvalidInputError, match="log of vllm, and sglang is asked"):
        learn(folders, **h100(engine="sglang"))


def test_what_is_forgotten_is_gone(folders: Folders) -> None:
    row = learn(folders, LLAMACPP, model="guide").row
    other = learn(folders, **h100()).row
    assert forget(folders, [row.id[:6]]) == [row.id]
    assert read_known(folders).memory == (other,)
    assert forget(folders, ["all"]) == [other.id]
    with pytest.raises(InvalidInputError, match="nothing is known under"):
        forget(folders, ["abcdef"])


def test_a_damaged_file_is_named_and_left_alone(folders: Folders) -> None:
    row = learn(folders, LLAMACPP, model="guide").row
    path = folders.data / "known.json"
    path.write_text(path.read_text()[:200])
    with pytest.raises(StorageError, match=r"known\.json is damaged"):
        read_known(folders)
    with pytest.raises(StorageError, match=r"known\.json is damaged"):
        keep(folders, row)
    assert len(path.read_text()) == 200


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="can't be read"):
        read_text(tmp_path / "none.log")
    with pytest.raises(InvalidInputError, match="can't be read"):
        read_text(tmp_path)


def test_bytes_that_are_no_text_do_not_stop_a_log(folders: Folders, tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    path.write_bytes(b"\xff\xfe\x00garbage\n" + LLAMACPP.encode())
    assert learn(folders, read_text(path), model="guide").row.kv_cache_tokens == 8192
