"""The same start, as terminals, containers and collectors of logs hand it on."""

import json
from collections.abc import Callable, Mapping

import pytest

from servolt.engines.logs import parse_log

VLLM = [
    (
        "(EngineCore pid=7) INFO 05-03 17:50:02 [core.py:109] Initializing a V1 LLM engine (v0.21.0) with config: "
        "model='meta-llama/Llama-3.1-8B-Instruct', dtype=torch.bfloat16, max_seq_len=8192, tensor_parallel_size=2, "
        "pipeline_parallel_size=1, quantization=None, enforce_eager=False, kv_cache_dtype=auto"
    ),
    "(Worker_TP0 pid=80) INFO 05-03 17:52:23 [gpu_model_runner.py:4879] Model loading took 7.51 GiB memory and 12.0 s",
    "(Worker_TP1 pid=81) INFO 05-03 17:52:23 [gpu_model_runner.py:4879] Model loading took 7.53 GiB memory and 12.1 s",
    "(Worker_TP1 pid=81) INFO 05-03 17:54:32 [gpu_worker.py:440] Available KV cache memory: 63.71 GiB",
    "(Worker_TP0 pid=80) INFO 05-03 17:54:32 [gpu_worker.py:440] Available KV cache memory: 63.76 GiB",
    "(Worker_TP0 pid=80) INFO CUDA graph pool memory: 0.62 GiB (actual), 0.85 GiB (estimated), difference: 0.23 GiB",
    (
        "(EngineCore pid=7) INFO 05-03 17:54:32 [kv_cache_utils.py:1711] GPU KV cache size: 1,044,688 tokens, Maximum "
        "concurrency for 8,192 tokens per request: 127.52x"
    ),
]
SGLANG = [
    (
        "[2026-07-01 10:00:00] server_args=ServerArgs(model_path='Qwen/Qwen3-8B', tp_size=2, dtype='auto', "
        "kv_cache_dtype='auto', context_length=None, chunked_prefill_size=8192, quantization=None)"
    ),
    "[2026-07-01 10:00:01 TP0] Load weight begin. avail mem=78.60 GB",
    "[2026-07-01 10:00:01 TP1] Load weight begin. avail mem=78.60 GB",
    (
        "[2026-07-01 10:00:09 TP1] Load weight end. type=Qwen3ForCausalLM, dtype=torch.bfloat16, avail mem=70.92 GB, "
        "mem usage=7.68 GB."
    ),
    (
        "[2026-07-01 10:00:10 TP0] Load weight end. type=Qwen3ForCausalLM, dtype=torch.bfloat16, avail mem=70.99 GB, "
        "mem usage=7.61 GB."
    ),
    "[2026-07-01 10:00:12 TP0] KV Cache is allocated. #tokens: 400000, K size: 13.73 GB, V size: 13.73 GB",
    (
        "[2026-07-01 10:00:20 TP0] max_total_num_tokens=400000, chunked_prefill_size=8192, max_running_requests=2048, "
        "context_len=40960, available_gpu_mem=9.20 GB"
    ),
]
LLAMACPP = [
    "llama_model_loader: loaded meta data with 30 key-value pairs and 291 tensors from /m/a.gguf (version GGUF V3)",
    "load_tensors: offloaded 33/33 layers to GPU",
    "load_tensors:        CUDA0 model buffer size =  4403.49 MiB",
    "llama_context: n_ctx         = 8192",
    "llama_kv_cache_unified:      CUDA0 KV buffer size =  1024.00 MiB",
    "llama_context:      CUDA0 compute buffer size =   560.00 MiB",
    "llama_params_fit_impl: context size reduced from 40960 to 4096 -> need 3456 MiB less memory in total",
]
WRAPPED: Mapping[str, Callable[[str], str]] = {
    "windows": lambda line: f"{line}\r",
    "kubernetes": lambda line: f"2026-11-28T10:00:00.123456789Z stdout F {line}",
    "compose": lambda line: f"vllm-1  | {line}",
    "stern": lambda line: f"[pod/server-0/engine] {line}",
    "journal": lambda line: f"Nov 28 10:00:00 host engine[123]: {line}",
    "torchrun": lambda line: f"[default0]:{line}",
    "colours": lambda line: f"\x1b[1;36m{line[:25]}\x1b[0;0m{line[25:]}\x1b[0m",
    "ray": lambda line: f"\x1b[36m(RayWorkerWrapper pid=99, ip=10.0.0.1)\x1b[0m {line}",
    "docker": lambda line: json.dumps({"log": f"{line}\n", "stream": "stderr", "time": "2026-11-28T10:00:00Z"}),
    "docker, coloured": lambda line: json.dumps({"log": f"\x1b[32m{line}\x1b[0m\n", "stream": "stdout"}),
    "structured": lambda line: json.dumps({"level": "INFO", "message": line, "logger": "engine", "ts": 1.5}),
    "behind a time": lambda line: f"2026-11-28T10:00:00Z stdout F {json.dumps({'severity': 'INFO', 'msg': line})}",
    "cloud": lambda line: json.dumps({"jsonPayload": {"message": line}, "resource": {"type": "k8s"}}),
    "table": lambda line: '"' + line.replace('"', '""') + '"',
}


@pytest.mark.parametrize("wrapped", WRAPPED)
@pytest.mark.parametrize("lines", [VLLM, SGLANG, LLAMACPP], ids=["vllm", "sglang", "llamacpp"])
def test_a_start_says_the_same_whatever_its_lines_are_wrapped_in(lines: list[str], wrapped: str) -> None:
    assert parse_log("\n".join(map(WRAPPED[wrapped], lines))) == parse_log("\n".join(lines))


def test_ranks_that_write_between_one_another_are_told_apart() -> None:
    for lines, ranks in ((VLLM, {"TP0": 7.51, "TP1": 7.53}), (SGLANG, {"TP0": 7.61, "TP1": 7.68})):
        log = parse_log("\n".join(lines))
        told = {one.rank: round((one.weights_bytes or 0) / 2**30, 2) for one in log.ranks if one.weights_bytes}
        assert told == ranks


@pytest.mark.parametrize("text", ['{"log": 3}', '{"log": "x', '{"a": {"b": []}}', '"""', "{" * 3000 + "}" * 3000])
def test_what_looks_like_json_and_is_none_is_passed_over(text: str) -> None:
    line = "INFO Available KV cache memory: 58.11 GiB"
    assert parse_log(f"{text} GiB\n{text}\n{line}") == parse_log(line)
