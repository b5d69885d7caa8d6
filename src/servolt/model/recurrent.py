"""The weights and the state of one recurrent layer: Mamba, gated delta rule, short convolution."""

import math
from typing import NamedTuple

from servolt.model.fields import Fields
from servolt.model.layers import Mixer
from servolt.model.weights import Weight, matrix, vector

__all__ = ["Recurrent", "delta_rule", "mamba1", "mamba2", "short_convolution", "simple_recurrence"]


class Recurrent(NamedTuple):
    """What a sequence keeps, in elements, beside the weights."""

    mixer: Mixer
    weights: list[Weight]
    conv_elements: int
    conv_kernel: int
    state_elements: int
    heads: int = 0
    width: int = 0


def delta_rule(fields: Fields) -> Recurrent:
    """Qwen3-Next's gated delta net, Kimi Linear's gated attention, MiniMax-01's lightning attention: by their fields."""
    if fields.has("linear_num_value_heads"):
        return _gated_delta_net(fields)
    if fields.has("short_conv_kernel_size", "linear_conv_kernel_dim"):
        return _kimi_delta(fields)
    return _lightning(fields)


def _gated_delta_net(fields: Fields) -> Recurrent:
    hidden = fields.least("hidden_size")
    keys, values = fields.least("linear_num_key_heads"), fields.least("linear_num_value_heads")
    width_k, width_v = fields.least("linear_key_head_dim"), fields.least("linear_value_head_dim")
    kernel = fields.least("linear_conv_kernel_dim", 4)
    conv, out = 2 * keys * width_k + values * width_v, values * width_v
    at = "linear_attn."
    weights = [
        matrix(at + "in_proj_qkv", "attention", conv, hidden),
        matrix(at + "in_proj_z", "attention", out, hidden),
        matrix(at + "in_proj_ba", "attention", 2 * values, hidden)._replace(linear=False),
        vector(at + "conv1d", conv * kernel),
        vector(at + "A_log", values),
        vector(at + "dt_bias", values),
        vector(at + "norm", width_v, "norm", "none"),
        matrix(at + "out_proj", "attention", hidden, out),
    ]
    return Recurrent("gdn", weights, conv, kernel, values * width_k * width_v, values, width_k)


def _kimi_delta(fields: Fields) -> Recurrent:
    hidden = fields.least("hidden_size")
    heads = fields.size("linear_num_heads", fields.size("num_heads", fields.size("num_attention_heads")))
    width = fields.size("linear_head_dim", fields.size("head_dim", 128))
    kernel = fields.size("linear_conv_kernel_dim", fields.size("short_conv_kernel_size", 4))
    inner = heads * width
    at = "self_attn."
    gate = (
        [matrix(at + "g_proj", "attention", inner, hidden)]
        if fields.flag("use_full_rank_gate")
        else [
            matrix(at + "g_a_proj", "attention", width, hidden, "none"),
            matrix(at + "g_b_proj", "attention", inner, width),
        ]
    )
    weights = [
        *(matrix(f"{at}{name}_proj", "attention", inner, hidden) for name in "qkv"),
        vector(at + "conv1d", 3 * inner * kernel),
        matrix(at + "f_a_proj", "attention", width, hidden, "none"),
        matrix(at + "f_b_proj", "attention", inner, width),
        vector(at + "dt_bias", inner),
        vector(at + "A_log", heads),
        matrix(at + "b_proj", "attention", heads, hidden)._replace(linear=False),
        *gate,
        vector(at + "o_norm", width, "norm", "none"),
        matrix(at + "o_proj", "attention", hidden, inner),
    ]
    return Recurrent("kda", weights, 3 * inner, kernel, heads * width * width, heads, width)


def _lightning(fields: Fields) -> Recurrent:
    """Linear attention without a convolution: a state of width x width for each head."""
    hidden, heads = fields.least("hidden_size"), fields.least("num_attention_heads")
    width = fields.size("head_dim", hidden // heads)
    inner = heads * width
    weights = [
        matrix("self_attn.qkv_proj", "attention", 3 * inner, hidden),
        matrix("self_attn.output_gate", "attention", inner, hidden),
        matrix("self_attn.out_proj", "attention", hidden, inner),
        vector("self_attn.norm", inner, "norm"),
    ]
    return Recurrent("gdn", weights, 0, 0, heads * width * width, heads, width)


def mamba2(fields: Fields) -> Recurrent:
    """Heads, groups and states go by several names: Mamba-2, Nemotron-H, Bamba, Falcon-H1, Granite 4, Zamba2."""
    hidden = fields.least("hidden_size")
    width = fields.get("mamba_head_dim", "mamba_d_head", "mamba_headdim")
    heads = fields.get("mamba_num_heads", "mamba_n_heads", "n_mamba_heads")
    expand = fields.number("expand", fields.number("mamba_expand", 2))
    inner = fields.size("mamba_d_ssm", int(expand * hidden))
    if width is None or width == "auto":
        width = inner // int(heads) if heads else fields.size("head_dim", 64)
    heads = int(heads) if heads else inner // int(width)
    inner = heads * int(width)
    groups = fields.size("mamba_n_groups", fields.size("n_groups", fields.size("mamba_ngroups", 1)))
    state = fields.size("ssm_state_size", fields.size("mamba_d_state", fields.size("state_size", 128)))
    kernel = fields.size("conv_kernel", fields.size("mamba_d_conv", 4))
    conv = inner + 2 * groups * state
    bias = fields.flag("use_conv_bias", "mamba_conv_bias", otherwise=True)
    weights = [
        matrix("mamba.in_proj", "attention", inner + conv + heads, hidden),
        vector("mamba.conv1d", conv * (kernel + bias)),
        vector("mamba.A_log", heads),
        vector("mamba.D", heads),
        vector("mamba.dt_bias", heads),
        matrix("mamba.out_proj", "attention", hidden, inner),
    ]
    if fields.flag("mamba_rms_norm", otherwise=True):
        weights.append(vector("mamba.norm", inner, "norm"))
    if fields.flag("mamba_proj_bias", "use_bias"):
        weights.append(vector("mamba.bias", inner + conv + heads + hidden))
    return Recurrent("mamba2", weights, conv, kernel, inner * state, heads, int(width))


def mamba1(fields: Fields, *, inner_norms: bool) -> Recurrent:
    """Jamba norms what it reads from the input; Mamba does not."""
    hidden = fields.least("hidden_size")
    inner = fields.size("intermediate_size") if fields.has("state_size") else 0
    inner = inner or int(fields.number("mamba_expand", fields.number("expand", 2)) * hidden)
    state = fields.size("mamba_d_state", fields.size("state_size", 16))
    kernel = fields.size("mamba_d_conv", fields.size("conv_kernel", 4))
    rank = fields.get("mamba_dt_rank", "time_step_rank")
    rank = rank if type(rank) is int else math.ceil(hidden / 16)
    bias = fields.flag("mamba_conv_bias", "use_conv_bias", otherwise=True)
    weights = [
        matrix("mamba.in_proj", "attention", 2 * inner, hidden),
        vector("mamba.conv1d", inner * (kernel + bias)),
        matrix("mamba.x_proj", "attention", rank + 2 * state, inner),
        matrix("mamba.dt_proj", "attention", inner, rank),
        vector("mamba.dt_proj.bias", inner),
        vector("mamba.A_log", inner * state),
        vector("mamba.D", inner),
        matrix("mamba.out_proj", "attention", hidden, inner),
    ]
    if inner_norms:
        weights.append(vector("mamba.norms", rank + 2 * state, "norm", "none"))
    if fields.flag("mamba_proj_bias", "use_bias"):
        weights.append(vector("mamba.bias", 2 * inner + hidden))
    return Recurrent("mamba1", weights, inner, kernel, inner * state)


def short_convolution(fields: Fields) -> Recurrent:
    """LFM2's."""
    hidden = fields.least("hidden_size")
    width = fields.size("conv_dim", hidden)
    kernel = fields.size("conv_L_cache", 3)
    weights = [
        matrix("conv.in_proj", "attention", 3 * width, hidden),
        vector("conv.conv", width * kernel),
        matrix("conv.out_proj", "attention", hidden, width),
    ]
    if fields.flag("conv_bias"):
        weights.append(vector("conv.bias", 4 * width + hidden))
    return Recurrent("shortconv", weights, width, kernel, 0)


def simple_recurrence(fields: Fields) -> Recurrent:
    """RecurrentGemma's: a gate for each channel, in blocks as wide as a head."""
    hidden = fields.least("hidden_size")
    width = fields.size("lru_width", hidden)
    heads = fields.least("num_attention_heads")
    kernel = fields.size("conv1d_width", 4)
    weights = [
        matrix("temporal_block.linear", "attention", 3 * width, hidden),
        vector("temporal_block.linear.bias", 2 * width + hidden),
        vector("temporal_block.conv_1d", width * (kernel + 1)),
        vector("temporal_block.rg_lru", 2 * (width * (width // heads) + width) + width),
    ]
    return Recurrent("mamba1", weights, width, kernel, width)
