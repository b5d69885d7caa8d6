"""Lines are written from the wordings of llama.cpp of 2024 to 2026."""

import pytest

from servolt.engines.logs import parse_log
from servolt.engines.logs.startup import MIB

SERVER = """\
build: 8428 (cd708db0c) with GNU 13.3.0 for Linux x86_64
main: loading model
srv    load_model: loading model '/models/llama-3-8b.Q4_K_M.gguf'
llama_model_load_from_file_impl: using device CUDA0 (NVIDIA GeForce RTX 4090) (0000:01:00.0) - 22994 MiB free
llama_model_loader: loaded meta data with 35 key-value pairs from /models/llama-3-8b.Q4_K_M.gguf (version GGUF V3)
load_tensors: offloaded 33/33 layers to GPU
load_tensors:   CPU_Mapped model buffer size =   281.81 MiB
load_tensors:        CUDA0 model buffer size =  4403.49 MiB
llama_context: n_seq_max     = 4
llama_context: n_ctx         = 8192
llama_context: n_ctx_seq     = 2048
llama_context: n_batch       = 2048
llama_context: n_ubatch      = 512
llama_context: flash_attn    = auto
llama_context: kv_unified    = false
llama_context:  CUDA_Host  output buffer size =     1.96 MiB
llama_kv_cache:      CUDA0 KV buffer size =  1024.00 MiB
llama_kv_cache: size = 1024.00 MiB (  2048 cells,  32 layers,  4/4 seqs), K (f16):  512.00 MiB, V (f16):  512.00 MiB
sched_reserve:      CUDA0 compute buffer size =   560.00 MiB
sched_reserve:  CUDA_Host compute buffer size =    24.01 MiB
~llama_context:     CUDA0 compute buffer size is 560.0000 MiB, matches expectation of 560.0000 MiB
"""


def mib(size: float) -> int:
    return round(size * MIB)


def test_buffers_are_told_apart_by_device() -> None:
    log = parse_log(SERVER)
    card, host = log.ranks
    assert (card.rank, card.is_host, host.rank, host.is_host) == ("CUDA0", False, "host", True)
    assert (card.weights_bytes, card.kv_cache_bytes) == (mib(4403.49), mib(1024))
    assert card.activation_bytes == mib(560), "the comparison at the end allocates nothing"
    assert (host.weights_bytes, host.activation_bytes) == (mib(281.81), mib(24.01 + 1.96))
    assert card.state_bytes is None
    assert log.first == card


def test_the_deployment_can_be_made_of_the_log_alone() -> None:
    log = parse_log(SERVER)
    assert (log.engine_version, log.accelerator, log.devices) == ("b8428", "NVIDIA GeForce RTX 4090", 1)
    deployment = log.deployment()
    assert deployment.model == "/models/llama-3-8b.Q4_K_M.gguf"
    assert (deployment.max_model_len, deployment.max_num_seqs) == (2048, 4)
    assert (deployment.max_num_batched_tokens, deployment.ubatch_size) == (2048, 512)
    assert (deployment.kv_cache_dtype, deployment.n_gpu_layers, deployment.kv_unified) == ("f16", -1, False)
    assert deployment.flash_attn is None, "auto"
    assert log.kv_cache_tokens == 8192


def test_logs_of_2024_are_read() -> None:
    log = parse_log(
        "main: build = 2824 (947d3ad2)\n"
        "llm_load_tensors: offloaded 33/33 layers to GPU\n"
        "llm_load_tensors:        CPU buffer size =   281.81 MiB\n"
        "llm_load_tensors:      CUDA0 buffer size =  4155.99 MiB\n"
        "llama_new_context_with_model: n_ctx      = 512\n"
        "llama_new_context_with_model: n_ubatch   = 512\n"
        "llama_kv_cache_init:      CUDA0 KV buffer size =    64.00 MiB\n"
        "llama_new_context_with_model: KV self size  =   64.00 MiB, K (f16):   32.00 MiB, V (f16):   32.00 MiB\n"
        "llama_new_context_with_model:      CUDA0 compute buffer size =   258.50 MiB\n"
    )
    assert log.engine_version == "b2824"
    assert log.ranks[0].weights_bytes == mib(4155.99)
    assert log.ranks[0].activation_bytes == mib(258.5)
    assert log.settings["max_model_len"] == 512
    assert log.settings["kv_cache_dtype"] == "f16"


def test_caches_of_full_and_of_sliding_layers_add_up_and_states_stand_apart() -> None:
    log = parse_log(
        SERVER
        + "llama_kv_cache:      CUDA0 KV buffer size =   100.00 MiB\n"
        + "llama_memory_recurrent:      CUDA0 RS buffer size =   149.06 MiB\n"
    )
    assert log.ranks[0].kv_cache_bytes == mib(1124)
    assert log.ranks[0].state_bytes == mib(149.06)


def test_every_card_is_a_rank() -> None:
    log = parse_log(
        "load_tensors:        CUDA0 model buffer size =  4000.00 MiB\n"
        "load_tensors:        CUDA1 model buffer size =  5000.00 MiB\n"
        "load_tensors:          CPU model buffer size =   300.00 MiB\n"
    )
    assert [rank.rank for rank in log.ranks] == ["CUDA0", "CUDA1", "host"]
    assert log.devices == 2


def test_without_a_card_the_host_is_the_device() -> None:
    log = parse_log("load_tensors:   CPU_Mapped model buffer size =   492.61 MiB\n")
    assert log.devices is None
    assert log.first is not None
    assert log.first.weights_bytes == mib(492.61)


def test_what_fit_changed_is_told_and_its_dry_run_counts_for_nothing() -> None:
    log = parse_log(
        "load_tensors:        CUDA0 model buffer size = 58000.00 MiB\n"
        "llama_params_fit_impl: projected to use 61807 MiB of device memory vs. 24077 MiB of free device memory\n"
        "llama_params_fit_impl: context size reduced from 40960 to 4096 -> need 3456 MiB less memory in total\n"
        "llama_params_fit: fitting params to free memory took 0.69 seconds\n" + SERVER
    )
    assert (log.projected_bytes, log.free_bytes) == (mib(61807), mib(24077))
    assert log.ranks[0].weights_bytes == mib(4403.49)
    assert log.notes == ("--fit: context size reduced from 40960 to 4096 -> need 3456 MiB less memory in total",)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("  Device 0: NVIDIA RTX A6000, compute capability 8.6, VMM: yes", "NVIDIA RTX A6000"),
        ("ggml_metal_device_init: GPU name:   Apple M2 Ultra", "Apple M2 Ultra"),
        ("  Device 0: AMD Radeon RX 7900 XTX, gfx1100 (0x1100), VMM: no, Wave Size: 32", "AMD Radeon RX 7900 XTX"),
        ("0.4 I main: using device CUDA0 (NVIDIA GeForce RTX 5090) (00:01:0) - 30 MiB free", "NVIDIA GeForce RTX 5090"),
    ],
)
def test_the_device_is_named_as_its_driver_does(line: str, name: str) -> None:
    log = parse_log(f"{line}\nload_tensors:        CUDA0 model buffer size =  4000.00 MiB\n")
    assert log.accelerator == name
