"""The weights of what stands behind the mixer: a dense MLP, or experts with their router."""

from typing import NamedTuple

from servolt.model.families import Family
from servolt.model.fields import Fields
from servolt.model.layers import Experts
from servolt.model.weights import Weight, matrix, vector

__all__ = ["FeedForward", "dense", "experts_of", "mixture"]


class FeedForward(NamedTuple):
    weights: list[Weight]
    intermediate_size: int
    experts: Experts | None = None


def dense(fields: Fields, family: Family, layer: int) -> FeedForward:
    hidden, width = fields.least("hidden_size"), dense_width(fields, family, layer)
    biased = family.mlp_bias
    if biased is None:
        biased = fields.flag("mlp_bias", "use_mlp_bias", "add_bias_linear", "use_bias", "bias", "enable_bias")
    return FeedForward(_mlp("mlp", "mlp", hidden, width, gated=is_gated(fields, family), biased=biased), width)


def dense_width(fields: Fields, family: Family, layer: int) -> int:
    """Llama 4 and others name the width of dense layers apart from that of experts."""
    hidden = fields.least("hidden_size")
    for key in ("intermediate_size_mlp", "dense_intermediate_size"):
        if fields.has(key):
            return fields.size(key)
    ratio = fields.number("ffn_hidden_ratio", fields.number("expansion_ratio", 0)) or family.defaults.get(
        "intermediate_size_over_hidden", 0
    )
    width = fields.size("intermediate_size", int(ratio * hidden) or None, layer=layer)
    return width // 2 if family.defaults.get("halved_intermediate_size") else width


def is_gated(fields: Fields, family: Family) -> bool:
    """Rebuilt configs name the class of the MLP."""
    mlp = fields.text("model_type_litgpt")
    if mlp:
        return not mlp.startswith("GptNeox")
    return family.gated


def _mlp(module: str, component: str, hidden: int, width: int, *, gated: bool, biased: bool) -> list[Weight]:
    part = "shared_expert" if component == "shared_expert" else "mlp"
    names = ["gate_proj", "up_proj"] if gated else ["up_proj"]
    weights = [matrix(f"{module}.{name}", part, width, hidden) for name in names]  # type: ignore[arg-type]
    weights.append(matrix(f"{module}.down_proj", part, hidden, width))  # type: ignore[arg-type]
    if biased:
        weights += [
            vector(f"{module}.bias", width * len(names)),
            vector(f"{module}.down_proj.bias", hidden, sharding="none"),
        ]
    return weights


def experts_of(fields: Fields) -> Experts | None:
    """Of a layer that has them; None for a dense model."""
    number = fields.size("num_experts", 0)
    if number < 2:
        return None
    width = fields.size("moe_intermediate_size", fields.size("intermediate_size", 0))
    shared = fields.size("n_shared_experts", 0)
    if not shared and fields.size("shared_expert_intermediate_size", 0):
        shared = 1
    if not shared and fields.text("model_type").startswith("llama4"):
        shared = 1
    return Experts(
        num_experts=number,
        experts_per_token=max(1, min(number, fields.size("num_experts_per_tok", 1))),
        intermediate_size=width,
        shared=shared,
    )


def mixture(fields: Fields, family: Family, experts: Experts, layer: int) -> FeedForward:
    hidden, number, width = fields.least("hidden_size"), experts.num_experts, experts.intermediate_size
    gated = is_gated(fields, family)
    latent = fields.size("moe_latent_size", 0)
    inside = latent or hidden
    weights = [matrix("mlp.gate", "router", number, hidden, "none")._replace(linear=False)]
    if family.router_bias or fields.flag("use_routing_bias", "use_moe_router_bias", "moe_router_bias"):
        weights.append(vector("mlp.gate.bias", number, "router", "none"))
    for name in ("gate_proj", "up_proj") if gated else ("up_proj",):
        weights.append(matrix(f"mlp.experts.{name}", "expert", width, inside, "expert", number))
    weights.append(matrix("mlp.experts.down_proj", "expert", inside, width, "expert", number))
    if family.expert_bias:
        weights += [
            vector("mlp.gate.bias", number, "router", "none"),
            vector("mlp.experts.bias", (2 if gated else 1) * width + hidden, "expert", "expert", number),
        ]
    if latent:
        weights += [
            matrix("mlp.fc1_latent_proj", "mlp", latent, hidden, "none"),
            matrix("mlp.fc2_latent_proj", "mlp", hidden, latent, "none"),
        ]
    if experts.shared:
        weights += _shared(fields, family, experts, hidden)
    return FeedForward(weights, 0, experts)


def _shared(fields: Fields, family: Family, experts: Experts, hidden: int) -> list[Weight]:
    width = fields.size("shared_expert_intermediate_size", 0) or experts.shared * experts.intermediate_size
    module = "mlp.shared_expert" if family.shared_gate else "mlp.shared_experts"
    weights = _mlp(module, "shared_expert", hidden, width, gated=is_gated(fields, family), biased=False)
    if family.shared_gate:
        weights.append(vector("mlp.shared_expert_gate", hidden, "router", "none"))
    return weights
