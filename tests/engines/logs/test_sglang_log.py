"""Lines are written from the wordings of sglang 0.4 to 0.5.23; figures are of published logs where one is named."""

import json

from servolt.engines.logs import parse_log
from servolt.engines.logs.startup import GIB

ARGUMENTS = (
    "[2026-07-01 10:00:00] server_args=ServerArgs(model_path='meta-llama/Llama-3.1-8B-Instruct', "
    "tokenizer_path='meta-llama/Llama-3.1-8B-Instruct', trust_remote_code=False, context_length=None, dtype='auto', "
    "quantization=None, kv_cache_dtype='auto', mem_fraction_static=0.827, max_running_requests=None, "
    "max_total_tokens=None, chunked_prefill_size=8192, max_prefill_tokens=16384, page_size=1, "
    "swa_full_tokens_ratio=0.8, tp_size={tp}, pp_size=1, dp_size=1, ep_size=1, enable_dp_attention=False, "
    "cuda_graph_max_bs=256, speculative_algorithm=None)"
)


def log(*lines: str, tp: int = 1, rank: str = "") -> str:
    stamp = f"[2026-07-01 10:00:10{rank}]"
    return "\n".join((ARGUMENTS.format(tp=tp), *(f"{stamp} {line}" for line in lines)))


def gib(size: float) -> int:
    return round(size * GIB)


# The pool and tokens are those of sglang's CI of July 2026 for Llama-3.1-8B on one H100.
LLAMA = log(
    "Load weight begin. avail mem=78.60 GB",
    "Load weight end. elapsed=3.12 s, type=LlamaForCausalLM, dtype=torch.bfloat16, avail mem=63.50 GB, "
    "mem usage=15.10 GB.",
    "Using KV cache dtype: torch.bfloat16",
    "KV Cache is allocated. dtype: torch.bfloat16, #tokens: 410364, K size: 25.05 GB, V size: 25.05 GB",
    "Memory pool end. avail mem=12.60 GB",
    "Capture cuda graph begin. This can take up to several minutes. avail mem=12.50 GB",
    "Capture cuda graph end. Time elapsed: 6.20 s. mem usage=1.20 GB. avail mem=11.30 GB.",
    "max_total_num_tokens=410364, chunked_prefill_size=8192, max_prefill_tokens=16384, max_running_requests=4096, "
    "context_len=131072, available_gpu_mem=11.30 GB",
)


def test_weights_pool_graphs_and_settings_are_read() -> None:
    found = parse_log(LLAMA)
    (rank,) = found.ranks
    assert (found.engine, found.model) == ("sglang", "meta-llama/Llama-3.1-8B-Instruct")
    assert (rank.weights_bytes, rank.kv_cache_bytes, rank.graph_bytes) == (gib(15.1), gib(50.1), gib(1.2))
    assert (rank.free_before_bytes, rank.free_after_bytes) == (gib(78.6), gib(11.3))
    assert rank.state_bytes is None
    assert found.kv_cache_tokens == 410_364
    said = found.settings
    assert (said["mem_fraction_static"], said["max_num_batched_tokens"], said["max_model_len"]) == (0.827, 8192, 131072)
    assert (said["dtype"], said["max_cudagraph_capture_size"], found.devices) == ("bfloat16", 256, 1)
    assert "quantization" not in said
    assert found.deployment().mem_fraction_static == 0.827


def test_the_newer_spellings_of_captured_graphs_add_up() -> None:
    found = parse_log(
        log(
            "Load weight end. elapsed=3 s, type=A, dtype=torch.bfloat16, avail mem=63.5 GB, mem usage=15.1 GB.",
            "Capture target decode CUDA graph end. elapsed=6.2 s, mem usage=0.80 GB, avail mem=11.3 GB.",
            "Capture target prefill CUDA graph end. elapsed=1.2 s, mem usage=0.40 GB, avail mem=10.9 GB.",
        )
    )
    assert found.ranks[0].graph_bytes == gib(1.2)


def test_a_latent_has_one_size_and_a_draft_model_comes_on_top() -> None:
    found = parse_log(
        log(
            "Load weight end. type=DeepseekV3ForCausalLM, dtype=torch.bfloat16, avail mem=40.0 GB, mem usage=94.5 GB.",
            "KV Cache is allocated. #tokens: 171008, KV size: 10.44 GB",
            "Load weight end. type=DeepseekV3ForCausalLMNextN, dtype=torch.bfloat16, avail mem=38.0 GB, "
            "mem usage=1.22 GB.",
            "KV Cache is allocated. #tokens: 171008, KV size: 0.66 GB",
        )
    )
    (rank,) = found.ranks
    assert (rank.weights_bytes, rank.kv_cache_bytes) == (gib(95.72), gib(11.10))
    assert found.kv_cache_tokens == 171_008


def test_old_logs_say_only_what_is_left() -> None:
    found = parse_log(
        "[2025-01-02 12:01:17] Load weight begin. avail mem=92.50 GB\n"
        "[2025-01-02 12:01:19] Load weight end. type=LlamaForCausalLM, dtype=torch.float16, avail mem=77.39 GB\n"
    )
    assert found.ranks[0].weights_bytes == gib(15.11)


def test_the_pools_of_a_sliding_model_are_counted_once() -> None:
    found = parse_log(
        log(
            "KV Cache is allocated. dtype: torch.bfloat16, #tokens: 29664, K size: 1.40 GB, V size: 1.40 GB",
            "KV Cache is allocated. dtype: torch.bfloat16, #tokens: 37081, K size: 0.19 GB, V size: 0.19 GB",
            "SWAKVPool mem usage: 3.18 GB, swa size: 29664, full size: 37081",
            "max_total_num_tokens=37081, chunked_prefill_size=8192, context_len=8192, available_gpu_mem=6.56 GB",
        )
    )
    assert found.ranks[0].kv_cache_bytes == gib(3.18)
    assert found.kv_cache_tokens == 37_081


def test_states_of_recurrent_layers_are_read_with_those_that_speculation_keeps() -> None:
    found = parse_log(
        log(
            "Mamba Cache is allocated. max_mamba_cache_size: 43, conv_state size: 0.12GB, ssm_state size: 3.09GB "
            "intermediate_ssm_state_cache size: 2.11GB intermediate_conv_window_cache size: 0.04GB",
            "KV Cache is allocated. #tokens: 171008, K size: 5.22 GB, V size: 5.22 GB",
        )
    )
    assert found.ranks[0].state_bytes == gib(5.36)


def test_pools_with_compressed_tokens_say_how_many_they_hold() -> None:
    found = parse_log(
        log("DSV4 pool sizes: full=5491200, swa=13312, c4=1372800, c128=42900, c4_state=1664, c128_state=0")
    )
    assert found.kv_cache_tokens == 5_491_200


def test_ranks_are_told_by_the_time_stamp() -> None:
    text = "\n".join(
        f"[2026-07-01 10:00:10 TP{rank} EP{rank}] Load weight end. elapsed=9 s, type=A, dtype=torch.bfloat16, "
        f"avail mem=10.00 GB, mem usage={67.8 + rank / 10:.2f} GB."
        for rank in range(2)
    )
    found = parse_log(f"{ARGUMENTS.format(tp=2)}\n{text}")
    assert [rank.rank for rank in found.ranks] == ["TP0_EP0", "TP1_EP1"]
    assert found.first is not None
    assert found.first.weights_bytes == gib(67.9)
    assert found.devices == 2


def test_attention_in_parallel_over_data_uses_the_same_devices() -> None:
    text = ARGUMENTS.format(tp=4).replace("dp_size=1", "dp_size=4").replace("dp_attention=False", "dp_attention=True")
    assert parse_log(f"{text}\n[2026-07-01 10:00:10] Load weight end. mem usage=1.0 GB.").devices == 4


def test_of_two_starts_in_one_file_the_later_counts() -> None:
    found = parse_log(f"{LLAMA.replace('15.10', '9.10')}\n{LLAMA}")
    assert found.ranks[0].weights_bytes == gib(15.1)


def test_the_running_server_says_it_too() -> None:
    info = {
        "model_path": "org/name",
        "version": "0.5.23",
        "tp_size": 2,
        "kv_cache_dtype": "fp8_e4m3",
        "mem_fraction_static": 0.85,
        "chunked_prefill_size": 8192,
        "internal_states": [
            {"memory_usage": {"weight": 15.1, "kvcache": 50.1, "token_capacity": 410364, "graph": 1.2}}
        ],
    }
    found = parse_log(json.dumps(info))
    assert (found.engine, found.engine_version, found.model) == ("sglang", "0.5.23", "org/name")
    assert found.ranks[0].kv_cache_bytes == gib(50.1)
    assert found.kv_cache_tokens == 410_364
    assert found.deployment().tensor_parallel_size == 2


def test_a_server_that_says_nothing_of_a_term_leaves_it_absent() -> None:
    found = parse_log(json.dumps({"internal_states": [{"memory_usage": {"weight": 15.1}}]}))
    assert found.ranks[0].weights_bytes == gib(15.1)
    assert found.ranks[0].graph_bytes is None
    assert found.kv_cache_tokens is None
