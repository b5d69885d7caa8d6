"""Bytes of each format, and which weights of a checkpoint are in it."""

from typing import Any

import pytest

from servolt.errors import InvalidInputError, ModelFileError
from servolt.model import Model, model_from_config
from servolt.model.quantization import FORMATS, bits_per_weight, requantized, words_of

from . import configs

GIB = 2**30


def llama(quantization: str | None = None, name: str = "a model", **changes: Any) -> Model:
    return model_from_config({**configs.LLAMA_31_8B, **changes}, name=name, quantization=quantization)


def dtypes(model: Model) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for part in (*model.parts, *(part for kind in model.layers for part in kind.parts)):
        found.setdefault(part.component, set()).add(part.dtype)
    return found


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("bfloat16", 16),
        ("fp8_block", 8.002),  # one float32 for 128 x 128
        ("fp8_channel", 8 + 32 / 4096),
        ("int8", 8 + 16 / 4096),
        ("mxfp4", 4.25),
        ("nvfp4", 4.5),
        ("awq", 4.156),
        ("int4_symmetric", 4.125),
        ("nf4", 4.5),
        ("bitsandbytes", 4.127),
        ("q4_0", 4.5),
        ("q6_k", 6.5625),
        ("iq4_xs", 4.25),
        ("q4_k_m", 4.89),  # llama.cpp's log of Llama 3 8B: 4.89 BPW
    ],
)
def test_bits_of_a_weight(name: str, bits: float) -> None:
    assert bits_per_weight(name) == pytest.approx(bits, rel=2e-3)


def test_a_part_of_a_block_has_a_scale_of_its_own() -> None:
    assert FORMATS["fp8_block"].bytes(192, 192) == 192 * 192 + 4 * 4
    assert FORMATS["nvfp4"].bytes(2, 24) == 2 * 24 / 2 + 2 * 2


@pytest.mark.parametrize(
    ("quantization", "logged_gib"),
    [
        (None, 14.99),  # vLLM 0.19: "Model loading took"; the tables of positions are 0.031 of it
        ("fp8", 8.49),
        ("w8a8", 8.49),
    ],
)
def test_what_is_loaded_is_what_vllm_logs(quantization: str | None, logged_gib: float) -> None:
    model = llama(quantization)
    loaded = model.weights_bytes + 2 * model.rotary_elements
    assert loaded / GIB == pytest.approx(logged_gib, rel=1e-3)


@pytest.mark.parametrize(
    ("mix", "logged_gib"),
    [("q4_k_m", 4.58), ("q8_0", 7.95), ("f16", 14.96)],  # llama.cpp's logs of Llama 3 8B; q8_0: 8.50 BPW
)
def test_a_mix_has_the_size_of_the_file(mix: str, logged_gib: float) -> None:
    assert llama(mix).weights_bytes / GIB == pytest.approx(logged_gib, rel=2e-3)


def test_a_mix_of_a_mixture_of_experts_has_the_size_of_the_file() -> None:
    # llama.cpp's log of DeepSeek-R1, Q4_K - Medium: 376.650 GiB (4.822 BPW)
    model = model_from_config(configs.DEEPSEEK_V3, name="a model", quantization="q4_k_m")
    assert model.weights_bytes / GIB == pytest.approx(376.650, rel=1e-5)


def test_embedding_head_norms_and_routers_stay_as_they_are() -> None:
    found = dtypes(model_from_config(configs.DEEPSEEK_V3, name="a model"))
    assert {kind: names for kind, names in found.items() if names == {"bfloat16"}}.keys() == {
        "embedding",
        "output",
        "norm",
        "router",
    }
    assert found["attention"] == found["expert"] == found["mlp"] == {"fp8"}


def test_modules_that_are_named_are_left_out() -> None:
    found = dtypes(model_from_config(configs.GPT_OSS_20B, name="a model"))
    assert found["attention"] == {"bfloat16"}
    assert found["expert"] == {"mxfp4", "bfloat16"}  # the biases stay


@pytest.mark.parametrize(
    "excluded",
    [
        {"ignore": ["re:.*self_attn.*", "lm_head"]},
        {"ignore": ["model.layers.*.self_attn*"]},
        {"modules_to_not_convert": ["self_attn"]},
        {"exclude_modules": [f"model.language_model.layers.{layer}.self_attn" for layer in range(32)]},
    ],
)
def test_a_list_may_use_patterns_stars_or_names(excluded: dict[str, Any]) -> None:
    stated = {"quant_method": "fp8", "activation_scheme": "static", **excluded}
    found = dtypes(llama(quantization_config=stated))
    assert found["attention"] == {"bfloat16"}
    assert found["mlp"] == {"fp8"}


def test_layers_that_are_left_out_are_a_kind_of_their_own() -> None:
    stated = {"quant_method": "fp8", "ignored_layers": ["model.layers.0.mlp.down_proj"]}
    model = llama(quantization_config=stated)
    assert [kind.count for kind in model.layers] == [1, 31]
    assert model.weights_bytes - llama("fp8").weights_bytes == 4096 * 14336


@pytest.mark.parametrize(
    ("stated", "name", "bits"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True}, "int4", 4.15625),
        ({"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True}, "int4", 4.3125),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_use_double_quant": True}, "nf4", 4.127),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "int8", 8),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16}, "nvfp4", 4.5),
        ({"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp8_e4m3"}}}, "fp8", 8),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {
                    "group_0": {
                        "targets": ["Linear"],
                        "weights": {"num_bits": 4, "type": "int", "group_size": 32, "symmetric": True},
                    }
                },
                "ignore": ["lm_head"],
            },
            "int4",
            4.5,
        ),
    ],
)
def test_each_method_has_its_bits(stated: dict[str, Any], name: str, bits: float) -> None:
    model = llama(quantization_config=stated)
    assert model.quantization == name
    matrices = [part for kind in model.layers for part in kind.parts if part.component in ("attention", "mlp")]
    stored = sum(part.bytes for part in matrices) * 8 / sum(part.parameters for part in matrices)
    assert stored == pytest.approx(bits, rel=2e-3)


def test_several_formats_may_stand_in_one_checkpoint() -> None:
    layers = {f"model.language_model.layers.{n}.mlp.{p}_proj": {"quant_algo": "NVFP4"} for n in range(32) for p in
              ("gate", "up", "down")}  # fmt: skip
    layers |= {f"model.language_model.layers.{n}.self_attn": {"quant_algo": "FP8"} for n in range(32)}
    stated = {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": layers}
    found = dtypes(llama(quantization_config=stated))
    assert (found["mlp"], found["attention"], found["output"]) == ({"nvfp4"}, {"fp8"}, {"bfloat16"})


def test_experts_of_a_type_of_their_own() -> None:
    model = model_from_config({**configs.DEEPSEEK_V3, "expert_dtype": "fp4"}, name="a model")
    found = dtypes(model)
    assert (found["expert"], found["attention"]) == ({"mxfp4"}, {"fp8"})


def test_what_is_asked_counts_unless_the_checkpoint_has_it_already() -> None:
    stated = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    assert llama("fp8", quantization_config=stated) == llama(quantization_config=stated)
    assert llama("nvfp4", quantization_config=stated).quantization == "nvfp4"
    assert llama("compressed-tensors", quantization_config=stated).quantization == "fp8"


def test_the_name_says_it_where_nothing_else_does() -> None:
    assert llama(name="someone/Llama-3.1-8B-Instruct-NVFP4").quantization == "nvfp4"
    assert llama("compressed-tensors", name="someone/Llama-quantized.w8a8").quantization == "int8"
    assert llama(name="someone/Llama-3.1-8B").quantization == "bfloat16"


def test_a_type_to_compute_in_counts_for_what_is_not_quantised() -> None:
    model = model_from_config(configs.LLAMA_31_8B, name="a model", dtype="float32")
    assert model.weights_bytes == 4 * model.total_params
    assert model_from_config({**configs.LLAMA_31_8B, "torch_dtype": "float32"}, name="a model").dtype == "bfloat16"


@pytest.mark.parametrize("quantization", ["fp8", "awq", "nvfp4", "mxfp4", "q8_0", "q4_k_m", "iq4_xs", "bitsandbytes"])
def test_a_model_can_be_thought_of_in_another_format(quantization: str) -> None:
    """By its parts alone it comes close to what its tensors give."""
    plain, exact = llama(), llama(quantization)
    other = requantized(plain, quantization)
    assert other.weights_bytes == pytest.approx(exact.weights_bytes, rel=2e-3)
    assert (other.quantization, other.total_params) == (exact.quantization, plain.total_params)
    assert [kind.count for kind in other.layers] == [kind.count for kind in plain.layers]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("meta/Llama-3.1-8B-FP8-dynamic", "fp8_channel"),
        ("unsloth/phi-4-bnb-4bit", "nf4_double"),
        ("Qwen2.5-7B-Instruct-GPTQ-Int4", "int4"),
        ("Model-Q5_K_M.gguf", "q5_k_m"),
        ("UD-IQ2_XXS", "iq2_xxs"),
        ("IQ4_K_R4 - 4.5 bpw", "iq4_k"),
        ("bf16", "bfloat16"),
        ("Llama-3.1-8B", None),
        ("Mixtral-8x7B", None),
    ],
)
def test_names_hold_formats(text: str, found: str | None) -> None:
    assert words_of(text) == found


def test_an_unknown_format_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InvalidInputError, match="nvfp4"):
        llama("q4_telepathic")
    with pytest.raises(ModelFileError, match="quant_method"):
        llama(quantization_config={"quant_method": "telepathy"})
