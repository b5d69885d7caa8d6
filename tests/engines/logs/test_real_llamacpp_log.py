"""The log of the engine that comes with servolt, as it writes it today."""

import subprocess
import sys
from pathlib import Path

import pytest

from servolt.engines.logs import StartupLog, parse_log
from servolt.model.gguf import read_gguf_header

GUIDE = Path(__file__).parents[3] / "src" / "servolt" / "data" / "guide" / "guide-q8_0.gguf"
FLAGS = ("--port", "0", "-np", "4", "-c", "8192", "-lv", "4")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> StartupLog:
    said = tmp_path_factory.mktemp("log") / "engine.log"
    argv = (sys.executable, "-m", "servolt.engines.llamacpp_runner", "-m", str(GUIDE), *FLAGS)
    with (
        said.open("w") as file,
        subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=file, stdin=subprocess.DEVNULL, text=True) as process,
    ):
        assert process.stdout is not None
        ready = process.stdout.readline()
        process.terminate()
    assert '"ready"' in ready
    return parse_log(said.read_text())


def test_weights_and_cache_are_those_of_the_header(log: StartupLog) -> None:
    model = read_gguf_header(GUIDE)
    (host,) = log.ranks
    assert host.is_host
    assert host.weights_bytes == pytest.approx(model.weights_bytes, abs=0.01 * 2**20)
    cache = 2 * model.num_layers * model.num_kv_heads * model.head_dim_k * 2 * 8192
    assert host.kv_cache_bytes == cache
    assert host.activation_bytes is not None
    assert host.state_bytes is None


def test_the_settings_are_those_that_were_asked(log: StartupLog) -> None:
    deployment = log.deployment()
    assert (deployment.max_num_seqs, deployment.max_model_len, deployment.kv_cache_dtype) == (4, 2048, "f16")
    assert (deployment.max_num_batched_tokens, deployment.ubatch_size) == (2048, 512)
    assert log.kv_cache_tokens == 8192
    assert log.projected_bytes is not None
