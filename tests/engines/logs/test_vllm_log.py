"""Lines are written from the wordings of vllm 0.5 to 0.33; figures are those of published logs where one is named."""

import pytest

from servolt.engines.logs import parse_log
from servolt.engines.logs.startup import GIB
from servolt.errors import InvalidInputError

CONFIGURED = (
    "(EngineCore pid=125) INFO 05-03 17:50:02 [core.py:109] Initializing a V1 LLM engine (v{version}) with config: "
    "model='{model}', speculative_config={speculation}, tokenizer='{model}', trust_remote_code=False, "
    "dtype=torch.bfloat16, max_seq_len=8192, download_dir=None, tensor_parallel_size={tp}, "
    "pipeline_parallel_size={pp}, data_parallel_size=1, quantization={quantization}, enforce_eager=False, "
    "kv_cache_dtype={kv}, device_config=cuda, seed=0, enable_prefix_caching=True, enable_chunked_prefill=True, "
    "compilation_config={{'cudagraph_capture_sizes': [1, 2, 4], 'max_cudagraph_capture_size': 512}}"
)


def configured(
    version: str = "0.19.0",
    model: str = "meta-llama/Llama-3.1-8B-Instruct",
    speculation: str = "None",
    tp: int = 1,
    pp: int = 1,
    quantization: str = "None",
    kv: str = "auto",
) -> str:
    return CONFIGURED.format(
        version=version, model=model, speculation=speculation, tp=tp, pp=pp, quantization=quantization, kv=kv
    )


# The figures of Llama-3.1-8B on one H100 with vLLM 0.19.
USAGE = (
    "Free memory on device (78.68/79.19 GiB) on startup. Desired GPU memory utilization is (0.95, 75.23 GiB). Actual "
    "usage is 14.99 GiB for weight, 1.89 GiB for peak activation, 0.25 GiB for non-torch memory, and 0.91 GiB for "
    "CUDAGraph memory. Replace gpu_memory_utilization config with `--kv-cache-memory=61232353280` (57.03 GiB) to fit"
)
SAID = f"""\
INFO 05-03 17:50:03 [scheduler.py:239] Chunked prefill is enabled with max_num_batched_tokens=8192.
INFO 05-03 17:52:23 [gpu_model_runner.py:4879] Model loading took 14.99 GiB memory and 125.992893 seconds
INFO 05-03 17:54:32 [gpu_worker.py:440] Available KV cache memory: 58.11 GiB
INFO 05-03 17:54:32 [kv_cache_utils.py:1711] GPU KV cache size: 476,016 tokens
INFO 05-03 17:54:32 [kv_cache_utils.py:1716] Maximum concurrency for 8,192 tokens per request: 58.11x
INFO 05-03 17:54:52 [gpu_model_runner.py:6133] Graph capturing finished in 7 secs, took 0.92 GiB
INFO 05-03 17:54:52 [gpu_worker.py:599] CUDA graph pool memory: 0.91 GiB (actual), 0.84 GiB (estimated), off: 7.7 %
DEBUG 05-03 17:54:52 [gpu_worker.py:620] {USAGE}
DEBUG 05-03 17:54:53 [core.py:300] vllm cache_config_info with initialization after num_gpu_blocks is: 29751"""
LLAMA = "\n".join((configured(), *(f"(EngineCore pid=125) {line}" for line in SAID.splitlines())))


def gib(size: float) -> int:
    return round(size * GIB)


def test_each_term_is_read_with_the_settings_it_holds_for() -> None:
    log = parse_log(LLAMA)
    assert (log.engine, log.engine_version, log.model) == ("vllm", "0.19.0", "meta-llama/Llama-3.1-8B-Instruct")
    (rank,) = log.ranks
    assert (rank.weights_bytes, rank.activation_bytes, rank.overhead_bytes) == (gib(14.99), gib(1.89), gib(0.25))
    assert (rank.graph_bytes, rank.graph_estimate_bytes) == (gib(0.91), gib(0.84))
    assert (rank.visible_bytes, rank.free_before_bytes) == (gib(79.19), gib(78.68))
    assert rank.kv_cache_bytes == gib(58.11)
    assert (log.kv_cache_tokens, log.num_gpu_blocks, log.max_concurrency) == (476_016, 29_751, 58.11)
    assert log.settings["gpu_memory_utilization"] == 0.95
    assert (log.settings["max_model_len"], log.settings["max_num_batched_tokens"]) == (8192, 8192)
    assert log.settings["max_cudagraph_capture_size"] == 512
    assert log.devices == 1


def test_the_deployment_can_be_made_of_the_log_alone() -> None:
    deployment = parse_log(LLAMA).deployment(max_num_seqs=1024)
    assert (deployment.engine, deployment.engine_version) == ("vllm", "0.19.0")
    assert (deployment.max_model_len, deployment.max_num_seqs, deployment.dtype) == (8192, 1024, "bfloat16")
    assert deployment.kv_cache_dtype is None, "auto is what a deployment leaves open"
    assert deployment.quantization is None


def test_a_line_that_is_not_there_leaves_its_term_absent() -> None:
    log = parse_log("INFO 05-03 17:54:32 [gpu_worker.py:440] Available KV cache memory: 58.11 GiB")
    (rank,) = log.ranks
    assert rank.kv_cache_bytes == gib(58.11)
    assert rank.weights_bytes is None
    assert rank.graph_bytes is None
    assert (log.engine_version, log.model, log.kv_cache_tokens, log.devices) == (None, None, None, None)


def test_the_new_spelling_of_the_pool_means_requests_times_length() -> None:
    old = parse_log(LLAMA)
    one_line = "GPU KV cache size: 456,320 tokens, Maximum concurrency for 16,384 tokens per request: 27.85x"
    new = parse_log(f"INFO 09-24 10:00:00 [kv_cache_utils.py:2396] {one_line}")
    assert (old.tokens_meaning, new.tokens_meaning) == ("blocks", "length")
    assert (new.kv_cache_tokens, new.max_concurrency) == (456_320, 27.85)
    assert new.settings["max_model_len"] == 16_384


def test_consumed_memory_is_weights_and_what_is_not_torch() -> None:
    log = parse_log(
        "INFO 10-01 10:00:00 [model_runner.py:422] Model loading took 38.24 GiB memory and 226.5 seconds\n"
        "INFO 10-01 10:01:00 [gpu_worker.py:876] Free memory on device (137.64/139.8 GiB) on startup. Desired GPU "
        "memory utilization is (0.9, 125.82 GiB). Actual usage is 39.98 GiB for consumed memory (weights + non-torch), "
        "4.04 GiB for peak activation, and 1.2 GiB for CUDAGraph memory. Current kv cache memory in use is 81.79 GiB."
    )
    (rank,) = log.ranks
    assert rank.overhead_bytes == gib(1.74)
    assert rank.activation_bytes == gib(4.04)
    assert rank.graph_bytes == gib(1.2)


def test_the_first_engine_said_it_in_one_sentence() -> None:
    log = parse_log(
        "INFO 08-12 22:32:07 [llm_engine.py:230] Initializing a V0 LLM engine (v0.8.5.post1) with config: "
        "model='unsloth/a', speculative_config=None, dtype=torch.float16, max_seq_len=32768, tensor_parallel_size=1, "
        "pipeline_parallel_size=1, quantization=bitsandbytes, enforce_eager=False, kv_cache_dtype=auto\n"
        "INFO 08-12 22:32:09 [model_runner.py:1115] Loading model weights took 0.5151 GB\n"
        "INFO 08-12 22:32:11 [worker.py:295] the current vLLM instance can use total_gpu_memory (47.50GiB) x "
        "gpu_memory_utilization (0.78) = 37.18GiB\n"
        "INFO 08-12 22:32:11 [worker.py:295] model weights take 0.52GiB; non_torch_memory takes 0.08GiB; PyTorch "
        "activation peak memory takes 1.78GiB; the rest of the memory reserved for KV Cache is 34.81GiB.\n"
        "INFO 08-12 22:32:11 [executor_base.py:113] # cuda blocks: 190100, # CPU blocks: 21845\n"
        "INFO 08-12 22:32:11 [executor_base.py:118] Maximum concurrency for 32768 tokens per request: 92.82x\n"
        "INFO 08-12 22:32:30 [model_runner.py:1671] Graph capturing finished in 15 secs, took 0.21 GiB\n"
    )
    (rank,) = log.ranks
    assert (rank.weights_bytes, rank.overhead_bytes, rank.activation_bytes) == (gib(0.52), gib(0.08), gib(1.78))
    assert (rank.kv_cache_bytes, rank.graph_bytes, rank.visible_bytes) == (gib(34.81), gib(0.21), gib(47.5))
    assert (log.num_gpu_blocks, log.kv_cache_tokens) == (190_100, 190_100 * 16), "92.82 x 32,768 tokens, as it says"
    assert log.generation == "V0"
    assert log.settings["quantization"] == "bitsandbytes"
    assert log.settings["gpu_memory_utilization"] == 0.78


@pytest.mark.parametrize(
    ("line", "tokens"),
    [
        ("# CUDA blocks: 28108, # CPU blocks: 2048", 28_108 * 16),
        ("# GPU blocks: 7,407, # CPU blocks: 2048", 7_407 * 16),
        ("# GPU blocks: 1024, # CPU blocks: 0\nMaximum concurrency for 4096 tokens per request: 8.00x", 1024 * 32),
        ("# CPU blocks: 2048", None),
    ],
)
def test_the_first_engines_blocks_are_tokens(line: str, tokens: int | None) -> None:
    log = parse_log(f"INFO [worker.py:295] model weights take 14.99GiB; non_torch_memory takes 0.25GiB\n{line}")
    assert log.kv_cache_tokens == tokens


def test_which_of_the_two_engines_it_is_is_told_without_a_version() -> None:
    assert parse_log(LLAMA).generation == "V1"
    assert parse_log("INFO [gpu_worker.py:440] Available KV cache memory: 58.11 GiB").generation == "V1"
    assert parse_log("model weights take 14.99GiB; non_torch_memory takes 0.25GiB").generation == "V0"


def test_ranks_of_both_kinds_of_parallelism_stay_apart_and_the_first_stage_is_told() -> None:
    lines = [configured(tp=2, pp=2)]
    for place, weights, pool in (("PP0_TP0", 7.51, 66.54), ("PP0_TP1", 7.53, 66.51), ("PP1_TP0", 7.02, 67.0)):
        head = f"(Worker_{place} pid=84) INFO 05-03 17:52:23"
        lines.append(f"{head} [gpu_model_runner.py:4879] Model loading took {weights} GiB memory and 12.0 seconds")
        lines.append(f"{head} [gpu_worker.py:440] Available KV cache memory: {pool} GiB")
    log = parse_log("\n".join(lines))
    assert [(rank.rank, rank.stage) for rank in log.ranks] == [("PP0_TP0", 0), ("PP0_TP1", 0), ("PP1_TP0", 1)]
    assert log.first is not None
    assert (log.first.weights_bytes, log.first.kv_cache_bytes) == (gib(7.53), gib(66.51))
    assert log.devices == 4


@pytest.mark.parametrize("process", ["VllmWorkerProcess pid={}", "VllmWorker rank={} pid=99", "Worker_TP{} pid=99"])
def test_workers_are_told_apart_by_whatever_their_prefix_says(process: str) -> None:
    lines = [
        f"({process.format(number)}) INFO 02-20 15:48:43 model_runner.py:1115] Loading model weights took 19.39 GB"
        for number in (1, 2, 3)
    ]
    assert len(parse_log("\n".join(lines), engine="vllm").ranks) == 3


@pytest.mark.parametrize("colours", ["\x1b[1;36m(Worker_TP0 pid=8)\x1b[0;0m", "[1;36m(Worker_TP0 pid=8)[0;0m"])
def test_colours_are_no_part_of_a_line(colours: str) -> None:
    log = parse_log(f"{colours} INFO 05-03 17:54:32 [gpu_worker.py:440] Available KV cache memory: 5.5 GiB")
    assert log.ranks[0].rank == "TP0"
    assert log.ranks[0].kv_cache_bytes == gib(5.5)


def test_what_the_server_was_asked_for_is_read_too() -> None:
    asked = (
        "(APIServer pid=1) INFO 05-03 17:49:37 [utils.py:233] non-default args: {'model_tag': 'org/name', 'model': "
        "'org/name', 'max_model_len': 262144, 'quantization': 'compressed-tensors', 'gpu_memory_utilization': 0.85, "
        "'kv_cache_dtype': 'fp8_e4m3', 'max_num_batched_tokens': 65536, 'max_num_seqs': 8, "
        "'limit_mm_per_prompt': {'image': 2}, 'enable_expert_parallel': True}\n"
    )
    log = parse_log(
        asked
        + configured(version="0.20.0", model="org/name", quantization="compressed-tensors", kv="fp8_e4m3")
        + "\nAvailable KV cache memory: 66.93 GiB"
    )
    said = log.settings
    assert (said["max_num_seqs"], said["max_num_batched_tokens"], said["kv_cache_dtype"]) == (8, 65536, "fp8_e4m3")
    assert said["limit_mm_per_prompt"] == {"image": 2}
    assert said["enable_expert_parallel"] is True
    assert log.deployment().model == "org/name"


def test_guessed_tokens_are_told_by_their_method() -> None:
    speculation = "SpeculativeConfig(method='eagle3', model='org/heads', num_spec_tokens=3)"
    log = parse_log(configured(speculation=speculation) + "\nAvailable KV cache memory: 5.0 GiB")
    assert log.settings["speculative_config"] == {
        "method": "eagle3",
        "model": "org/heads",
        "num_speculative_tokens": 3,
    }
    assert log.deployment().speculative_config is not None


def test_of_two_starts_in_one_file_the_later_counts() -> None:
    earlier = LLAMA.replace("14.99 GiB memory", "20.00 GiB memory").replace("58.11 GiB", "50.00 GiB")
    later = configured() + "\n(EngineCore pid=125) INFO x [gpu_worker.py:440] Available KV cache memory: 58.11 GiB"
    (rank,) = parse_log(f"{earlier}\n{later}").ranks
    assert rank.kv_cache_bytes == gib(58.11)
    assert rank.weights_bytes is None, "of the start before"


def test_a_pool_below_nothing_is_no_pool() -> None:
    log = parse_log(configured() + "\nModel loading took 14.99 GiB memory and 1 s\nAvailable KV cache memory: -3.2 GiB")
    assert log.ranks[0].kv_cache_bytes is None


def test_memory_that_was_asked_for_is_not_profiled() -> None:
    log = parse_log(
        configured() + "\nINFO Initial free memory 78.68 GiB, reserved 20.0 GiB memory for KV Cache as specified by "
        "kv_cache_memory_bytes config and skipped memory profiling."
    )
    assert log.ranks[0].kv_cache_bytes == gib(20.0)
    assert log.ranks[0].free_before_bytes == gib(78.68)


def test_the_device_may_be_a_processor_or_anything_else() -> None:
    log = parse_log(configured() + "\nINFO 01-01 [kv_cache_utils.py:1] CPU KV cache size: 87,296 tokens")
    assert log.kv_cache_tokens == 87_296


def test_the_kernels_tuning_files_name_the_device() -> None:
    log = parse_log(
        configured() + "\nWARNING Using default MoE config. Config file not found at "
        "['/x/configs/E=64,N=1408,device_name=NVIDIA_H100_80GB_HBM3.json']\nAvailable KV cache memory: 1.0 GiB"
    )
    assert log.accelerator == "NVIDIA H100 80GB HBM3"


@pytest.mark.parametrize("text", ["", "Available disk: 3 GiB\n", "\x00\xff" * 50, "(" * 5000])
def test_text_that_is_no_log_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="no line of it"):
        parse_log(text)


def test_a_log_that_ends_before_the_memory_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="how much memory"):
        parse_log(configured())


def test_lines_that_are_long_and_lines_that_say_nothing_are_passed_over() -> None:
    said = "INFO Avg generation throughput: 29.5 tokens/s, Running: 1 reqs, GPU KV cache usage: 2.6%\n" * 1000
    long = "1" * 1_000_000 + " GiB for peak activation\n" + "(" * 100_000 + " GiB\n"
    assert parse_log(f"{LLAMA}\n{said}{long}") == parse_log(LLAMA)
