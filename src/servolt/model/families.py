"""What a config.json leaves out, since the program that runs the model knows it: biases, norms, gates, defaults.

One entry for each `model_type`, and no sizes of single models. Sources: the modelling and configuration files of
github.com/huggingface/transformers 5.23 (Apache-2.0) and, for types that it doesn't have, those that stand with the
checkpoints; read 2026-11. An unknown type is taken as one like Llama, whose biases and norms are as its fields say.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from servolt.model.fields import Fields

__all__ = ["FAMILIES", "NESTED_DEFAULTS", "Family", "family_of"]

# Over the width of a head; over all heads as one or each with its own scale; with a bias too; none whatever is said.
QKNorm = Literal["", "head", "width", "head_bias", "never"]
# What multiplies the output of attention: from a query projection twice as wide, a projection of its own, one number
# for each head.
Gate = Literal["", "query", "width", "head"]
NOTHING: Mapping[str, Any] = MappingProxyType({})


# What a text model inside of another leaves out, where it has what its type has by default.
NESTED_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "llama": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32000,
        "max_position_embeddings": 2048,
    },
    "mistral": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 32000,
        "max_position_embeddings": 131072,
    },
    "qwen2": {
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 151936,
        "max_position_embeddings": 32768,
    },
    "gemma": {
        "hidden_size": 3072,
        "intermediate_size": 24576,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 256,
        "vocab_size": 256000,
        "max_position_embeddings": 8192,
    },
    "gemma2": {
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 256000,
        "max_position_embeddings": 8192,
    },
    "gemma3": {"hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26},
}


class Family(NamedTuple):
    """None: the config's own fields decide."""

    qkv_bias: bool | None = None
    out_bias: bool | None = None
    mlp_bias: bool | None = None
    gated: bool = True
    norms: int = 2  # of the layer's width, in each layer
    norm_vectors: int = 1  # 2 with a bias, 0 without any weights
    qk_norm: QKNorm = ""
    qk_norm_asked: QKNorm = "head"  # where the config asks for one
    gate: Gate = ""
    tied: bool = False
    head_bias: bool = False
    turns: bool = True  # queries and keys by their position
    positions: int | None = None  # learned ones: how many stand before the first token
    embedding_norm: bool = False
    router_bias: bool = False
    expert_bias: bool = False
    sinks: str = ""  # kinds of layers whose heads have one
    shared_gate: bool = False  # one vector that weighs the shared expert
    shared_experts: int = 0  # where the config doesn't count them
    inner_norms: bool = False  # before the last projection of attention and of the MLP
    layer_scalars: int = 0
    both: bool = False  # a dense MLP beside the experts of the same layer
    mixer: str = ""  # of all layers
    defaults: Mapping[str, Any] = NOTHING
    tower: Mapping[str, Any] = NOTHING  # of a family whose models of so wide a text model or more always see
    tower_from_hidden_size: int = 0


_LLAMA = Family()
_BIASED = Family(qkv_bias=True, out_bias=True, mlp_bias=True, gated=False, norm_vectors=2)
_QWEN2 = Family(qkv_bias=True, out_bias=False)
_QWEN3 = Family(qk_norm="head")
_QWEN3_NEXT = Family(qk_norm="head", gate="query", shared_gate=True)
_DEEPSEEK = Family(router_bias=True)
_GEMMA2 = Family(tied=True, norms=4, defaults={"sliding_window": 4096, "head_dim": 256, "sliding_pattern": 2})
_GEMMA3 = Family(
    tied=True,
    norms=4,
    qk_norm="head",
    defaults={
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
        "sliding_window": 1024,
        "sliding_pattern": 6,
    },
    # "Gemma 3 Technical Report", arXiv 2503.19786, section 2: a SigLIP encoder of 400M at 896 pixels from 4B on, and
    # positions of full layers scaled by 8.
    tower={
        "model_type": "gemma3",
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "rope_local_base_freq": 10_000,
        "mm_tokens_per_image": 256,
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "patch_size": 14,
            "image_size": 896,
            "vision_use_head": False,
        },
    },
    tower_from_hidden_size=2560,
)
_FOUR_TIMES: Mapping[str, Any] = {"width_over_hidden": 4}
_GPT2 = _BIASED._replace(tied=True, turns=False, positions=0, defaults=_FOUR_TIMES)
_GPTJ = Family(
    out_bias=False,
    mlp_bias=True,
    gated=False,
    norms=1,
    norm_vectors=2,
    head_bias=True,
    defaults={"width_over_hidden": 4, "tie_word_embeddings": False},
)
_INTERNLM = Family(mlp_bias=False)
_OLMO2 = Family(qk_norm="width")
_COHERE = Family(norms=1, tied=True, qk_norm_asked="width")
_GLM = Family(out_bias=False)
_CHATGLM = Family(out_bias=False)
_HUNYUAN = Family(qk_norm="head", tied=True)
_MISTRAL3 = Family(defaults={"head_dim": 128})

FAMILIES: Mapping[str, Family] = {
    "afmoe": Family(norms=4, qk_norm="head", gate="width", router_bias=True),
    "apertus": Family(gated=False, qk_norm="head", layer_scalars=2),
    "arcee": Family(gated=False),
    "axk1": Family(norms=3, router_bias=True),
    "bailing_hybrid": Family(router_bias=True, gate="head"),
    "bamba": Family(mixer="mamba"),
    "bitnet": Family(inner_norms=True),
    "bloom": _BIASED._replace(tied=True, turns=False, embedding_norm=True, defaults=_FOUR_TIMES),
    "chatglm": _CHATGLM,
    "codegen": _GPTJ,
    "cohere": _COHERE,
    "cohere2": _COHERE._replace(qk_norm_asked="never", defaults={"sliding_window": 4096, "sliding_pattern": 4}),
    "cohere2_moe": _COHERE._replace(qk_norm_asked="never"),
    "dbrx": Family(),
    "deepseek_v3": _DEEPSEEK,
    "deepseek_v32": _DEEPSEEK,
    "deepseek_v4": Family(router_bias=True, sinks="all"),
    "dots1": Family(qk_norm="head", router_bias=True),
    "ernie4_5": Family(tied=True),
    "ernie4_5_moe": Family(tied=True, router_bias=True),
    "exaone4": Family(qk_norm="head"),
    "exaone_moe": Family(qk_norm="head", router_bias=True),
    "falcon": Family(gated=False, norm_vectors=2, tied=True, defaults=_FOUR_TIMES),
    "falcon_h1": Family(mixer="parallel"),
    "falcon_mamba": Family(mixer="mamba", tied=True),
    "flex_olmo": _OLMO2,
    "gemma": Family(tied=True),
    "gemma2": _GEMMA2,
    "gemma3": _GEMMA3,
    "gemma3n": Family(tied=True, norms=4, qk_norm="head"),
    "gemma4": Family(tied=True, norms=4, qk_norm="head", both=True, layer_scalars=0),
    "glm": _GLM,
    "glm4": _GLM._replace(norms=4),
    "glm4v": _GLM._replace(norms=4),
    "glm4_moe": _GLM._replace(router_bias=True),
    "glm4v_moe": _GLM._replace(router_bias=True),
    "glm4_moe_lite": _DEEPSEEK,
    "glm5_next": _DEEPSEEK,
    "glm_moe_dsa": _DEEPSEEK,
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2,
    "gpt_neox": _BIASED,
    "gpt_oss": Family(qkv_bias=True, out_bias=True, expert_bias=True, sinks="all"),
    "gptj": _GPTJ,
    "hunyuan_v1_dense": _HUNYUAN,
    "hunyuan_v1_moe": _HUNYUAN,
    "hunyuan": _HUNYUAN,
    "hy_v3": Family(qk_norm="head", router_bias=True),
    "hy_v4": Family(router_bias=True, sinks="all", gate="width"),
    "hyperclovax": Family(norms=4),
    "internlm": _INTERNLM,
    "internlm2": _INTERNLM,
    "jais2": Family(gated=False, norm_vectors=2),
    "jamba": Family(turns=False),
    "kimi_k2": _DEEPSEEK,
    "kimi_linear": _DEEPSEEK,
    "laguna": Family(qk_norm="head", gate="head", router_bias=True),
    "lfm2": Family(qk_norm="head", tied=True),
    "lfm2_moe": Family(qk_norm="head", tied=True, router_bias=True),
    "lfm3": Family(norms=4, qk_norm="head", gate="head", tied=True),
    "llama4": Family(qk_norm="never", shared_experts=1),
    "longcat_flash": Family(router_bias=True),
    "mamba": Family(mixer="mamba", tied=True),
    "mamba2": Family(mixer="mamba"),
    "mellum": Family(qk_norm="head"),
    "mimo": _QWEN2,
    "mimo_v2_flash": Family(router_bias=True, sinks="sliding"),
    "minicpm": Family(tied=True),
    "minicpm3": Family(tied=True),
    "minimax_m2": Family(router_bias=True, qk_norm="width"),
    "minimax_m3": Family(router_bias=True, qk_norm="head"),
    "minimax_m3_vl": Family(router_bias=True, qk_norm="head"),
    "mpt": Family(gated=False, turns=False, tied=True, defaults=_FOUR_TIMES),
    "muse_glimmer": Family(norms=4, gate="width"),
    "nanochat": Family(gated=False, norm_vectors=0),
    "nemotron": Family(gated=False, norm_vectors=2),
    "nemotron_h": Family(gated=False, turns=False, norms=1, router_bias=True),
    "olmo": Family(norm_vectors=0),
    "olmo2": _OLMO2,
    "olmo3": _OLMO2,
    "olmo_hybrid": _OLMO2,
    "olmoe": _OLMO2,
    "opt": _BIASED._replace(tied=True, turns=False, positions=2, defaults=_FOUR_TIMES),
    "orion": Family(norm_vectors=2),
    "persimmon": _BIASED._replace(qk_norm_asked="head_bias", defaults={"qk_layernorm": True}),
    "phi": _BIASED._replace(norms=1, head_bias=True, qk_norm_asked="head_bias", defaults=_FOUR_TIMES),
    "phimoe": Family(norm_vectors=2),
    "pixtral": _MISTRAL3,
    "qwen": Family(qkv_bias=True, out_bias=False, mlp_bias=False, defaults={"halved_width": True}),
    "qwen2": _QWEN2,
    "qwen2_5_omni": _QWEN2,
    "qwen2_5_vl": _QWEN2,
    "qwen2_audio": _QWEN2,
    "qwen2_moe": _QWEN2._replace(shared_gate=True),
    "qwen2_vl": _QWEN2,
    "qwen3": _QWEN3,
    "qwen3_5": _QWEN3_NEXT,
    "qwen3_5_moe": _QWEN3_NEXT,
    "qwen3_moe": _QWEN3,
    "qwen3_next": _QWEN3_NEXT,
    "qwen3_omni_moe": _QWEN3,
    "qwen3_vl": _QWEN3,
    "qwen3_vl_moe": _QWEN3,
    "recurrent_gemma": Family(out_bias=True, mlp_bias=True, tied=True, defaults={"halved_width": True}),
    "seed_oss": _LLAMA,
    "smollm3": Family(tied=True),
    "stablelm": Family(out_bias=False, mlp_bias=False, norm_vectors=2, qk_norm_asked="width"),
    "starcoder2": Family(gated=False, norm_vectors=2, tied=True, defaults={"use_bias": True}),
    "step3p7": Family(qk_norm="head", gate="head"),
    "vaultgemma": _GEMMA2._replace(norms=2),
    "xglm": _BIASED._replace(tied=True, defaults={"hidden_act": "gelu"}),
    "zamba2": Family(tied=True, gated=True),
}

# Where a config names no type, as rebuilt ones don't: words of the model's name, the longest first.
_WORDS = {
    "gemma-3n": "gemma3n",
    "gemma-3": "gemma3",
    "gemma-2-": "gemma2",
    "gemma": "gemma",
    "qwen3-next": "qwen3_next",
    "qwen3": "qwen3",
    "qwen2": "qwen2",
    "qwen1.5": "qwen2",
    "qwq": "qwen2",
    "phi-1": "phi",
    "phi-2": "phi",
    "pythia": "gpt_neox",
    "falcon": "falcon",
    "gpt2": "gpt2",
    "bloom": "bloom",
    "starcoder2": "starcoder2",
    "stablelm": "stablelm",
    "olmo-2": "olmo2",
    "olmoe": "olmoe",
    "olmo": "olmo",
}


def family_of(fields: Fields) -> tuple[str, Family]:
    """The type and what is known of it, completed by what the config says about the layout itself."""
    kind = re.sub(r"_text$", "", fields.text("model_type"))
    if not kind:
        name = fields.name.lower()
        kind = next((kind for word, kind in _WORDS.items() if word in name), "")
    family = FAMILIES.get(kind, _LLAMA)
    rebuilt = fields.text("model_type_litgpt")
    if rebuilt:
        family = _rebuilt(fields, family, rebuilt)
    if kind == "falcon":
        family = family._replace(norms=_falcon_norms(fields))
    if kind == "stablelm" and fields.flag("use_parallel_residual"):
        family = family._replace(norms=1)
    if fields.has("no_bias") and not fields.flag("no_bias"):  # MPT
        family = family._replace(qkv_bias=True, out_bias=True, mlp_bias=True, norm_vectors=2)
    if fields.flag("lm_head_bias"):
        family = family._replace(head_bias=True)
    return kind, family


def _rebuilt(fields: Fields, family: Family, classes: str) -> Family:
    """litgpt names the classes of the MLP and the norm; its `attention_bias` is that of q, k and v alone."""
    every = fields.flag("bias")
    return family._replace(
        qkv_bias=every or fields.flag("attention_bias"),
        out_bias=every,
        mlp_bias=every,
        gated=not classes.startswith("GptNeox"),
        norm_vectors=min(family.norm_vectors, 1) * (2 if classes.endswith("LayerNorm") else 1),
        qk_norm="head" if fields.flag("norm_qk") and not family.qk_norm else family.qk_norm,
    )


def _falcon_norms(fields: Fields) -> int:
    """The 7B shares one norm between attention and MLP; layouts with grouped heads, and those in sequence, have two."""
    if fields.flag("new_decoder_architecture"):
        return fields.size("num_ln_in_parallel_attn", 2)
    if fields.has("parallel_attn") and not fields.flag("parallel_attn"):
        return 2
    single = fields.flag("multi_query") or fields.size("num_key_value_heads", 0) == 1
    return 1 if single or fields.flag("parallel_attn") else 2
