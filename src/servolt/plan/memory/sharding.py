"""Which weights lie on which device: split over tensor, pipeline, expert and data parallel ranks as engines do it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from servolt.deployment import Deployment
from servolt.model import Model
from servolt.model.layers import LayerKind, Part
from servolt.plan.memory.draft import draft_of
from servolt.plan.memory.shape import shape_of

__all__ = ["GIB", "Ranks", "StageWeights", "pad_vocab", "ranks_of", "share_of", "stage_layers", "weights_of_rank"]

# vLLM, SGLang and TensorRT-LLM round the vocabulary up to this, so that it divides (DEFAULT_VOCAB_PADDING_SIZE).
VOCAB_STEP = 64

# Of the linear layers of a decoder: what LoRA adapters attach to unless they say otherwise.
LORA_TARGETS = ("attention", "mlp", "shared_expert")

GIB = 2**30


class Ranks(NamedTuple):
    """How many devices share what. `attention_tp` is less than `tp` under SGLang's DP attention."""

    tp: int = 1
    pp: int = 1
    dp: int = 1
    ep: int = 1
    attention_tp: int = 1
    dcp: int = 1
    dp_attention: bool = False

    @property
    def devices(self) -> int:
        return self.tp * self.pp * (1 if self.dp_attention else self.dp)


class StageWeights(NamedTuple):
    """One device of one pipeline stage. `host_bytes` are kept in the machine's memory, not on the device."""

    start: int
    end: int
    bytes: float
    components: Mapping[str, float]
    host_bytes: float = 0.0

    @property
    def layers(self) -> int:
        return self.end - self.start


def ranks_of(deployment: Deployment) -> Ranks:
    tp = deployment.tensor_parallel_size or 1
    pp = deployment.pipeline_parallel_size or 1
    dp = deployment.data_parallel_size or 1
    dp_attention = bool(deployment.enable_dp_attention)
    if deployment.expert_parallel_size:
        ep = deployment.expert_parallel_size
    else:
        ep = tp * (1 if dp_attention else dp) if deployment.enable_expert_parallel else 1
    attention_tp = max(tp // dp, 1) if dp_attention else tp
    return Ranks(tp, pp, dp, ep, attention_tp, deployment.decode_context_parallel_size or 1, dp_attention)


def weights_of_rank(model: Model, deployment: Deployment) -> tuple[StageWeights, ...]:
    """One entry for each pipeline stage, in order."""
    ranks = ranks_of(deployment)
    spans = stage_layers(len(shape_of(model).order), ranks.pp)
    if not model.layers:
        return _even(model, ranks, spans)
    per_kind = [_shares(kind.parts, kind, model, ranks) for kind in model.layers]
    stages = []
    for number, (start, end) in enumerate(spans):
        components = _outside(model, ranks, first=number == 0, last=number == len(spans) - 1, deployment=deployment)
        for kind, count in _counts(model, start, end):
            for name, size in per_kind[kind].items():
                components[name] = components.get(name, 0.0) + size * count
        if deployment.enable_lora:
            components["lora"] = _lora_bytes(model, deployment, ranks, start, end)
        stages.append(_offloaded(StageWeights(start, end, sum(components.values()), components), deployment))
    return tuple(stages)


def stage_layers(layers: int, stages: int) -> tuple[tuple[int, int], ...]:
    """Where each stage starts and ends. A remainder goes to the stages before the last, since the last has the head.

    >>> stage_layers(10, 4)
    ((0, 2), (2, 5), (5, 8), (8, 10))
    """
    counts = [layers // stages] * stages
    for place in range(2, layers % stages + 2):
        counts[-place] += 1
    ends = [sum(counts[: number + 1]) for number in range(stages)]
    return tuple((end - count, end) for end, count in zip(ends, counts, strict=True))


def pad_vocab(size: int) -> int:
    return -(-size // VOCAB_STEP) * VOCAB_STEP


def _counts(model: Model, start: int, end: int) -> list[tuple[int, int]]:
    """Kinds with their number of layers in a stage."""
    if (start, end) == (0, len(model.layer_order)) or not model.layer_order:
        return [(index, kind.count) for index, kind in enumerate(model.layers)]
    here = model.layer_order[start:end]
    return [(kind, here.count(kind)) for kind in sorted(set(here))]


def _shares(parts: Sequence[Part], kind: LayerKind | None, model: Model, ranks: Ranks) -> dict[str, float]:
    """Bytes on one device, by component."""
    shares: dict[str, float] = {}
    for part in parts:
        size = part.bytes * share_of(part, kind, model, ranks)
        shares[part.component] = shares.get(part.component, 0.0) + size
    return shares


def share_of(part: Part, kind: LayerKind | None, model: Model, ranks: Ranks) -> float:
    """Of a part's bytes, what lies on one rank of its stage. `kind` is the layer's, None outside the layers."""
    if part.sharding == "none":
        return 1.0
    if part.sharding == "vocab":
        return _vocab_share(part, model, ranks)
    if part.sharding == "expert":
        return _expert_share(kind, ranks)
    tp = ranks.attention_tp if part.component == "attention" else ranks.tp
    if part.sharding == "kv_heads" and kind is not None and kind.num_kv_heads:
        return -(-kind.num_kv_heads // tp) / kind.num_kv_heads
    return 1.0 / tp


def _vocab_share(part: Part, model: Model, ranks: Ranks) -> float:
    """Under DP attention each rank embeds its own tokens, so it holds the whole table."""
    padding = pad_vocab(model.vocab_size) / model.vocab_size if model.vocab_size else 1.0
    whole = ranks.dp_attention and part.component == "embedding"
    return padding / (1 if whole else ranks.tp)


def _expert_share(kind: LayerKind | None, ranks: Ranks) -> float:
    """Whole experts under expert parallelism, and their width split over what is left of the ranks.

    Without it, data parallel replicas of vLLM split the experts' width among all of them.
    """
    among = ranks.tp * (1 if ranks.dp_attention else ranks.dp)
    if ranks.ep <= 1 or kind is None or kind.experts is None:
        return 1.0 / among
    experts = kind.experts.num_experts
    return -(-experts // ranks.ep) / experts / max(among // ranks.ep, 1)


def _outside(model: Model, ranks: Ranks, *, first: bool, last: bool, deployment: Deployment) -> dict[str, float]:
    """The embedding stands on the first stage, the head on the last; a tied one on both."""
    components: dict[str, float] = {}
    speculation = deployment.speculative_config
    uses_mtp = speculation is not None and speculation.method == "mtp"
    for part in model.parts:
        here = {
            "embedding": first or (last and model.tied_embeddings),
            "vision": first and not _is_text_only(deployment),
            "output": last,
            "mtp": last and uses_mtp,
            "norm": last,
        }.get(part.component, first)
        if here:
            size = part.bytes * share_of(part, None, model, ranks)
            components[part.component] = components.get(part.component, 0.0) + size
    if last and speculation is not None:
        components["draft"] = _draft_bytes(model, speculation.method, ranks)
    return components


def _is_text_only(deployment: Deployment) -> bool:
    """vLLM keeps no tower that no prompt can use: every modality's limit is 0."""
    limits = deployment.limit_mm_per_prompt
    return limits is not None and bool(limits) and not any(limits.values())


def _draft_bytes(model: Model, method: str, ranks: Ranks) -> float:
    """EAGLE: one layer of the target's shape and a projection of two (three) widths; it shares embedding and head.

    A draft model is spread as its target is; heads of Medusa are a square and a vocabulary each.
    """
    draft = draft_of(model)
    if method == "draft_model" and draft is not None:
        return draft.weights_bytes / ranks.tp
    if not model.layers:
        return 0.0
    dense = min(model.layers, key=lambda kind: (kind.experts is not None, -kind.parameters))
    layer = sum(part.bytes * share_of(part, dense, model, ranks) for part in dense.parts)
    square = 2.0 * model.hidden_size**2
    if method == "eagle":
        return layer + 2 * square
    if method == "eagle3":
        return layer + 3 * square + 2.0 * 32_000 * model.hidden_size / ranks.tp  # its own, smaller vocabulary
    if method == "medusa":
        return 4 * (square + 2.0 * model.vocab_size * model.hidden_size) / ranks.tp
    return 0.0


def _lora_bytes(model: Model, deployment: Deployment, ranks: Ranks, start: int, end: int) -> float:
    """Slots are kept for every linear layer: rank x (in + out) each, in 16 bits, A or B divided over the ranks.

    in + out of the linear layers is taken from their weights: two sides of a matrix of so many elements.
    """
    slots, rank = deployment.max_loras or 1, deployment.max_lora_rank or 16
    total = 0.0
    for kind, count in _counts(model, start, end):
        total += count * _sides(model.layers[kind], model.hidden_size, ranks)
    return slots * rank * 2.0 * total


def _sides(kind: LayerKind, hidden: int, ranks: Ranks) -> float:
    """Input and output widths of the linear layers of one layer, on one rank."""
    queries, keys = kind.num_heads * kind.head_dim_k, kind.num_kv_heads * (kind.head_dim_k + kind.head_dim_v)
    attention = 4 * hidden + 2 * queries + keys if kind.num_heads else 0
    width = kind.intermediate_size
    mlp = 3 * (hidden + width) if width else 0
    return hidden + (attention + mlp - hidden) / ranks.tp if attention or mlp else 0.0


def _offloaded(stage: StageWeights, deployment: Deployment) -> StageWeights:
    """Layers move to the host until so many GiB of each device are there; embedding and head stay."""
    if not deployment.cpu_offload_gb:
        return stage
    fixed = sum(stage.components.get(name, 0.0) for name in ("embedding", "output", "vision", "draft", "lora"))
    host = min(deployment.cpu_offload_gb * GIB, stage.bytes - fixed)
    return stage._replace(bytes=stage.bytes - host, host_bytes=host)


def _even(model: Model, ranks: Ranks, spans: Sequence[tuple[int, int]]) -> tuple[StageWeights, ...]:
    """Where the layers are not known, every device has as much as every other."""
    size = model.weights_bytes / (ranks.tp * ranks.pp)
    return tuple(StageWeights(start, end, size, {"other": size}) for start, end in spans)
