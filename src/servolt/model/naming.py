"""Where a tensor belongs, by its name in a checkpoint of Hugging Face's kind or in a GGUF file."""

import re
from typing import NamedTuple

from servolt.model.layers import Component, Sharding

__all__ = ["Placed", "in_checkpoint", "in_gguf"]


class Placed(NamedTuple):
    """`layer` is None outside of layers. A scale adds bytes and no weights; `fused` holds queries, keys and values."""

    layer: int | None
    component: Component
    sharding: Sharding = "tensor"
    is_scale: bool = False
    is_fused: bool = False


_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block|layer)\.(\d+)\.(.+)$")
_SEES = re.compile(
    r"(^|\.|_)(visual|vision\w*|image_\w+|img_\w+|mm_projector|multi_modal_projector|multimodal_projector|audio\w*|"
    r"embed_vision|embed_audio|connector|modality_projection|vpm|resampler|aligner|patch_embed\w*|mlp1|speech\w*)(\.|$)"
)
_SCALE = re.compile(
    r"(weight_scale(_inv|_2)?|input_scale|output_scale|[kvq]_scale|scales|scale|qzeros|g_idx|weight_g_idx|weight_shape|"
    r"weight_zero_point|absmax|quant_map|nested_absmax|nested_quant_map|SCB|weight_format|\w+_scales)$|quant_state"
)
_IGNORED = re.compile(r"(^|\.)(rotary_emb\.inv_freq|masked_bias|(attn|attention)\.bias|rope\.freqs)$")
_NORM = re.compile(r"(norm\w*|layernorm\w*|ln_\w+|ln\w?|\w*_ln)(\.(weight|bias|gamma|beta))?$")
_ROUTER = re.compile(
    r"(^|\.)(gate|router\w*|shared_expert_gate|classifier|moe_statics|expert_bias)"
    r"(\.(weight|bias|wg|layer|proj|scale|e_score_correction_bias|per_expert_scale).*)?$"
)
_STATE = re.compile(r"(^|\.)(conv1d|conv_1d|conv|A_log|A|D|dt_bias|rg_lru|sinks|\w*conv1d)(\.\w+)*$")


def in_checkpoint(name: str) -> Placed | None:
    """None for what engines don't load: tables of positions, masks."""
    if _IGNORED.search(name):
        return None
    is_scale = bool(_SCALE.search(name))
    if re.search(r"(^|\.)mtp(\.|_)|(^|\.)(nextn|eagle|mtp_layers)\.", name):
        return Placed(None, "mtp", is_scale=is_scale)
    found = _LAYER.search(name)
    outer = name[: found.start()] if found else name
    if _SEES.search(outer):
        return Placed(None, "vision", is_scale=is_scale)
    if found is None:
        return _outside(name, is_scale=is_scale)
    component, sharding, fused = _inside(found[2], is_scale=is_scale)
    return Placed(int(found[1]), component, sharding, is_scale, fused)


def _outside(name: str, *, is_scale: bool) -> Placed:
    if re.search(r"(^|\.)(lm_head|embed_out|output_layer|output|head)\.", name):
        return Placed(None, "output", "vocab", is_scale)
    if re.search(r"(embed\w*|embeddings?|wte|word_embeddings|tok_embeddings)(\.|$)", name) and "norm" not in name:
        return Placed(None, "embedding", "vocab", is_scale)
    if re.search(r"wpe|position", name):
        return Placed(None, "embedding", "none", is_scale)
    return Placed(None, "norm" if "norm" in name or "ln_" in name else "other", "none", is_scale)


def _inside(rest: str, *, is_scale: bool) -> tuple[Component, Sharding, bool]:
    """Of a layer's tensor, by what follows the layer's number."""
    module = re.sub(r"\.[^.]*$", "", rest) if is_scale else rest
    if re.search(r"shared_expert(s)?\.|shared_mlp\.|shexp", rest):
        return "shared_expert", "tensor", False
    if re.search(r"(^|\.)experts?(\.|$|_)", module) and not re.search(r"expert_bias$", rest):
        return "expert", "expert", False
    if _ROUTER.search(module) and "gate_proj" not in module:
        return "router", "none", False
    if _NORM.search(module):
        return "norm", "none", False
    if _STATE.search(module) or (module.endswith(".bias") and "proj" not in module.rpartition(".")[0]):
        return "other", "tensor", False
    if module.endswith(".bias"):
        return "other", "kv_heads" if re.search(r"\b[kv]_proj", module) else "tensor", False
    if re.search(r"(^|\.)(\w*mlps?|feed_forward|ffn|c_fc|dense_h_to_4h|dense_4h_to_h|fc[12])(\.|$)", module):
        return "mlp", "tensor", False
    if re.search(r"^mixer\.(up|down)_proj", module):
        return "mlp", "tensor", False
    return _attention(module)


def _attention(module: str) -> tuple[Component, Sharding, bool]:
    if re.search(r"(qkv_proj|query_key_value|c_attn|Wqkv|W_pack|wqkv|in_proj_weight)(\.|$)", module):
        return "attention", "tensor", "in_proj" not in module
    if re.search(r"\b(k_proj|v_proj|wk|wv|key|value)(\.|$)", module) and "indexer" not in module:
        return "attention", "kv_heads" if "linear_attn" not in module else "tensor", False
    if re.search(r"indexer|_a_proj|kv_a_proj|compressor|\bkv_proj", module):
        return "attention", "none", False
    if re.search(r"self_attn|attention|attn|mamba|mixer|temporal_block|conv|linear_attn", module):
        return "attention", "tensor", False
    return "other", "none", False


_IN_GGUF: tuple[tuple[str, Component, Sharding], ...] = (
    (r"nextn\.", "mtp", "tensor"),
    (r"ffn_(gate|up|down|gate_up)_exps", "expert", "expert"),
    (r"ffn_(gate|up|down)_shexp", "shared_expert", "tensor"),
    (r"ffn_gate_inp|exp_probs_b", "router", "none"),
    (r"\w*norm\w*(\.|$)", "norm", "none"),
    (r"attn_(k|v)\.", "attention", "kv_heads"),
    (r"attn_(q_a|kv_a_mqa)|indexer", "attention", "none"),
    (r"(ssm_(in|out|x|dt|ba|alpha|beta)|shortconv\.(in|out)\w*)\.weight", "attention", "tensor"),
    (r"ssm_|shortconv", "other", "tensor"),
    (r"attn_\w+\.weight", "attention", "tensor"),
    (r"ffn_\w+\.weight", "mlp", "tensor"),
)


def in_gguf(name: str) -> Placed:
    found = re.match(r"blk\.(\d+)\.(.+)$", name)
    if found is None:
        if name.startswith(("output.", "cls")):
            return Placed(None, "output", "vocab")
        if "norm" in name:
            return Placed(None, "norm", "none")
        if name.startswith(("token_embd", "per_layer_token_embd")):
            return Placed(None, "embedding", "vocab")
        is_embedding = name.startswith(("position_embd", "token_types"))
        return Placed(None, "embedding" if is_embedding else "other", "none")
    layer, rest = int(found[1]), found[2]
    for pattern, component, sharding in _IN_GGUF:
        if re.match(pattern, rest):
            return Placed(layer, component, sharding, is_fused=rest.startswith("attn_qkv"))
    return Placed(layer, "other", "tensor")
