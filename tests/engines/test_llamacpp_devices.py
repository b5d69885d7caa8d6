"""llama.cpp on devices: every setting is written as llama-server's own flag, or refused."""

from typing import Any

import pytest

from servolt.deployment import Deployment, Hardware
from servolt.engines.flags import Known, parsed
from servolt.engines.llamacpp import LlamaCpp
from servolt.engines.llamacpp_runner import _parser
from servolt.errors import InvalidInputError
from servolt.model import Model
from servolt.sources import find_model
from tests.engines.test_folder_engines import SET

RTX = Hardware(accelerator="GeForce RTX 4090")
# Those of llama.cpp's own that mean something else, or nothing, to others.
OWN: dict[str, Any] = {**SET, "quantization": "q8_0", "kv_cache_dtype": "q8_0", "speculative_config": {"method": "mtp"}}


@pytest.fixture(scope="module")
def guide() -> Model:
    return find_model(Deployment.of("guide:q8_0"))


def options(model: Model, **settings: Any) -> dict[str, Any]:
    command = LlamaCpp().command(Deployment.of("guide", engine="llamacpp", **settings), model).at(8000)
    words = command.image_argv[1:]
    return parsed(Known("llamacpp"), words)


@pytest.mark.parametrize("field", OWN)
def test_every_setting_is_written_or_refused(guide: Model, field: str) -> None:
    asked = Deployment.of("guide", engine="llamacpp", hardware=RTX, **{field: OWN[field]})
    plain = Deployment.of("guide", engine="llamacpp", hardware=RTX)
    engine = LlamaCpp()
    if [problem for problem in engine.problems(asked, guide, ()) if problem.severity == "error"]:
        with pytest.raises(InvalidInputError, match=field):
            engine.command(asked, guide)
        return
    changed = engine.command(asked, guide).argv != engine.command(plain, guide).argv
    assert changed or field == "trust_remote_code"  # a GGUF file holds no code


def test_on_devices_all_layers_go_there_as_the_plan_has_it(guide: Model) -> None:
    command = LlamaCpp().command(Deployment.of("guide", engine="llamacpp", hardware=RTX), guide)
    assert command.argv[0] == "llama-server"
    assert options(guide, hardware=RTX)["n-gpu-layers"] == "999"
    assert "op-offload" not in options(guide, hardware=RTX)
    assert options(guide, hardware=RTX, n_gpu_layers=12)["n-gpu-layers"] == "12"
    assert options(guide, n_gpu_layers=-1)["n-gpu-layers"] == "999"
    assert options(guide)["n-gpu-layers"] == "0"


def test_what_the_program_takes_is_spelled_its_way(guide: Model) -> None:
    found = options(guide, hardware=RTX, tensor_split=(3, 1.5), flash_attn=False, kv_unified=False, ubatch_size=128)
    wanted = {"tensor-split": "3,1.5", "flash-attn": "off", "kv-unified": False, "ubatch-size": 128}
    assert wanted.items() <= found.items()


def test_the_runner_of_this_package_reads_what_is_written_for_it(guide: Model) -> None:
    command = LlamaCpp().command(Deployment.of("guide", threads=2, ubatch_size=64, kv_cache_dtype="q8_0"), guide)
    asked = _parser().parse_args(command.at(8000).argv[3:])
    assert (asked.threads, asked.ubatch_size, asked.cache_type_k, asked.gpu_layers) == (2, 64, "q8_0", 0)


def test_what_only_llama_server_takes_needs_a_llama_server(guide: Model) -> None:
    found = LlamaCpp().problems(Deployment.of("guide", override_tensor="exps=CPU"), guide, ())
    (problem,) = [problem for problem in found if problem.severity == "error"]
    assert "--engine-executable" in problem.remedy
    own = Deployment.of("guide", override_tensor="exps=CPU", engine_executable="/bin/llama-server", threads=1)
    assert not [problem for problem in LlamaCpp().problems(own, guide, ()) if problem.severity == "error"]
