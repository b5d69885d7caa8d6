"""vLLM, SGLang, TensorRT-LLM and transformers: every setting is written as the engine's own option, or refused."""

import json
from typing import Any

import pytest
import yaml

from servolt import registry
from servolt.deployment import Deployment
from servolt.document import Problem
from servolt.engines.flags import Known, parsed, versions
from servolt.engines.options import APART
from servolt.errors import InvalidInputError
from servolt.gpu import Accelerator
from servolt.model import Model

ENGINES = ("sglang", "tensorrt_llm", "transformers", "vllm")
# One value of each field that no engine's default is.
SET: dict[str, Any] = {
    "quantization": "fp8",
    "max_model_len": 8192,
    "max_num_seqs": 64,
    "max_num_batched_tokens": 4096,
    "kv_cache_dtype": "fp8",
    "enable_prefix_caching": False,
    "threads": 4,
    "dtype": "float16",
    "tensor_parallel_size": 2,
    "pipeline_parallel_size": 2,
    "data_parallel_size": 2,
    "enable_expert_parallel": True,
    "expert_parallel_size": 2,
    "decode_context_parallel_size": 2,
    "enable_dp_attention": True,
    "gpu_memory_utilization": 0.85,
    "kv_cache_memory_bytes": 2**34,
    "mem_fraction_static": 0.8,
    "free_gpu_memory_fraction": 0.7,
    "block_size": 32,
    "swa_full_tokens_ratio": 0.5,
    "enforce_eager": True,
    "max_cudagraph_capture_size": 128,
    "enable_chunked_prefill": False,
    "cpu_offload_gb": 8.0,
    "limit_mm_per_prompt": {"image": 2},
    "speculative_config": {"method": "eagle3", "model": "some/heads", "num_speculative_tokens": 3},
    "enable_lora": True,
    "max_loras": 3,
    "max_lora_rank": 64,
    "n_gpu_layers": 10,
    "tensor_split": (1.0, 2.0),
    "override_tensor": "exps=CPU",
    "n_cpu_moe": 3,
    "flash_attn": True,
    "kv_unified": True,
    "ubatch_size": 256,
    "trust_remote_code": True,
    "served_model_name": "qwen",
}
# What a field needs beside it to mean anything.
WITH: dict[str, dict[str, Any]] = {
    "enable_lora": {"max_lora_rank": 16},
    "enable_expert_parallel": {"tensor_parallel_size": 2},
    "expert_parallel_size": {"tensor_parallel_size": 2},
    "enable_dp_attention": {"tensor_parallel_size": 2},
}


def deployed(engine: str, **settings: Any) -> Deployment:
    return Deployment.of("Qwen/Qwen3-8B", engine=engine, **settings)


def errors(engine: str, model: Model, **settings: Any) -> list[Problem]:
    found = registry.engine(engine).problems(deployed(engine, **settings), model, ())
    return [problem for problem in found if problem.severity == "error"]


def argv(engine: str, model: Model, **settings: Any) -> list[str]:
    return list(registry.engine(engine).command(deployed(engine, **settings), model).argv)


def test_a_value_of_every_field_is_tried() -> None:
    assert set(SET) == set(Deployment.model_fields) - APART


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("field", SET)
def test_every_setting_is_written_or_refused(name: str, field: str, qwen: Model) -> None:
    engine, beside = registry.engine(name), WITH.get(field, {})
    asked = deployed(name, **{**beside, field: SET[field]})
    found = engine.problems(asked, qwen, ())
    wrong = [problem for problem in found if problem.severity == "error"]
    if wrong:
        assert any(field in problem.message or field in problem.remedy for problem in wrong)
        with pytest.raises(InvalidInputError):
            engine.command(asked, qwen)
        return
    without, with_it = engine.command(deployed(name, **beside), qwen), engine.command(asked, qwen)
    changed = (with_it.argv, with_it.env, with_it.files) != (without.argv, without.env, without.files)
    assert changed or any(problem.code == "checkpoint_quantization" for problem in found)


@pytest.mark.parametrize("name", ENGINES)
def test_what_an_engine_lacks_names_those_that_have_it(name: str, qwen: Model) -> None:
    for problem in errors(name, qwen, n_gpu_layers=3):
        assert problem.code == "unsupported_setting"
        assert "llamacpp" in problem.remedy


@pytest.mark.parametrize("name", ["sglang", "vllm"])
@pytest.mark.parametrize("field", SET)
def test_no_version_gets_a_flag_that_it_does_not_know(name: str, field: str, qwen: Model) -> None:
    engine = registry.engine(name)
    for version in (*versions(name), "0.1", "99.0"):
        asked = deployed(name, engine_version=version, **{**WITH.get(field, {}), field: SET[field]})
        try:
            command = engine.command(asked, qwen).at(8000)
        except InvalidInputError:
            continue
        options = command.argv[command.argv.index("--host") :]
        parsed(Known(name, version), options)  # raises for what the version does not know


def test_a_flag_that_came_later_is_an_error_that_says_so(qwen: Model) -> None:
    (problem,) = errors("vllm", qwen, engine_version="0.8.5", kv_cache_memory_bytes=2**34)
    assert problem.code == "unknown_flag"
    assert problem.message == "vLLM 0.8.5 knows no --kv-cache-memory-bytes, which kv_cache_memory_bytes needs."


def test_a_version_that_was_not_read_is_said(qwen: Model) -> None:
    found = registry.engine("vllm").problems(deployed("vllm", engine_version="0.27.1"), qwen, ())
    assert [problem.code for problem in found if problem.severity == "warning"] == ["engine_version_unread"]


def test_a_value_that_the_version_does_not_take_is_an_error(qwen: Model) -> None:
    (rank,) = errors("vllm", qwen, enable_lora=True, max_lora_rank=17)
    assert "one of 1, 8, 16, 32" in rank.message  # vllm 0.33.0, vllm/config/lora.py MaxLoRARanks
    (cache,) = errors("vllm", qwen, kv_cache_dtype="q8_0")
    assert "keeps no keys and values as q8_0" in cache.message
    assert errors("sglang", qwen, kv_cache_dtype="int3")
    assert not errors("vllm", qwen, engine_version="0.19.0", kv_cache_dtype="fp8")


@pytest.mark.parametrize("name", ENGINES)
def test_other_options_go_through_under_their_own_name_after_a_check(name: str, qwen: Model) -> None:
    own = {
        "sglang": ("attention_backend", "triton"),
        "tensorrt_llm": ("attn_backend", "FLASHINFER"),
        "transformers": ("attn-implementation", "sdpa"),
        "vllm": ("--async-scheduling", True),
    }[name]
    command = registry.engine(name).command(deployed(name, engine_args=dict([own])), qwen)
    spelled = own[0].lstrip("-").replace("_", "-")
    assert f"--{spelled}" in command.argv or "attn_backend: FLASHINFER" in command.files.get("options.yaml", "")
    (problem,) = errors(name, qwen, engine_args={"no_such_option": 1})
    assert problem.code == "unknown_flag"


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("option", ["api-key", "hf_token", "ssl-keyfile-password"])
def test_a_secret_never_stands_in_a_command(name: str, option: str, qwen: Model) -> None:
    (problem,) = errors(name, qwen, engine_args={option: "s3cr3t"})
    assert problem.code == "secret_flag"
    assert "s3cr3t" not in problem.message + problem.remedy


def test_what_the_launcher_sets_is_not_for_engine_args(qwen: Model) -> None:
    assert [problem.code for problem in errors("vllm", qwen, engine_args={"port": 1, "host": "0.0.0.0"})] == [
        "reserved_flag",
        "reserved_flag",
    ]


def test_one_setting_twice_is_an_error(qwen: Model) -> None:
    (problem,) = errors("vllm", qwen, max_model_len=4096, engine_args={"max-model-len": 2048})
    assert "set twice" in problem.message


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("model_format", ["gguf", "replay"])
def test_a_gguf_file_is_for_llamacpp(name: str, model_format: str, qwen: Model) -> None:
    strange = qwen.model_copy(update={"format": model_format})
    found = registry.engine(name).problems(deployed(name), strange, ())
    assert any(problem.code == "model_format" and "llamacpp" in problem.remedy for problem in found)


def test_weights_that_are_here_are_named_by_their_folder(qwen: Model) -> None:
    local = qwen.model_copy(update={"format": "safetensors", "files": ("/models/qwen/a.safetensors",)})
    assert registry.engine("vllm").command(deployed("vllm"), local).argv[2] == "/models/qwen"


@pytest.mark.parametrize(
    ("name", "quantization", "wanted"),
    [
        ("vllm", "fp8", ["--quantization", "fp8"]),
        ("vllm", "bf16", ["--dtype", "bfloat16"]),
        ("vllm", "awq", ["--quantization", "awq"]),
        ("sglang", "fp8", ["--quantization", "fp8"]),
        ("sglang", "nvfp4", ["--quantization", "nvfp4_online"]),
        ("transformers", "nf4", ["--quantization", "bnb-4bit"]),
    ],
)
def test_a_quantisation_that_the_engine_makes_is_asked_for(
    name: str, quantization: str, wanted: list[str], qwen: Model
) -> None:
    words = argv(name, qwen, quantization=quantization)
    assert words[words.index(wanted[0]) : words.index(wanted[0]) + 2] == wanted


def test_a_checkpoint_that_is_quantised_by_its_name_says_so_itself(qwen: Model) -> None:
    named = Deployment.of("nvidia/Qwen3-8B-FP8", engine="vllm", quantization="fp8")
    assert "--quantization" not in registry.engine("vllm").command(named, qwen).argv


def test_llama_cpps_formats_are_refused_elsewhere(qwen: Model) -> None:
    (problem,) = errors("vllm", qwen, quantization="q4_k_m")
    assert "llamacpp" in problem.remedy


def test_attention_over_data_is_spelled_by_version(qwen: Model) -> None:
    asked = {"tensor_parallel_size": 8, "data_parallel_size": 8, "enable_dp_attention": True}
    new, old = argv("sglang", qwen, **asked), argv("sglang", qwen, engine_version="0.5.10", **asked)
    assert "--attn-dp-size" in new
    assert "--enable-dp-attention" not in new
    assert old[old.index("--dp-size") + 1] == "8"
    assert "--enable-dp-attention" in old


def test_speculation_is_one_object_for_vllm_and_five_flags_for_sglang(qwen: Model) -> None:
    asked = {"speculative_config": {"method": "mtp", "num_speculative_tokens": 2, "acceptance": 1.5}}
    words = argv("vllm", qwen, **asked)
    told = json.loads(words[words.index("--speculative-config") + 1])
    assert told == {"method": "mtp", "num_speculative_tokens": 2}
    words = argv("sglang", qwen, **asked)
    assert words[words.index("--speculative-algorithm") + 1] == "NEXTN"
    assert words[words.index("--speculative-num-draft-tokens") + 1] == "3"


def test_what_trtllm_serve_takes_by_file_stands_in_a_file(qwen: Model) -> None:
    asked = deployed("tensorrt_llm", kv_cache_dtype="fp8", enable_prefix_caching=False, enforce_eager=True)
    command = registry.engine("tensorrt_llm").command(asked, qwen)
    assert command.argv[-2:] == ("--extra_llm_api_options", "{files}/options.yaml")
    assert yaml.safe_load(command.files["options.yaml"]) == {
        "kv_cache_config": {"dtype": "fp8", "enable_block_reuse": False},
        "cuda_graph_config": None,
    }


def test_threads_of_vllm_are_one_range_of_processors_for_each_rank(qwen: Model) -> None:
    # Two ranks need a range each: "0|1" was measured with two threads in all.
    command = registry.engine("vllm").command(deployed("vllm", threads=1, tensor_parallel_size=2), qwen)
    assert command.env == {"VLLM_CPU_OMP_THREADS_BIND": "0-0|1-1"}


def test_stages_on_processors_are_refused(qwen: Model) -> None:
    cpu = Accelerator(name="two cores", kind="cpu", count=2, memory_bytes=2**34, source="made up")
    found = registry.engine("vllm").problems(deployed("vllm", pipeline_parallel_size=2), qwen, (cpu,))
    assert any("tensor_parallel_size" in problem.remedy for problem in found if problem.severity == "error")


@pytest.mark.parametrize("name", ["sglang", "tensorrt_llm"])
def test_engines_for_gpus_refuse_processors(name: str, qwen: Model) -> None:
    cpu = Accelerator(name="two cores", kind="cpu", count=2, memory_bytes=2**34, source="made up")
    found = registry.engine(name).problems(deployed(name), qwen, (cpu,))
    assert any("llamacpp" in problem.remedy for problem in found if problem.severity == "error")


def test_tensorrt_llm_is_for_nvidia(qwen: Model) -> None:
    amd = Accelerator(name="Instinct MI300X", kind="gpu", vendor="AMD", memory_bytes=2**37, source="made up")
    found = registry.engine("tensorrt_llm").problems(deployed("tensorrt_llm"), qwen, (amd,))
    assert any("NVIDIA" in problem.message for problem in found if problem.severity == "error")


def test_more_devices_than_a_machine_has_are_several_machines(qwen: Model) -> None:
    asked = deployed("vllm", tensor_parallel_size=8, pipeline_parallel_size=2)
    taken = registry.engine("vllm").command(asked, qwen).devices
    assert taken is not None
    assert (taken.count, taken.machines, taken.per_machine) == (16, 2, 8)
    stated = deployed("vllm", tensor_parallel_size=8, engine_args={"nnodes": 2})
    command = registry.engine("vllm").command(stated, qwen)
    assert command.devices is not None
    assert command.devices.per_machine == 4
    assert "--nnodes" not in command.argv  # each machine is told by its launcher


VLLM_PAGE = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny"} 2.0
vllm:num_requests_running{engine="1",model_name="tiny"} 1.0
vllm:num_requests_waiting{engine="0",model_name="tiny"} 0.0
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="tiny"} 0.5
vllm:prompt_tokens_total{engine="0",model_name="tiny"} 121.0
vllm:prompt_tokens_created{engine="0",model_name="tiny"} 1.7e+09
vllm:generation_tokens_total{engine="0",model_name="tiny"} 64.0
vllm:prompt_tokens_by_source_total{engine="0",source="local"} 7.0
vllm:request_prefill_time_seconds_sum{engine="0",model_name="tiny"} 0.5
vllm:request_prefill_time_seconds_bucket{engine="0",le="0.3"} 1.0
vllm:iteration_tokens_total_count{engine="0",model_name="tiny"} 40.0
"""


def test_vllms_page_of_metrics_under_our_names() -> None:
    assert registry.engine("vllm").readings(VLLM_PAGE) == {
        "requests_running": 3.0,
        "requests_waiting": 0.0,
        "kv_cache_usage": 0.5,
        "prompt_tokens": 121.0,
        "output_tokens": 64.0,
        "prefill_s": 0.5,
        "decode_calls": 40.0,
    }


def test_sglangs_page_of_metrics_under_our_names() -> None:
    page = 'sglang:num_running_reqs{tp_rank="0"} 3\nsglang:token_usage{tp_rank="0"} 0.1\nsglang:prompt_tokens_total 9\n'
    assert registry.engine("sglang").readings(page) == {
        "requests_running": 3.0,
        "kv_cache_usage": 0.1,
        "prompt_tokens": 9.0,
    }
