"""What names that the catalogue does not have are taken for, and which are taken for nothing."""

import pytest

from servolt.catalogue import likely_models, slip_of

ONE = {
    "DeepSeek-Coder-V2-Lite-Instruct-Q4_K_M.gguf": ("DeepSeek V2 Lite", True),
    "microsoft_Phi-4-mini-instruct-Q4_K_M.gguf": ("Phi-4 mini", True),
    "Bahushruth/Qwen3.6-35B-A3B-abliterated-v4-GGUF": ("Qwen3.6 35B-A3B", True),
    "Jackrong/DeepSeek-V4-Pro-Qwen3.5-9B-MTP-GGUF": ("Qwen3.5 9B", False),
    "DeepseekV3ForCausalLM": ("DeepSeek V3", False),
    "LiquidAI LFM2 (Lfm2ForCausalLM, about 0.75B)": ("LFM2 700M", False),
    "Qwen/Qwen3.5 dense 32-layer hybrid (9B class)": ("Qwen3.5 9B", False),
    "someone-27B (qwen35 arch)": ("Qwen3.5 27B", False),
    "Llama-3.1-Tulu-3-8B": ("Llama 3.1 8B", False),
    "Qwen3-Sound-30B-A3B-Instruct": ("Qwen3 30B-A3B", False),
    "Qwen3.9-27B-AWQ": ("Qwen3.6 27B", False),
    "someone/Ornstein3.6-35B-A3B-GGUF": ("Qwen3.6 35B-A3B", False),
    "deepseek-ai/DeepSeek-V4-Flash-0731 + DSpark draft": ("DeepSeek V4 Flash", True),
    # As llama.cpp's own bench prints them.
    "llama 8B Q4_K - Medium": ("Llama 3.1 8B", False),
    "qwen3moe 30B.A3B Q4_K - Medium": ("Qwen3 30B-A3B", False),
    "phi3 14B Q4_0": ("Phi-3 medium", False),
    "deepseek2 671B": ("DeepSeek V3", False),
    "lfm2moe 8B.A1B": ("LFM2 8B-A1B", False),
}


@pytest.mark.parametrize(("text", "name", "same"), [(text, *rest) for text, rest in ONE.items()])
def test_a_name_holds_that_of_a_known_model_its_class_or_its_family_and_size(text: str, name: str, same: bool) -> None:
    found = likely_models(text)
    assert found is not None
    assert [one.name for one in found.entries] == [name]
    assert found.why
    assert found.same is same or not same


@pytest.mark.parametrize("text", ["qwen3.5", "Qwen3.5 hybrid, 24 GB RTX 4090D (name not in excerpt)"])
def test_a_family_without_a_size_is_all_of_its_members(text: str) -> None:
    found = likely_models(text)
    assert found is not None
    assert {one.family for one in found.entries} == {"Qwen3.5"}
    sizes = [one.parameters for one in found.entries]
    assert sizes == sorted(sizes)
    assert sizes[0] < found.middle.parameters < sizes[-1]


@pytest.mark.parametrize(("text", "family"), [("LLaMA v2", "Llama 2"), ("DeepSeek-V4 with a draft", "DeepSeek V4")])
def test_a_family_is_known_by_its_number(text: str, family: str) -> None:
    found = likely_models(text)
    assert found is not None
    assert {one.family for one in found.entries} == {family}


def test_a_kind_of_layer_is_all_that_have_it() -> None:
    found = likely_models("DSA model (DeepSeek/GLM sparse attention), name not in excerpt")
    assert found is not None
    assert {one.family for one in found.entries} >= {"GLM 5", "DeepSeek V3"}
    assert all("index_topk" in one.config for one in found.entries)


@pytest.mark.parametrize("text", ["gpt-9", "Models", "Qwen3-8BB", "someone/thing", "thing-8B", "Aquila-mini"])
def test_what_says_nothing_is_taken_for_nothing(text: str) -> None:
    assert likely_models(text) is None


def test_a_slip_is_no_other_model() -> None:
    assert (slip_of("Qwne3-8B"), slip_of("lama3.1-8b")) == ("Qwen3 8B", "Llama 3.1 8B")
    assert slip_of("someone/lama3.1-8b") is None
    assert slip_of("ornith-8b") is None
