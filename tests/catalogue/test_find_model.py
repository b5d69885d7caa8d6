"""The names of models, of their copies and of their files."""

import pytest

from servolt.catalogue import AmbiguousNameError, UnknownNameError, find_model_entry, models

SPELLINGS = {
    "Llama 3.1 8B": ("meta-llama/Llama-3.1-8B-Instruct", "llama3.1:8b", "nvidia/Llama-3.1-8B-Instruct-FP8"),
    "Llama 3.1 70B": (
        "neuralmagic/Meta-Llama-3.1-70B-Instruct-quantized.w8a8",
        "deepseek-ai/DeepSeek-R1-Distill-Llama-70B",
    ),
    "Llama 2 70B": ("Llama2-70B", "meta-llama/Llama-2-70b-chat-hf"),
    "Qwen3 8B": ("Qwen/Qwen3-8B", "Qwen3-8B-Q4_K_M.gguf", "qwen3:8b", "unsloth/Qwen3-8B-FP8"),
    "Qwen3 30B-A3B": ("Qwen3-30B-A3B-Instruct-2507-UD-Q4_K_XL.gguf", "Qwen/Qwen3-Coder-30B-A3B-Instruct"),
    "Qwen3-VL 30B-A3B": ("Qwen/Qwen3-VL-30B-A3B-Instruct-FP8",),
    "Qwen3.6 27B": (
        "AEON-7/Qwen3.6-27B-AEON-Ultimate-Uncensored-NVFP4",
        "qwen3.6:27b-mlx",
        "unsloth/Qwen3.6-27B-MTP-GGUF",
    ),
    "Qwen2.5 7B": ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "unsloth/qwen2.5-7b-instruct-bnb-4bit"),
    "DeepSeek V3": ("DeepSeek V3 0324 BF16", "nvidia/DeepSeek-V3-0324-FP4"),
    "DeepSeek R1": ("DeepSeek R1 0528", "deepseek-r1"),
    "Kimi K2": ("Kimi K2 Instruct Bf16 Safetensors",),
    "Mistral 7B v0.3": ("unsloth/mistral-7b-instruct-v0.3-bnb-4bit",),
    "GLM 4.5 Air": ("zai-org/GLM-4.5-Air-FP8",),
    "gpt-oss 20B": ("gpt-oss-20b-MXFP4.gguf", "gpt-oss:20b"),
}


@pytest.mark.parametrize(("spelling", "name"), [(text, name) for name, texts in SPELLINGS.items() for text in texts])
def test_a_model_is_found_under_every_spelling(spelling: str, name: str) -> None:
    assert find_model_entry(spelling).name == name


def test_every_entry_is_found_by_its_name_its_hub_id_and_its_aliases() -> None:
    for one in models():
        for spelling in (one.name, one.hub_id, *one.aliases):
            assert find_model_entry(spelling).name == one.name, spelling


@pytest.mark.parametrize(
    "text", ["Qwen/Qwen3-Coder-Omni-30B-A3B", "Qwen3.6-27B-DFlash", "meta-llama/Llama-3.1-9B", "Models"]
)
def test_another_model_is_not_taken_for_one_that_is_known(text: str) -> None:
    with pytest.raises(UnknownNameError):
        find_model_entry(text)


def test_a_family_without_a_size_is_ambiguous() -> None:
    with pytest.raises(AmbiguousNameError) as caught:
        find_model_entry("Llama 3.1")
    assert "Llama 3.1 8B" in caught.value.candidates


def test_an_entry_becomes_a_model_in_the_asked_type() -> None:
    entry = find_model_entry("Llama 3.2 1B")
    model = entry.model()
    assert (model.num_layers, model.vocab_size, model.total_params) == (16, 128_256, entry.total)
