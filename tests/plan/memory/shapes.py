"""Shapes that the tests of memory on accelerators share: published sizes, and devices as their drivers show them."""

from typing import Any

from servolt.deployment import Deployment
from servolt.gpu import Accelerator
from servolt.model import Model, model_from_config
from servolt.plan.memory.budget import Budget
from servolt.plan.memory.emulate import budget_of

__all__ = [
    "GIB",
    "b200",
    "codellama_7b",
    "gemma_2_27b",
    "gib",
    "gpt_oss",
    "h100",
    "kimi_vl_text",
    "llama_3_1_8b",
    "qwen2_5",
    "qwen3_6_35b_a3b",
    "qwen3_14b",
    "vllm",
]

GIB = 2**30


def h100(**more: Any) -> Accelerator:
    """79.19 GiB are what torch shows of an H100 80GB."""
    return _device("H100 80GB", "Hopper", 80, 79.19, **more)


def b200(**more: Any) -> Accelerator:
    return _device("B200", "Blackwell", 180, 178.4, **more)


def _device(name: str, architecture: str, label_gib: float, visible_gib: float, **more: Any) -> Accelerator:
    return Accelerator(
        name=name,
        kind="gpu",
        vendor="NVIDIA",
        architecture=architecture,
        memory_bytes=round(label_gib * GIB),
        visible_memory_bytes=round(visible_gib * GIB),
        link="NVLink",
        source="the driver, 2026-04",
        **more,
    )


def vllm(model: Model, device: Accelerator | None = None, known: Any = None, **settings: Any) -> Budget:
    """As jgchn/llm-d-planner ran vLLM 0.19.0: 95 % of an H100, 8,192 tokens a request."""
    chosen: dict[str, Any] = {
        "engine": "vllm",
        "engine_version": "0.19.0",
        "gpu_memory_utilization": 0.95,
        "max_model_len": 8192,
        "enable_prefix_caching": False,
        **settings,
    }
    return budget_of(Deployment(model="m", **chosen), model, device or h100(), known=known)


def gib(budget: Budget, term: str, stage: int = 0) -> float:
    return float(getattr(budget.per_rank[stage], f"{term}_bytes")) / GIB


def llama_3_1_8b(quantization: str | None = None, **more: Any) -> Model:
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
    return _model(quantization, {**config, **more})


def codellama_7b() -> Model:
    return llama_3_1_8b(
        intermediate_size=11008, num_key_value_heads=32, vocab_size=32016, max_position_embeddings=16384
    )


def qwen2_5(layers: int = 28, hidden: int = 3584, inner: int = 18944, heads: int = 28, kv_heads: int = 4) -> Model:
    """7B; 72B is (80, 8192, 29568, 64, 8)."""
    return _model(
        None,
        {
            "model_type": "qwen2",
            "hidden_size": hidden,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "vocab_size": 152064,
            "max_position_embeddings": 32768,
            "tie_word_embeddings": False,
        },
    )


def qwen3_14b() -> Model:
    return _model(
        None,
        {
            "model_type": "qwen3",
            "hidden_size": 5120,
            "intermediate_size": 17408,
            "num_hidden_layers": 40,
            "num_attention_heads": 40,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 151936,
            "max_position_embeddings": 40960,
            "tie_word_embeddings": False,
        },
    )


def gemma_2_27b() -> Model:
    return _model(
        None,
        {
            "model_type": "gemma2",
            "hidden_size": 4608,
            "intermediate_size": 36864,
            "num_hidden_layers": 46,
            "num_attention_heads": 32,
            "num_key_value_heads": 16,
            "head_dim": 128,
            "sliding_window": 4096,
            "vocab_size": 256000,
            "max_position_embeddings": 8192,
        },
    )


def gpt_oss(layers: int = 24, experts: int = 32) -> Model:
    """20B; 120B is (36, 128)."""
    return _model(
        None,
        {
            "model_type": "gpt_oss",
            "hidden_size": 2880,
            "intermediate_size": 2880,
            "num_hidden_layers": layers,
            "num_local_experts": experts,
            "num_experts_per_tok": 4,
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "sliding_window": 128,
            "layer_types": ["sliding_attention", "full_attention"] * (layers // 2),
            "vocab_size": 201088,
            "max_position_embeddings": 131072,
            "attention_bias": True,
            "tie_word_embeddings": False,
            "quantization_config": {
                "quant_method": "mxfp4",
                "modules_to_not_convert": [
                    "model.layers.*.self_attn",
                    "model.layers.*.mlp.router",
                    "model.embed_tokens",
                    "lm_head",
                ],
            },
        },
    )


def kimi_vl_text() -> Model:
    """The language model of Kimi-VL-A3B: a latent of 512 and 64, 64 experts of which 6 are chosen."""
    return _model(
        None,
        {
            "model_type": "deepseek_v3",
            "hidden_size": 2048,
            "intermediate_size": 11264,
            "moe_intermediate_size": 1408,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "n_shared_experts": 2,
            "n_routed_experts": 64,
            "num_experts_per_tok": 6,
            "first_k_dense_replace": 1,
            "kv_lora_rank": 512,
            "qk_rope_head_dim": 64,
            "qk_nope_head_dim": 128,
            "v_head_dim": 128,
            "vocab_size": 163840,
            "max_position_embeddings": 131072,
            "tie_word_embeddings": False,
        },
    )


def qwen3_6_35b_a3b() -> Model:
    """10 layers of attention and 30 of gated delta nets, 256 experts of which 8 are chosen."""
    return _model(
        None,
        {
            "model_type": "qwen3_5_moe_text",
            "hidden_size": 2048,
            "num_hidden_layers": 40,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "head_dim": 256,
            "full_attention_interval": 4,
            "linear_num_key_heads": 16,
            "linear_num_value_heads": 32,
            "linear_key_head_dim": 128,
            "linear_value_head_dim": 128,
            "linear_conv_kernel_dim": 4,
            "num_experts": 256,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 512,
            "shared_expert_intermediate_size": 512,
            "vocab_size": 248320,
            "max_position_embeddings": 262144,
            "tie_word_embeddings": False,
        },
    )


def _model(quantization: str | None, config: dict[str, Any]) -> Model:
    return model_from_config({"torch_dtype": "bfloat16", **config}, name="m", quantization=quantization)
