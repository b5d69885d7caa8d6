"""What SGLang leaves free of a device: for a step's activations and for graphs, by the device's tier.

Source: sglang 0.5.15 sglang/srt/server_args.py _handle_gpu_memory_settings; 0.5.23
sglang/srt/arg_groups/memory_hook.py.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from servolt.model import Model
from servolt.plan.memory.case import Case
from servolt.plan.memory.settings import argument, flag
from servolt.plan.memory.sharding import GIB

__all__ = ["Reserve", "reserve_of"]

MIB = 2**20
BASE_MIB, CHUNK_MIB, GRAPH_MIB, PREFILL_GRAPH_MIB = 512, 1.5, 2, 8
LATENT_PREFILL_GRAPH_MIB = 1536
SMALLEST_CHUNK = 2048
DP_MIB, DP_LARGE_MIB, DP_LARGE_BATCH = 3, 1.5, 300
WORLD_MIB, WORLD_SIZE = 1024, 8

# Towers: the fraction is cut to 0.95, less by a tenth for each ViT-L that the tower is larger, within 0.8 and 1.05.
TOWER_FACTOR, TOWER_STEP, TOWER_LEAST, TOWER_MOST = 0.95, 0.1, 0.8, 1.05
VIT_LAYERS, VIT_HIDDEN = 24, 1024


class Reserve(NamedTuple):
    """`fraction` of what is free before loading is for weights and pool; `step` are tokens of one prefill step."""

    activation_bytes: float
    graph_bytes: float
    fraction: float
    step: int
    graph_batch: int


class _Batch(NamedTuple):
    """`chunk` is the prefill of one step, None without chunks; `graph` the largest captured decode batch."""

    chunk: int | None
    step: int
    graph: int


def reserve_of(case: Case, total: float) -> Reserve:
    """`total` is what nvidia-smi shows of the device, in bytes."""
    batch = _batch(case, total)
    activation, graphs = _activation_mib(case, batch), _graphs_mib(case, batch)
    floor: Mapping[str, float] = case.profile.value("reserve_floor_mib")
    if total > floor["above_gib"] * GIB:
        activation = max(activation, floor["mib"] - graphs)
    fraction, share = case.deployment.mem_fraction_static, 1.0
    if fraction is None and case.profile.value("reserve") == "step":
        fraction = _lowered_for_tower(round((total - (activation + graphs) * MIB) / total, 3), case.model)
    else:
        fraction = fraction or _older_fraction(case, total)
        share = min(1.0, (1 - fraction) * total / ((activation + graphs) * MIB))
    return Reserve(share * activation * MIB, share * graphs * MIB, fraction, batch.step, batch.graph)


def _older_fraction(case: Case, total: float) -> float:
    """Before 0.5.4 the step did not count: a share by the number of ranks, then one by the device's tier."""
    ranks, speculation = case.ranks, case.deployment.speculative_config
    if case.profile.value("reserve") == "ranks":
        return next(float(share) for least, share in case.profile.value("fraction_by_ranks") if ranks.tp >= least)
    tiers: Sequence[Mapping[str, float]] = case.profile.value("reserve_by_tier_gib")
    tier = next(tier for tier in tiers if not tier["below_gib"] or total < tier["below_gib"] * GIB)
    reserved = tier["fixed"] + tier["rank"] * ranks.tp * ranks.pp
    reserved += case.profile.number("dp_attention_gib") * ranks.dp_attention
    reserved += case.profile.number("speculation_mib") * MIB / GIB * (speculation is not None)
    return round((total - reserved * GIB) / total, 3)


def _batch(case: Case, total: float) -> _Batch:
    deployment = case.deployment
    tiers: Sequence[Mapping[str, Any]] = case.profile.value("tiers")
    tier = next(tier for tier in tiers if not tier["below_gib"] or total < tier["below_gib"] * GIB)
    asked = argument(deployment, "chunked_prefill_size")
    chunk = deployment.max_num_batched_tokens or (int(asked) if isinstance(asked, int | float) else tier["chunk"])
    if chunk < 0 or deployment.enable_chunked_prefill is False:
        chunk = None
    return _Batch(chunk, chunk or int(case.profile.number("max_prefill_tokens")), _graph_batch(case, tier["max_bs"]))


def _graph_batch(case: Case, of_tier: Sequence[int]) -> int:
    """The largest that is captured: asked for, else the tier's, but no more than may run."""
    largest = case.deployment.max_cudagraph_capture_size
    for name in ("cuda_graph_max_bs_decode", "cuda_graph_max_bs"):
        given = argument(case.deployment, name)
        largest = largest or (int(given) if isinstance(given, int | float) else None)
    if largest is not None:
        return largest
    return min(of_tier[0 if case.ranks.tp < 4 else 1], case.deployment.max_num_seqs or 2**31)


def _activation_mib(case: Case, batch: _Batch) -> float:
    ranks = case.ranks
    size = BASE_MIB + CHUNK_MIB * max(batch.step, SMALLEST_CHUNK) + ranks.tp * ranks.pp / WORLD_SIZE * WORLD_MIB
    if ranks.dp_attention:
        size += batch.graph * ranks.dp * (DP_MIB + (DP_LARGE_MIB if batch.graph > DP_LARGE_BATCH else 0))
    speculation = case.deployment.speculative_config
    if speculation is not None and speculation.method != "ngram":
        name = "draft_model_mib" if speculation.method == "draft_model" else "speculation_mib"
        size += case.profile.number(name)
    return size


def _graphs_mib(case: Case, batch: _Batch) -> float:
    is_eager = bool(case.deployment.enforce_eager) or flag(case.deployment, "disable_cuda_graph")
    decode = 0.0 if is_eager else float(GRAPH_MIB * batch.graph)
    if is_eager or not case.profile.flag("prefill_graphs") or _without_prefill_graphs(case):
        return decode
    if any(kind.kv_lora_rank for kind in case.shape.kinds):
        return decode + LATENT_PREFILL_GRAPH_MIB
    return decode + PREFILL_GRAPH_MIB * _prefill_sizes(batch.chunk or 0)


def _without_prefill_graphs(case: Case) -> bool:
    """Asked for, or one of the cases that the engine leaves out."""
    if (case.accelerator.vendor or "NVIDIA") != "NVIDIA" or case.ranks.dp_attention or case.ranks.pp > 1:
        return True
    names = ("disable_piecewise_cuda_graph", "disable_prefill_cuda_graph")
    return bool(case.deployment.enable_lora) or any(flag(case.deployment, name) for name in names)


def _prefill_sizes(largest: int) -> int:
    """How many sizes of prefill are captured, by sglang's list.

    >>> _prefill_sizes(8192), _prefill_sizes(2048)
    (58, 42)
    """
    steps = ((4, 32, 4), (48, 256, 16), (288, 512, 32), (576, 1024, 64), (1280, 4096, 256), (4608, largest, 512))
    return sum(len(range(first, min(last, largest) + 1, step)) for first, last, step in steps)


def _lowered_for_tower(fraction: float, model: Model) -> float:
    if not any(part.component == "vision" for part in model.parts):
        return fraction
    layers = model.metadata.get("vision.num_hidden_layers", VIT_LAYERS)
    hidden = model.metadata.get("vision.hidden_size", VIT_HIDDEN)
    times = float(layers) * float(hidden) ** 2 / (VIT_LAYERS * VIT_HIDDEN**2)
    return fraction * TOWER_FACTOR * max(TOWER_LEAST, min(TOWER_MOST, 1 - TOWER_STEP * (times - 1)))
