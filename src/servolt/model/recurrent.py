"""The weights and the state of one recurrent layer: Mamba, gated delta rule, short convolution."""

import math
from typing import NamedTuple

from servolt.model.families import Family
from servolt.model.fields import Fields
from servolt.model.layers import Mixer
from servolt.model.weights import Weight, matrix, vector

__all__ = ["Recurrent", "delta_rule", "mamba1", "mamba2", "short_convolution", "simple_recurrence"]


MOST_EXPANDED = 1024  # published models have 1 and 2


class Recurrent(NamedTuple):
    """What a sequence keeps, in elements, beside the weights."""

    mixer: Mixer
    weights: list[Weight]
    conv_elements: int
    conv_kernel: int
    state_elements: int
    heads: int = 0
    width: int = 0
    width_v: int = 0


def delta_rule(fields: Fields, family: Family) -> Recurrent:
    """By their fields: Qwen3-Next's gated delta net, Kimi Linear's delta attention, MiniMax-01's lightning."""
    if fields.has("linear_num_value_heads"):
        return _gated_delta_net(fields)
    if fields.has("linear_conv_kernel_dim"):
        return _kimi_delta(fields, family)
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
    return Recurrent("gdn", weights, conv, kernel, values * width_k * width_v, values, width_k, width_v)


def _kimi_delta(fields: Fields, family: Family) -> Recurrent:
    """The gates for output and forgetting have a low rank, or not: Ling 2.5 and Kimi K3."""
    hidden = fields.least("hidden_size")
    heads = fields.size("linear_num_heads", fields.size("num_attention_heads"))
    width = fields.size("linear_head_dim", 128)
    kernel = fields.least("linear_conv_kernel_dim", 4)
    inner = heads * width
    at = "self_attn."
    gate = _low_rank(at + "g", hidden, width, inner)
    if family.gate == "head" or fields.flag("use_full_rank_gate"):
        gate = [matrix(at + "g_proj", "attention", inner, hidden)]
    forget = _low_rank(at + "f", hidden, width, inner)
    if family.gate == "head":
        forget = [matrix(at + "f_proj", "attention", inner, hidden)]
    weights = [
        *(matrix(f"{at}{name}_proj", "attention", inner, hidden) for name in "qkv"),
        vector(at + "conv1d", 3 * inner * kernel),
        *forget,
        vector(at + "dt_bias", inner),
        vector(at + "A_log", heads),
        matrix(at + "b_proj", "attention", heads, hidden)._replace(linear=False),
        *gate,
        vector(at + "o_norm", width, "norm", "none"),
        matrix(at + "o_proj", "attention", hidden, inner),
    ]
    return Recurrent("kda", weights, 3 * inner, kernel, heads * width * width, heads, width, width)


def _low_rank(name: str, hidden: int, width: int, inner: int) -> list[Weight]:
    return [
        matrix(f"{name}_a_proj", "attention", width, hidden, "none"),
        matrix(f"{name}_b_proj", "attention", inner, width),
    ]


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
    return Recurrent("gdn", weights, 0, 0, heads * width * width, heads, width, width)


def mamba2(fields: Fields) -> Recurrent:
    """Heads, groups and states go by several names: Mamba-2, Nemotron-H, Bamba, Falcon-H1, Granite 4, Zamba2."""
    hidden = fields.least("hidden_size")
    inner = fields.size("mamba_d_ssm", _expanded(fields, hidden))
    heads = fields.size("mamba_num_heads", 0)
    width = 0 if fields.get("mamba_head_dim") == "auto" else fields.size("mamba_head_dim", 0)
    width = width or (inner // heads if heads else fields.least("head_dim", 64))
    heads = heads or inner // width
    inner = heads * width
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
    return Recurrent("mamba2", weights, conv, kernel, inner * state, heads, state, width)


def _expanded(fields: Fields, hidden: int) -> int:
    factor = fields.number("mamba_expand", fields.number("expand", 2))
    if not 0 < factor <= MOST_EXPANDED:
        raise fields.fault("mamba_expand" if fields.has("mamba_expand") else "expand", f"up to {MOST_EXPANDED}")
    return int(factor * hidden)


def mamba1(fields: Fields, *, inner_norms: bool) -> Recurrent:
    """Jamba norms what it reads from the input; Mamba does not."""
    hidden = fields.least("hidden_size")
    inner = fields.size("intermediate_size") if fields.has("state_size") else 0
    inner = inner or _expanded(fields, hidden)
    state = fields.size("mamba_d_state", fields.size("state_size", 16))
    kernel = fields.size("mamba_d_conv", fields.size("conv_kernel", 4))
    rank = fields.get("mamba_dt_rank", "time_step_rank")
    rank = rank if type(rank) is int and rank > 0 else math.ceil(hidden / 16)
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
