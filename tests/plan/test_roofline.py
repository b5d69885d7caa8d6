"""The law of a step on accelerators: against datasheets, closed forms and itself."""

import json
from typing import Any

import pytest

from servolt.catalogue import find_accelerator
from servolt.deployment import Deployment, Speculation
from servolt.model import Model, model_from_config
from servolt.plan.roofline import RooflineLaw, roofline_of

# config.json of meta-llama/Llama-3.1-8B: 8,030,261,248 parameters, of which the embedding is a quarter of a seventh.
LLAMA: dict[str, Any] = json.loads(
    '{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,'
    ' "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "vocab_size": 128256,'
    ' "max_position_embeddings": 131072, "tie_word_embeddings": false, "torch_dtype": "bfloat16"}'
)
# Of Qwen/Qwen3-30B-A3B: 128 experts, of which a token uses 8.
MIXTURE: dict[str, Any] = json.loads(
    '{"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": 2048, "head_dim": 128,'
    ' "intermediate_size": 6144, "moe_intermediate_size": 768, "num_attention_heads": 32, "num_hidden_layers": 48,'
    ' "num_key_value_heads": 4, "num_experts": 128, "num_experts_per_tok": 8, "vocab_size": 151936,'
    ' "max_position_embeddings": 40960, "tie_word_embeddings": false, "torch_dtype": "bfloat16"}'
)


def model_of(config: dict[str, Any], **asked: Any) -> Model:
    return model_from_config(config, name="test", **asked)


def law(config: dict[str, Any] = LLAMA, accelerator: str = "H100 SXM", **settings: Any) -> RooflineLaw:
    deployment = Deployment(model="test", engine=settings.pop("engine", "vllm"), **settings)
    return roofline_of(deployment, model_of(config), find_accelerator(accelerator))


def test_no_step_is_faster_than_the_memory_on_the_datasheet() -> None:
    weights_bytes, h100_bytes_per_s = 2 * (8_030_261_248 - 128256 * 4096), 3.35e12
    assert law().decode_s(1, 100) > weights_bytes / h100_bytes_per_s


def test_the_terms_add_up_to_the_step() -> None:
    terms = law(MIXTURE).decode_terms(16, 1000)
    assert sum(term.seconds for term in terms) == pytest.approx(law(MIXTURE).decode_s(16, 1000))


def test_more_sequences_and_a_longer_context_take_longer() -> None:
    one = law()
    assert one.decode_s(1, 100) < one.decode_s(32, 100) < one.decode_s(32, 8000)
    assert one.prefill_s(512) < one.prefill_s(4096)


def test_two_devices_share_the_weights_but_not_the_launches() -> None:
    one, two = law(), law(tensor_parallel_size=2)
    assert two.work.weights_bytes == pytest.approx(one.work.weights_bytes / 2, rel=0.01)
    assert one.decode_s(1, 100) > two.decode_s(1, 100) > one.decode_s(1, 100) / 2


def test_the_sums_of_a_prompt_wait_for_each_hop_of_a_ring() -> None:
    # A ring over n ranks passes each sum on 2 (n - 1) times (Patarasu and Yuan 2009); LLAMA has two sums in 32 layers.
    assert [law(tensor_parallel_size=ranks).work.hops for ranks in (1, 2, 8)] == [0, 2 * 32 * 2, 2 * 32 * 14]
    one, eight = law(), law(tensor_parallel_size=8)
    assert one.prompt_terms(128)["messages"] == 0
    assert eight.prompt_terms(128)["messages"] > eight.work.hops * eight.constants.hop_s
    assert eight.prompt_s(128) > one.prompt_s(128) / 8


def test_replicas_of_a_dense_model_share_nothing() -> None:
    assert law(data_parallel_size=4).work.replicas == 4
    assert law(MIXTURE, data_parallel_size=4).work.replicas == 1


def test_few_tokens_touch_few_experts() -> None:
    terms = {n: {t.name: t.seconds for t in law(MIXTURE).decode_terms(n, 100)} for n in (1, 64)}
    assert 3 < terms[64]["experts"] / terms[1]["experts"] <= 16


def test_a_window_bounds_what_a_layer_reads() -> None:
    windowed = LLAMA | {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 1024}
    read = {n: {t.name: t.seconds for t in law(windowed).decode_terms(8, n)}["kv_cache"] for n in (1024, 16384)}
    assert read[16384] == pytest.approx(read[1024])


def test_speculation_gains_nothing_until_its_acceptance_is_measured() -> None:
    unknown = law(speculative_config=Speculation(method="mtp", num_speculative_tokens=3))
    known = law(speculative_config=Speculation(method="mtp", num_speculative_tokens=3, acceptance=2.0))
    assert unknown.decode_s(4, 1000) == law().decode_s(4, 1000)
    assert known.decode_s(4, 1000) < law().decode_s(4, 1000)


@pytest.mark.parametrize("name", ["A100 80GB PCIe", "RTX 4090", "MI300X", "M2 Ultra", "Arc Pro B60", "Tesla T4"])
@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt_llm", "llamacpp", "transformers", "openvino"])
def test_every_engine_on_every_device_has_an_answer(name: str, engine: str) -> None:
    found = law(accelerator=name, engine=engine)
    assert 0 < found.decode_s(1, 100) < found.decode_s(8, 100) < 10


def test_few_rows_for_an_expert_cost_a_whole_tile() -> None:
    """Of a mixture a short prompt takes more than its share of a long one; of a dense model it takes its share."""
    short, long = (law(MIXTURE, tensor_parallel_size=2).prompt_s(n) for n in (128, 4096))
    assert short > 1.2 * long * 128 / 4096
    assert law().prompt_s(128) == pytest.approx(law().prompt_s(4096) * 128 / 4096, rel=0.15)


def test_a_prompt_that_comes_alone_is_not_slowed_by_groups_that_have_none() -> None:
    grouped, split = law(MIXTURE, data_parallel_size=4), law(MIXTURE, tensor_parallel_size=4)
    assert grouped.work.groups == 4
    assert grouped.prefill_s(4096) < 4 * split.prefill_s(4096)
    assert grouped.prefill_s(4096) - grouped.prefill_s(1) < grouped.prompt_s(4096)


def test_a_version_before_a_known_change_starts_later() -> None:
    early, late = (law(engine="sglang", engine_version=version) for version in ("0.5.6", "0.5.10"))
    assert early.constants.queue > late.constants.queue
    assert law(engine="sglang").constants == late.constants


def test_a_build_of_llama_cpp_of_today_is_faster_than_one_of_2024() -> None:
    early, late = (law(accelerator="RTX 3090", engine="llamacpp", engine_version=one) for one in ("b2833", "b9870"))
    assert late.decode_s(1, 100) < early.decode_s(1, 100)
    around = law(accelerator="RTX 3090", engine="ollama", engine_version="0.32.1")
    assert around.constants == late.constants


def test_mlx_reads_packed_weights_as_llama_cpp_does() -> None:
    mlx, llama = (law(accelerator="M4 Pro", engine=engine) for engine in ("mlx", "llamacpp"))
    assert mlx.constants == llama.constants
