from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servolt.deployment import Deployment, Hardware, Speculation
from servolt.document import Problem
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.plan.validation import problems_of
from servolt.workload import Workload
from tests.plan.published import GIB, accelerator, deepseek_r1, llama_3_8b, qwen3_30b_a3b, qwen3_32b

H100, RTX_3090, T4, B200 = (
    accelerator(80, "9.0"),
    accelerator(24, "8.6"),
    accelerator(16, "7.5"),
    accelerator(180, "10.0"),
)
HOST = Accelerator(name="16 cores", kind="cpu", count=16, memory_bytes=64 * GIB, source="made up")


def found(model: Model, card: Accelerator = H100, workload: Workload | None = None, **asked: Any) -> list[Problem]:
    chosen: dict[str, Any] = {"engine": "vllm", **asked}
    return problems_of(Deployment(model="m", **chosen), model, card, workload)


def only(problems: list[Problem], code: str) -> Problem:
    matching = [problem for problem in problems if problem.code == code]
    assert len(matching) == 1, problems
    return matching[0]


def test_a_plain_deployment_has_no_problems() -> None:
    for engine in ("vllm", "sglang", "tensorrt_llm", "transformers"):
        assert found(llama_3_8b(), engine=engine, max_model_len=8192) == []
    assert found(llama_3_8b("q4_k_m"), RTX_3090, engine="llamacpp") == []


def test_heads_that_do_not_divide_name_the_size_that_does() -> None:
    problem = only(found(llama_3_8b(), tensor_parallel_size=6, hardware=Hardware(count=6)), "heads_per_rank")
    assert problem.severity == "error"
    assert "32 attention heads" in problem.message
    assert problem.remedy == "Set tensor_parallel_size to 4."


def test_repeated_kv_heads_are_a_warning_with_the_better_split() -> None:
    problem = only(found(qwen3_30b_a3b(), tensor_parallel_size=8, hardware=Hardware(count=8)), "kv_heads_repeated")
    assert problem.severity == "warning"
    assert "kept 2 times" in problem.message
    assert "tensor_parallel_size to 4, and data_parallel_size to 2" in problem.remedy


def test_a_latent_has_no_heads_to_repeat() -> None:
    codes = {one.code for one in found(deepseek_r1(), B200, tensor_parallel_size=8, hardware=Hardware(count=8))}
    assert not codes & {"kv_heads_repeated", "kv_heads_per_rank"}


def test_devices_and_their_split_must_agree() -> None:
    few = only(found(llama_3_8b(), tensor_parallel_size=4, pipeline_parallel_size=2), "too_few_devices")
    assert few.message == "tensor 4 x pipeline 2 parallel needs 8 devices, and there are 1."
    idle = only(found(llama_3_8b(), tensor_parallel_size=2, hardware=Hardware(count=8)), "idle_devices")
    assert idle.severity == "warning"
    assert "data_parallel_size to 4" in idle.remedy


def test_more_stages_than_layers() -> None:
    problems = found(llama_3_8b(), pipeline_parallel_size=40, hardware=Hardware(count=40))
    assert only(problems, "stages").remedy == "Set pipeline_parallel_size to 32 or less."


def test_experts_that_do_not_divide() -> None:
    hardware = Hardware(count=12)
    asked: dict[str, Any] = {"tensor_parallel_size": 12, "expert_parallel_size": 12, "hardware": hardware}
    problem = only(found(qwen3_30b_a3b(), engine="sglang", **asked), "experts_per_rank")
    assert "128 experts on 12 ranks" in problem.message
    assert "8 expert parallel" in problem.remedy
    dense = only(found(llama_3_8b(), enable_expert_parallel=True), "no_experts")
    assert dense.severity == "warning"


def test_a_prompt_must_fit_a_step_without_chunks() -> None:
    asked: dict[str, Any] = {"max_model_len": 8192, "max_num_batched_tokens": 2048}
    problem = only(found(llama_3_8b(), enable_chunked_prefill=False, **asked), "step_too_short")
    assert problem.remedy.startswith("Set max_num_batched_tokens to 8192")
    assert found(llama_3_8b(), **asked) == []


def test_a_context_beyond_training() -> None:
    problem = only(found(qwen3_32b(), max_model_len=131072), "context_beyond_training")
    assert problem.severity == "error"
    assert "set max_model_len to 40960" in problem.remedy.lower()
    assert "3.2" in problem.remedy


@pytest.mark.parametrize(
    ("quantization", "card", "severity"),
    [
        ("fp8", H100, None),
        ("fp8", RTX_3090, "warning"),
        ("nvfp4", B200, None),
        ("nvfp4", H100, "warning"),
        ("int4", T4, None),
        ("fp8", accelerator(16, "7.0"), "error"),
        ("int4", accelerator(16, "7.0"), "error"),
        ("fp8", accelerator(192, "gfx942", vendor="AMD"), None),
        ("nvfp4", accelerator(192, "gfx942", vendor="AMD"), "warning"),
        ("fp8", accelerator(64, "", vendor="Apple"), "error"),
    ],
)
def test_formats_of_weights_against_cards(quantization: str, card: Accelerator, severity: str | None) -> None:
    matching = [one for one in found(llama_3_8b(quantization), card, dtype="float16") if one.code == "quantization"]
    assert [one.severity for one in matching] == ([] if severity is None else [severity])


def test_bfloat16_needs_ampere() -> None:
    problem = only(found(llama_3_8b(), T4, dtype="bfloat16"), "dtype")
    assert (problem.severity, problem.remedy) == ("error", "Set dtype to float16.")
    assert found(llama_3_8b(), T4, dtype="float16") == []


def test_a_rank_holds_whole_groups_of_scales() -> None:
    """768 wide experts on 4 ranks are 192, and 128 inputs share a scale."""
    asked: dict[str, Any] = {"tensor_parallel_size": 4, "hardware": Hardware(count=4)}
    problem = only(found(qwen3_30b_a3b("int4"), **asked), "quantization_group")
    assert "768 of each expert on 4 ranks is 192" in problem.message
    assert problem.remedy == "Set tensor_parallel_size to 3, or enable_expert_parallel to true."
    assert found(qwen3_30b_a3b("int4"), **asked, enable_expert_parallel=True) == []


@pytest.mark.parametrize(
    ("engine", "dtype", "card", "severity"),
    [
        ("vllm", "fp8", H100, None),
        ("vllm", "fp8", RTX_3090, "warning"),
        ("vllm", "q8_0", H100, "error"),
        ("vllm", "nvfp4", H100, "error"),
        ("sglang", "fp8_e4m3", H100, None),
        ("sglang", "fp8", H100, "error"),
        ("llamacpp", "q8_0", RTX_3090, None),
        ("llamacpp", "q8_0/f16", RTX_3090, None),
        ("llamacpp", "fp8", RTX_3090, "error"),
        ("openvino", "u8", HOST, None),
        ("openvino", "fp8", HOST, "error"),
    ],
)
def test_formats_of_the_cache(engine: str, dtype: str, card: Accelerator, severity: str | None) -> None:
    model = llama_3_8b("q4_k_m" if engine == "llamacpp" else None)
    problems = [one for one in found(model, card, engine=engine, kv_cache_dtype=dtype) if one.code == "kv_cache_dtype"]
    assert [one.severity for one in problems] == ([] if severity is None else [severity])


def test_quantised_values_need_flash_attention() -> None:
    asked: dict[str, Any] = {"engine": "llamacpp", "flash_attn": False}
    problem = only(found(llama_3_8b("q4_0"), RTX_3090, kv_cache_dtype="q8_0", **asked), "kv_cache_dtype")
    assert problem.remedy == "Set flash_attn to true, or the values to f16."
    assert found(llama_3_8b("q4_0"), RTX_3090, kv_cache_dtype="q8_0/f16", **asked) == []


def test_an_adapters_rank_is_one_of_a_few() -> None:
    problem = only(found(llama_3_8b(), enable_lora=True, max_lora_rank=24), "lora_rank")
    assert problem.remedy == "Set max_lora_rank to 32."
    assert only(found(llama_3_8b(), max_loras=4), "lora_off").severity == "warning"


@pytest.mark.parametrize(
    ("engine", "option", "instead"),
    [
        ("sglang", {"gpu_memory_utilization": 0.9}, "mem_fraction_static"),
        ("vllm", {"mem_fraction_static": 0.9}, "gpu_memory_utilization"),
        ("vllm", {"n_gpu_layers": 20}, "cpu_offload_gb"),
        ("tensorrt_llm", {"data_parallel_size": 2}, "several instances"),
        ("llamacpp", {"tensor_parallel_size": 2}, "tensor_split"),
    ],
)
def test_an_option_of_another_engine_names_the_nearest(engine: str, option: dict[str, Any], instead: str) -> None:
    model = llama_3_8b("q4_0" if engine == "llamacpp" else None)
    problem = only(found(model, engine=engine, hardware=Hardware(count=2), **option), "option_unknown")
    assert problem.severity == "error"
    assert instead in problem.remedy


def test_engines_without_the_device() -> None:
    assert only(found(llama_3_8b(), HOST, engine="sglang"), "engine_without_device").severity == "error"
    mi300 = accelerator(192, "gfx942", vendor="AMD")
    assert "vllm" in only(found(llama_3_8b(), mi300, engine="tensorrt_llm"), "engine_without_device").remedy
    assert only(found(llama_3_8b(), HOST, pipeline_parallel_size=2), "pipeline_on_cpu").severity == "error"


def test_sizes_that_cannot_be_meant() -> None:
    assert only(found(llama_3_8b(), max_model_len=2**30), "absurd_size").severity == "error"
    many = only(found(llama_3_8b(max_position_embeddings=2**27), max_model_len=2**26, max_num_seqs=4096), "absurd_size")
    assert many.remedy == "Set max_num_seqs to 256 or less."


def test_guessing_needs_something_to_guess_with() -> None:
    own = Speculation(method="mtp", num_speculative_tokens=2)
    assert only(found(llama_3_8b(), speculative_config=own), "no_mtp").severity == "error"
    other = Speculation(method="eagle3", num_speculative_tokens=2)
    assert only(found(llama_3_8b(), speculative_config=other), "draft_not_named").severity == "warning"


def test_a_workload_longer_than_the_context() -> None:
    workload = Workload(input_len=8000, output_len=400)
    problem = only(found(llama_3_8b(), workload=workload, max_model_len=8192), "workload_exceeds_context")
    assert "8,400" in problem.message


def test_llamacpp_says_what_stays_on_the_host_and_which_shares_are_missing() -> None:
    asked: dict[str, Any] = {"engine": "llamacpp", "n_gpu_layers": 20}
    problem = only(found(llama_3_8b("q4_0"), RTX_3090, **asked), "layers_on_host")
    assert problem.message.startswith("13 of 33 layers")
    split = found(llama_3_8b("q4_0"), RTX_3090, engine="llamacpp", tensor_split=(1, 2), hardware=Hardware(count=3))
    assert only(split, "tensor_split").remedy == "Give 3 shares, such as 1, 1, 1."


def test_other_engines_do_not_read_gguf_and_llamacpp_reads_nothing_else() -> None:
    assert only(found(llama_3_8b("q4_k_m")), "model_format").severity == "warning"
    stored = llama_3_8b().model_copy(update={"format": "safetensors"})
    assert only(found(stored, engine="llamacpp"), "model_format").severity == "error"


def test_errors_come_first() -> None:
    problems = found(llama_3_8b("fp8"), RTX_3090, tensor_parallel_size=6, kv_cache_dtype="fp8")
    severities = [problem.severity for problem in problems]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    assert len(set(severities)) == 2


@settings(max_examples=60, deadline=None)
@given(
    tp=st.integers(1, 17),
    pp=st.integers(1, 5),
    ep=st.integers(1, 9) | st.none(),
    engine=st.sampled_from(["vllm", "sglang", "tensorrt_llm", "transformers", "llamacpp", "openvino"]),
    model=st.sampled_from([llama_3_8b(), qwen3_30b_a3b(), deepseek_r1()]),
)
def test_the_size_that_a_remedy_names_is_accepted(tp: int, pp: int, ep: int | None, engine: str, model: Model) -> None:
    asked: dict[str, Any] = {"pipeline_parallel_size": pp, "expert_parallel_size": ep, "engine": engine}
    problems = found(model, B200, tensor_parallel_size=tp, hardware=Hardware(count=tp * pp), **asked)
    for problem in problems:
        assert problem.message.endswith(".")
        assert problem.remedy.endswith(".")
        if problem.code in ("heads_per_rank", "kv_heads_per_rank"):
            size = int(problem.remedy.removeprefix("Set tensor_parallel_size to ").removesuffix("."))
            again = found(model, B200, tensor_parallel_size=size, hardware=Hardware(count=size * pp), **asked)
            assert problem.code not in {one.code for one in again}


def test_an_unknown_engine_is_named_with_the_nearest() -> None:
    problem = only(found(llama_3_8b(), engine="vlm"), "engine_unknown")
    assert problem.severity == "warning"
    assert problem.remedy == "Set engine to vllm."
    assert "llamacpp" in only(found(llama_3_8b(), engine="hipfire"), "engine_unknown").remedy


@pytest.mark.parametrize(
    "option", [{"n_gpu_layers": 0}, {"n_cpu_moe": 0}, {"flash_attn": True}, {"free_gpu_memory_fraction": 1.0}]
)
def test_an_option_of_another_engine_is_told_whatever_its_value(option: dict[str, Any]) -> None:
    assert only(found(llama_3_8b(), **option), "option_unknown").severity == "error"
    assert found(llama_3_8b(), engine="llamacpp", tensor_parallel_size=1) == []


def test_more_weights_on_the_host_than_there_are_is_an_error_with_the_most_that_can_be() -> None:
    problem = only(found(llama_3_8b(), cpu_offload_gb=8192), "offload")
    assert problem.severity == "error"
    assert "15.0 GiB" in problem.message  # 8,030,261,248 parameters of two bytes


def test_a_sequence_is_split_only_over_ranks_that_hold_the_same_keys() -> None:
    many = Hardware(count=16)
    problem = only(
        found(llama_3_8b(), tensor_parallel_size=16, decode_context_parallel_size=4, hardware=many), "context_parallel"
    )
    assert problem.remedy == "Set decode_context_parallel_size to 2, or tensor_parallel_size to 32."
    asked: dict[str, Any] = {"tensor_parallel_size": 16, "decode_context_parallel_size": 2, "hardware": many}
    assert not [one for one in found(llama_3_8b(), **asked) if one.code == "context_parallel"]


def test_speculation_without_an_acceptance_says_that_times_are_without_it() -> None:
    guess: dict[str, Any] = {"method": "eagle3", "model": "heads", "num_speculative_tokens": 3}
    asked = found(llama_3_8b(), speculative_config=Speculation(**guess))
    assert "times are those without speculation" in only(asked, "acceptance_unknown").message
    measured = found(llama_3_8b(), speculative_config=Speculation(**guess, acceptance=2.1))
    assert not [one for one in measured if one.code == "acceptance_unknown"]


def test_left_to_itself_an_engine_takes_float16_where_there_is_no_bfloat16() -> None:
    assert only(found(llama_3_8b(), T4, engine="vllm"), "dtype").severity == "warning"
    assert only(found(llama_3_8b(), T4, engine="vllm", dtype="bfloat16"), "dtype").severity == "error"


def test_another_format_than_the_checkpoint_has_is_another_copy() -> None:
    model = llama_3_8b().model_copy(update={"metadata": {"quantization.replaced": "fp8"}})
    assert "stored as fp8" in only(found(model, engine="vllm"), "quantization_replaced").message


def test_a_loaders_name_that_says_no_format_is_told() -> None:
    assert "planned as bfloat16" in only(found(llama_3_8b(), quantization="gguf"), "quantization_unsaid").message


def test_the_format_of_latents_needs_a_model_with_latents() -> None:
    assert only(found(llama_3_8b(), kv_cache_dtype="fp8_ds_mla"), "kv_cache_dtype").severity == "error"
