"""Plans of models that can't be looked up: what stands in for them, and that it is said."""

import pytest

from servolt.deployment import Deployment
from servolt.errors import ModelNotFoundError
from servolt.library import plan
from servolt.sources import find_model, find_or_guess
from servolt.sources.guesses import ends_of

H100 = {"accelerator": "H100"}


def test_a_file_that_is_not_there_is_planned_by_its_name_and_never_served() -> None:
    name = "microsoft_Phi-4-mini-instruct-Q4_K_M.gguf"
    model = find_or_guess(Deployment.of(name))
    assert (model.basis, model.quantization) == ("catalogue", "q4_k")
    # 3,836,021,760 weights: safetensors header of microsoft/Phi-4-mini-instruct
    assert model.total_params == 3_836_021_760
    with pytest.raises(ModelNotFoundError, match="is not there"):
        find_model(Deployment.of(name))


def test_the_plan_says_what_it_took_the_name_for() -> None:
    found = plan({"model": "microsoft_Phi-4-mini-instruct-Q4_K_M.gguf", "engine": "llamacpp", "hardware": H100})
    said = [one for one in found.problems if one.code == "model_guessed"]
    assert len(said) == 1
    assert "is not there" in said[0].message
    assert "Phi-4 mini of the catalogue" in said[0].message


def test_a_copy_in_another_format_is_planned_in_that_format() -> None:
    own, copy = (find_or_guess(Deployment.of(name)) for name in ("deepseek-ai/DeepSeek-R1", "x/DeepSeek-R1-NVFP4-v2"))
    assert (own.quantization, copy.quantization) == ("fp8", "nvfp4")


@pytest.mark.parametrize(
    ("name", "total", "quantization"),
    [("qwen3.6:27b-mtp-q4_K_M", 27e9, "q4_k"), ("gpt-oss:20b", 20.9e9, "mxfp4"), ("ornith:35b", 35e9, "bfloat16")],
)
def test_the_tag_of_an_ollama_name_holds_size_and_format(name: str, total: float, quantization: str) -> None:
    model = find_or_guess(Deployment.of(name))
    assert model.total_params == pytest.approx(total, rel=0.02)
    assert model.quantization == quantization


def test_a_family_is_planned_as_wide_as_its_members_are_apart() -> None:
    deployment = Deployment.of("qwen3.5", engine="vllm", hardware=H100)
    model = find_or_guess(deployment)
    small, large = ends_of(model, deployment)
    assert small.total_params < model.total_params < large.total_params
    found = plan(deployment)
    weights = found.memory.fullest.terms["weights"]
    assert weights.low <= small.weights_bytes
    assert weights.high >= large.weights_bytes
    largest = plan({"model": "Qwen/Qwen3.5-397B-A17B", "engine": "vllm", "hardware": H100})
    assert (found.predictions["tpot"].high or 0) >= (largest.predictions["tpot"].value or 0)
    assert found.verdict == "tight"


def test_a_name_that_says_nothing_is_an_error_that_says_how_to_state_figures() -> None:
    with pytest.raises(ModelNotFoundError, match="--params 70B"):
        find_or_guess(Deployment.of("no-such-thing"))


def test_a_slip_on_the_command_line_is_an_error_with_the_name_that_was_meant() -> None:
    with pytest.raises(ModelNotFoundError, match="is Qwen3 8B meant"):
        find_or_guess(Deployment.of("Qwne3-8B"))
