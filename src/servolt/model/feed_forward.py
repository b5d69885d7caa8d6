"""The weights of what stands behind the mixer: a dense MLP, or experts with their router."""

from typing import NamedTuple

from servolt.model.attention import mlp_bias
from servolt.model.families import Family
from servolt.model.fields import Fields
from servolt.model.layers import Component, Experts
from servolt.model.weights import Weight, matrix, vector

__all__ = ["FeedForward", "dense", "dense_width", "experts_of", "mixture"]


class FeedForward(NamedTuple):
    weights: list[Weight]
    intermediate_size: int
    experts: Experts | None = None


def dense(fields: Fields, family: Family, layer: int, width: int | None = None) -> FeedForward:
    hidden = fields.least("hidden_size")
    width = dense_width(fields, family, layer) if width is None else width
    biased = mlp_bias(fields, family)
    weights = _mlp("mlp", "mlp", hidden, width, gated=family.gated, biased=biased)
    if family.inner_norms:
        weights.append(vector("mlp.ffn_sub_norm", width, "norm"))
    return FeedForward(weights, width)


def dense_width(fields: Fields, family: Family, layer: int) -> int:
    """Llama 4, MiniMax-M3 and Cohere's mixture name the width of dense layers apart from that of experts."""
    hidden = fields.least("hidden_size")
    for key in ("intermediate_size_mlp", "dense_intermediate_size", "prefix_dense_intermediate_size"):
        if fields.has(key):
            return fields.size(key)
    ratios = fields.get("ffn_multipliers")  # OpenELM's, one for each layer, to the next multiple of ffn_dim_divisor
    if isinstance(ratios, list) and layer < len(ratios):
        return _rounded_up(int(float(ratios[layer]) * hidden), fields.size("ffn_dim_divisor", 256))
    ratio = fields.number("expansion_ratio", 0) or family.defaults.get("width_over_hidden", 0)
    width = fields.size("intermediate_size", int(ratio * hidden) or None, layer=layer)
    if fields.flag("block_auto_adjust_ff_dim"):  # LFM2 states the width before it takes two thirds of it
        width = int(fields.number("block_ffn_dim_multiplier", 1) * (2 * width // 3))
        width = _rounded_up(width, fields.least("block_multiple_of", 256))
    return width // 2 if family.defaults.get("halved_width") else width


def _rounded_up(width: int, multiple: int) -> int:
    return -(-width // multiple) * multiple if multiple else width


def _mlp(module: str, component: Component, hidden: int, width: int, *, gated: bool, biased: bool) -> list[Weight]:
    names = ["gate_proj", "up_proj"] if gated else ["up_proj"]
    weights = [matrix(f"{module}.{name}", component, width, hidden) for name in names]
    weights.append(matrix(f"{module}.down_proj", component, hidden, width))
    if biased:
        weights.append(vector(f"{module}.bias", width * len(names)))
        weights.append(vector(f"{module}.down_proj.bias", hidden, sharding="none"))
    return weights


def experts_of(fields: Fields, family: Family) -> Experts | None:
    """Of a layer that has them; None for a dense model."""
    number = fields.size("num_experts", 0)
    if number < 2:
        return None
    chosen = fields.size("num_experts_per_tok", 1)
    if chosen > number:
        raise fields.fault("num_experts_per_tok", f"at most the {number} experts that there are")
    shared = fields.size("n_shared_experts", family.shared_experts)
    if not shared and fields.size("shared_expert_intermediate_size", 0):
        shared = 1
    return Experts(
        num_experts=number,
        experts_per_token=max(1, chosen),
        intermediate_size=fields.size("moe_intermediate_size", fields.size("intermediate_size", 0)),
        shared=shared,
    )


def mixture(fields: Fields, family: Family, experts: Experts, layer: int) -> FeedForward:
    hidden, number, width = fields.least("hidden_size"), experts.num_experts, experts.intermediate_size
    inside = fields.size("moe_latent_size", 0) or hidden
    routes = number + fields.size("zero_expert_num", 0)  # LongCat's do nothing
    weights = [matrix("mlp.gate", "router", routes, hidden, "none")._replace(linear=False)]
    if has_router_bias(fields, family):
        weights.append(vector("mlp.gate.bias", routes, "router", "none"))
    names = ("gate_proj", "up_proj") if family.gated else ("up_proj",)
    weights += [matrix(f"mlp.experts.{name}", "expert", width, inside, "expert", number) for name in names]
    weights.append(matrix("mlp.experts.down_proj", "expert", inside, width, "expert", number))
    if family.expert_bias:
        size = (2 if family.gated else 1) * width + hidden
        weights.append(vector("mlp.gate.bias", number, "router", "none"))
        weights.append(vector("mlp.experts.bias", size, "expert", "expert", number))
    if inside != hidden:
        weights.append(matrix("mlp.fc1_latent_proj", "mlp", inside, hidden, "none"))
        weights.append(matrix("mlp.fc2_latent_proj", "mlp", hidden, inside, "none"))
    if experts.shared:
        weights += _shared(fields, family, experts, hidden)
    if not family.both:
        return FeedForward(weights, 0, experts)
    beside = dense(fields, family, layer)
    scales = [
        vector("mlp.router.scale", hidden + number, "router", "none"),
        vector("mlp.norms", 3 * hidden, "norm", "none"),
    ]
    return FeedForward([*beside.weights, *weights, *scales], beside.intermediate_size, experts)


def has_router_bias(fields: Fields, family: Family) -> bool:
    """It balances the experts' load; checkpoints hold it."""
    return family.router_bias or fields.flag("use_routing_bias", "use_moe_router_bias", "moe_router_bias")


def _shared(fields: Fields, family: Family, experts: Experts, hidden: int) -> list[Weight]:
    width = fields.size("shared_expert_intermediate_size", 0) or experts.shared * experts.intermediate_size
    module = "mlp.shared_expert" if family.shared_gate else "mlp.shared_experts"
    weights = _mlp(module, "shared_expert", hidden, width, gated=family.gated, biased=False)
    if family.shared_gate:
        weights.append(vector("mlp.shared_expert_gate", hidden, "router", "none"))
    return weights
