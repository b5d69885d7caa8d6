"""What TensorRT-LLM's PyTorch backend takes: a share of what is free at the fullest moment goes to keys and values.

Source: tensorrt_llm/_torch/pyexecutor/_util.py of 2026, KvCacheCreator.configure_kv_cache_capacity. It runs requests of
max_num_tokens tokens, takes torch's peak and what lies outside torch, and multiplies the rest by the fraction. That
peak isn't published: activations are planned by the layers' widths, and wide.
"""

from servolt.deployment import Deployment
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.plan.memory.budget import Budget, Term, TermName
from servolt.plan.memory.kv import dtype_bytes, state_bytes, token_bytes
from servolt.plan.memory.pools import Asked, Stage, budget_of_pools, left_of
from servolt.plan.memory.profiles import Profile
from servolt.plan.memory.settings import longest_context, visible_memory
from servolt.plan.memory.shape import Shape, shape_of
from servolt.plan.memory.sharding import GIB, Ranks, StageWeights, ranks_of, weights_of_rank
from servolt.plan.memory.terms import Known, measured, rotary_bytes, weights_term
from servolt.plan.memory.widths import widest_layer

__all__ = ["tensorrt_llm_budget"]


def tensorrt_llm_budget(
    deployment: Deployment, model: Model, accelerator: Accelerator, profile: Profile, known: Known
) -> Budget:
    shape, ranks = shape_of(model), ranks_of(deployment)
    visible, context = visible_memory(deployment, accelerator), longest_context(deployment, model)
    context = context if context > 0 else model.max_position_embeddings
    requests = deployment.max_num_seqs or int(profile.number("max_batch_size"))
    tokens = deployment.max_num_batched_tokens or int(profile.number("max_num_tokens"))
    fraction = deployment.free_gpu_memory_fraction or profile.number("free_gpu_memory_fraction")
    stages = []
    for number, weights in enumerate(weights_of_rank(model, deployment)):
        terms = _terms(deployment, model, profile, ranks, shape, weights, tokens, requests)
        if number == 0:
            terms |= {name: measured(size) for name, size in known.items() if name != "kv_cache"}
        pool = left_of(visible.bytes, visible.tolerance * visible.bytes, fraction, terms)
        of_token = _token_bytes(deployment, model, shape, ranks, weights)
        stages.append(Stage(terms, pool, of_token, of_token * max(1, context)))
    asked = Asked(
        context=context,
        requests=requests,
        tokens=tokens,
        block=deployment.block_size or int(profile.number("tokens_per_block")),
        available_bytes=visible.bytes,
        ranks=ranks.devices // ranks.pp,
        tolerance=shape.tolerance,
        measures=True,
    )
    return budget_of_pools(stages, asked, (*profile.notes, *visible.notes, *shape.notes, *_notes(shape)))


def _terms(
    deployment: Deployment,
    model: Model,
    profile: Profile,
    ranks: Ranks,
    shape: Shape,
    weights: StageWeights,
    tokens: int,
    requests: int,
) -> dict[TermName, Term]:
    here = [shape.kinds[index] for index in {*shape.order[weights.start : weights.end]}]
    dtype = deployment.dtype or model.dtype
    width = max((widest_layer(kind, model, ranks) for kind in here), default=0.0)
    size = width * tokens * dtype_bytes(dtype)
    tolerance = profile.number("activation_tolerance") * profile.width
    overhead = profile.value("overhead_gib")
    group = profile.value("group_gib") if ranks.devices > 1 else (0.0, 0.0, 0.0)
    low, middle, high = (GIB * (single + more) for single, more in zip(overhead, group, strict=True))
    states = [
        state_bytes(shape.kinds[index], tp=ranks.attention_tp, dtype=dtype)
        for index in shape.order[weights.start : weights.end]
    ]
    slots = min(requests, deployment.max_num_seqs or int(profile.number("state_slots")))
    return {
        "weights": weights_term(model, weights, rotary_bytes(model, dtype)),
        "activation": Term.soft(size, tolerance, f"{width:,.0f} elements for each of {tokens:,} tokens"),
        "overhead": Term(
            bytes=round(middle),
            low=round(low),
            high=round(high),
            basis="formula",
            formula="context, libraries, work spaces, graphs" + (", buffers of the group" if ranks.devices > 1 else ""),
        ),
        "state": Term.soft(slots * sum(states), 0.5, f"{slots} slots") if sum(states) else Term.exact(0, "none"),
    }


def _token_bytes(deployment: Deployment, model: Model, shape: Shape, ranks: Ranks, weights: StageWeights) -> float:
    """Of all layers of a stage: windows count only where max_attention_window names them."""
    own = model.metadata.get("kv_cache_dtype")
    asked = deployment.kv_cache_dtype or (own if isinstance(own, str) else None)
    each = [
        token_bytes(kind, tp=ranks.attention_tp, kv_cache_dtype=asked, dtype=deployment.dtype or model.dtype)
        for kind in shape.kinds
    ]
    return sum(each[index] for index in shape.order[weights.start : weights.end])


def _notes(shape: Shape) -> list[str]:
    found = ["How much TensorRT-LLM takes for activations and work spaces isn't published: its interval is wide."]
    if any(kind.mixer in ("sliding", "chunked") for kind in shape.kinds):
        found.append("Sliding layers are planned with the whole context: it is so unless max_attention_window is set.")
    return found
