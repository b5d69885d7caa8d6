"""A deployment and a workload as people write them down."""

import pytest

from servolt.deployment import Deployment
from servolt.errors import InvalidInputError
from servolt.workload import Workload


def test_numbers_in_a_file_take_the_suffixes_of_the_command_line() -> None:
    deployment = Deployment.from_yaml("model: guide\nmax_model_len: 1K\nmax_num_seqs: 8\nmax_num_batched_tokens: 1k")
    assert (deployment.max_model_len, deployment.max_num_seqs, deployment.max_num_batched_tokens) == (1024, 8, 1000)
    assert Workload.from_yaml("input_len: 2K\noutput_len: '16'").input_len == 2048


def test_one_number_has_one_digest_however_it_is_written() -> None:
    written = [Deployment.from_plain({"model": "guide", "max_model_len": number}) for number in (2048, "2048", "2K")]
    assert len({one.digest for one in written}) == 1


@pytest.mark.parametrize("number", ["1Q", "1.5", "1e3", "", "true"])
def test_what_is_no_number_is_refused_with_what_one_looks_like(number: str) -> None:
    with pytest.raises(InvalidInputError, match="max_model_len"):
        Deployment.from_yaml(f"model: guide\nmax_model_len: {number!r}")
    with pytest.raises(InvalidInputError, match="True is no number"):
        Workload.from_plain({"input_len": True})


@pytest.mark.parametrize(
    ("written", "engine", "version"),
    [
        ("vLLM", "vllm", None),
        ("llama.cpp", "llamacpp", None),
        ("TensorRT-LLM", "tensorrt_llm", None),
        ("trtllm", "tensorrt_llm", None),
        ("ik_llama.cpp", "ik_llamacpp", None),
        ("vLLM v0.9.2", "vllm", "0.9.2"),
        ("TGI", "TGI", None),
    ],
)
def test_an_engine_may_be_written_as_people_write_it(written: str, engine: str, version: str | None) -> None:
    deployment = Deployment(model="m", engine=written)
    assert (deployment.engine, deployment.engine_version) == (engine, version)


def test_two_versions_of_one_engine_are_a_contradiction() -> None:
    with pytest.raises(InvalidInputError, match=r"engine says 0\.9\.2, and engine_version says 0\.19\.0"):
        Deployment.from_plain({"model": "m", "engine": "vLLM v0.9.2", "engine_version": "0.19.0"})


@pytest.mark.parametrize(
    ("plain", "method"),
    [
        ({"model": "yuhuili/EAGLE3-LLaMA3.1-Instruct-8B"}, "eagle3"),
        ({"model": "meta-llama/Llama-3.2-1B"}, "draft_model"),
        ({"model": "[ngram]"}, "ngram"),
    ],
)
def test_the_method_of_speculation_may_be_left_to_the_models_name(plain: dict[str, str], method: str) -> None:
    deployment = Deployment.from_plain({"model": "m", "speculative_config": {**plain, "num_speculative_tokens": 3}})
    assert deployment.speculative_config is not None
    assert deployment.speculative_config.method == method


def test_options_may_have_the_names_that_engines_give_them() -> None:
    sglang = {"model": "m", "engine": "sglang", "tp_size": 4, "context_length": "8K", "max_running_requests": 64}
    deployment = Deployment.from_plain({**sglang, "chunked_prefill_size": 2048, "disable_radix_cache": True})
    assert (deployment.tensor_parallel_size, deployment.max_model_len, deployment.max_num_seqs) == (4, 8192, 64)
    assert (deployment.max_num_batched_tokens, deployment.enable_prefix_caching) == (2048, False)
    llama = {"model": "m", "n_ctx": 16384, "n_parallel": 4, "cache_type_k": "q8_0", "cache_type_v": "q8_0"}
    assert Deployment.from_plain(llama).max_model_len == 4096
    assert Deployment.from_plain(llama).kv_cache_dtype == "q8_0"
    assert Deployment.from_plain({"model": "m", "chunked_prefill_size": -1}).enable_chunked_prefill is False


def test_one_option_under_two_names_with_two_values_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="tp_size is 4, and tensor_parallel_size, which means the same, is 2"):
        Deployment.from_plain({"model": "m", "tp_size": 4, "tensor_parallel_size": 2})


def test_a_context_of_llama_cpp_is_read_with_its_suffix_and_lost_nowhere() -> None:
    assert Deployment.from_plain({"model": "m", "n_ctx": "8K"}).max_model_len == 8192
    with pytest.raises(InvalidInputError, match="n_ctx is 8192, and max_model_len"):
        Deployment.from_plain({"model": "m", "n_ctx": 8192, "max_model_len": 4096})


def test_a_field_that_is_none_names_the_nearest() -> None:
    with pytest.raises(InvalidInputError) as caught:
        Deployment.from_plain({"model": "m", "max_num_seq": 4})
    assert "max_num_seqs" in str(caught.value)


@pytest.mark.parametrize("written", [-1, "-1", "auto"])
@pytest.mark.parametrize("engine", ["vllm", "vLLM v0.19.0"])
def test_vllm_may_find_the_longest_context_by_itself(written: int | str, engine: str) -> None:
    found = Deployment.from_plain({"model": "m", "engine": engine, "max_model_len": written})

    assert found.max_model_len is None
    assert found.engine_args == {"max_model_len": "auto"}
    assert Deployment.from_plain(found.model_dump()) == found
    with pytest.raises(InvalidInputError):
        Deployment.from_plain({"model": "m", "engine": "sglang", "max_model_len": written})


@pytest.mark.parametrize("field", ["max_num_seqs", "cpu_offload_gb", "n_gpu_layers"])
def test_a_truth_is_no_number(field: str) -> None:
    with pytest.raises(InvalidInputError, match=field):
        Deployment.from_plain({"model": "m", field: True})
    with pytest.raises(InvalidInputError, match="memory_bytes takes no true"):
        Deployment.from_plain({"model": "m", "hardware": {"accelerator": "H100", "memory_bytes": True}})
