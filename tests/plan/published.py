"""Shapes of published models, as their config.json on the Hub states them."""

from typing import Any

from servolt.gpu import Accelerator
from servolt.model import Model, model_from_config

__all__ = [
    "accelerator",
    "deepseek_r1",
    "gemma_3_27b",
    "llama_3_8b",
    "qwen3_5_27b",
    "qwen3_30b_a3b",
    "qwen3_32b",
]

GIB = 2**30


def _model(name: str, quantization: str | None, **config: Any) -> Model:
    return model_from_config({"torch_dtype": "bfloat16", **config}, name=name, quantization=quantization)


def llama_3_8b(quantization: str | None = None, **more: Any) -> Model:
    config = {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": False,
    }
    return _model("Llama 3 8B", quantization, **{**config, **more})


def qwen3_32b(quantization: str | None = None) -> Model:
    return _model(
        "Qwen3 32B",
        quantization,
        model_type="qwen3",
        hidden_size=5120,
        intermediate_size=25600,
        num_hidden_layers=64,
        num_attention_heads=64,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=151936,
        max_position_embeddings=40960,
        tie_word_embeddings=False,
    )


def qwen3_30b_a3b(quantization: str | None = None) -> Model:
    return _model(
        "Qwen3 30B A3B",
        quantization,
        model_type="qwen3_moe",
        hidden_size=2048,
        intermediate_size=6144,
        moe_intermediate_size=768,
        num_experts=128,
        num_experts_per_tok=8,
        num_hidden_layers=48,
        num_attention_heads=32,
        num_key_value_heads=4,
        head_dim=128,
        vocab_size=151936,
        max_position_embeddings=40960,
        tie_word_embeddings=False,
    )


def gemma_3_27b(quantization: str | None = None) -> Model:
    return _model(
        "Gemma 3 27B",
        quantization,
        model_type="gemma3_text",
        hidden_size=5376,
        intermediate_size=21504,
        num_hidden_layers=62,
        num_attention_heads=32,
        num_key_value_heads=16,
        head_dim=128,
        sliding_window=1024,
        sliding_window_pattern=6,
        vocab_size=262208,
        max_position_embeddings=131072,
    )


def deepseek_r1(quantization: str | None = None) -> Model:
    return _model(
        "DeepSeek R1",
        quantization,
        model_type="deepseek_v3",
        hidden_size=7168,
        intermediate_size=18432,
        moe_intermediate_size=2048,
        n_routed_experts=256,
        num_experts_per_tok=8,
        n_shared_experts=1,
        first_k_dense_replace=3,
        num_hidden_layers=61,
        num_attention_heads=128,
        num_key_value_heads=128,
        q_lora_rank=1536,
        kv_lora_rank=512,
        qk_nope_head_dim=128,
        qk_rope_head_dim=64,
        v_head_dim=128,
        vocab_size=129280,
        max_position_embeddings=163840,
        tie_word_embeddings=False,
    )


def qwen3_5_27b(quantization: str | None = None) -> Model:
    return _model(
        "Qwen3.5 27B",
        quantization,
        model_type="qwen3_5_text",
        hidden_size=5120,
        intermediate_size=17408,
        num_hidden_layers=64,
        num_attention_heads=24,
        num_key_value_heads=4,
        head_dim=256,
        full_attention_interval=4,
        linear_num_key_heads=16,
        linear_num_value_heads=48,
        linear_key_head_dim=128,
        linear_value_head_dim=128,
        linear_conv_kernel_dim=4,
        vocab_size=248320,
        max_position_embeddings=262144,
        tie_word_embeddings=False,
    )


def accelerator(gib: float, capability: str = "9.0", *, count: int = 1, vendor: str = "NVIDIA") -> Accelerator:
    """One whose engines see all of its memory."""
    return Accelerator(
        name=f"{vendor} {gib:g} GiB",
        kind="gpu",
        count=count,
        vendor=vendor,
        compute_capability=capability,
        memory_bytes=round(gib * GIB),
        visible_memory_bytes=round(gib * GIB),
        source="made up",
    )
