"""What vLLM takes of each device, and how many tokens its pool then holds.

The pool is what is left of visible memory times gpu_memory_utilization after weights, the peak of the profile run, what
torch does not hold and, since 0.20, the estimate of the CUDA graphs. Source: vllm 0.19.0 and 0.33.0
vllm/v1/worker/gpu_worker.py determine_available_memory.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from servolt.deployment import Deployment
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.model.layers import RECURRENT_KINDS
from servolt.plan.memory.budget import Budget, RankMemory, Term, TermName
from servolt.plan.memory.case import Case, case_of
from servolt.plan.memory.kv import dtype_bytes
from servolt.plan.memory.loading import loaded_extra
from servolt.plan.memory.profiles import Profile
from servolt.plan.memory.settings import AUTO, argument, flag, has_fast_link
from servolt.plan.memory.sharding import GIB, StageWeights, weights_of_rank
from servolt.plan.memory.terms import Known, around, bytes_of, measured, spread, weights_term
from servolt.plan.memory.vllm_pages import Pages, Request, logged_tokens, longest_request, pages_of
from servolt.plan.memory.vllm_peak import Run, peak_of
from servolt.units import format_bytes

__all__ = ["vllm_budget"]

NO_LIMIT = 2**31  # blocks of a stage that keeps nothing of a token
# Kernels of experts take more once they run: gpt-oss-20b at 0.95 of an H100 ran out of memory after its graphs, with
# 1.6 GiB to spare by all that was logged (vllm 0.19.0).
LATER_BYTES = 1.7 * GIB

PART_TOKENS = 16_384
SLOW_GROUP_SHARE = 0.35  # assumed: NCCL's buffers without those of custom collectives


class _Batch(NamedTuple):
    tokens: int
    requests: int


class _Stage(NamedTuple):
    """`pool` is what is left for keys and values, which may be off by `less` and `more`."""

    terms: dict[TermName, Term]
    pool: float
    less: float
    more: float


class _Blocks(NamedTuple):
    """Of the pool: of the stage that has the fewest, and between what they lie."""

    likely: int
    low: int
    high: int
    stage: int


def vllm_budget(
    deployment: Deployment, model: Model, accelerator: Accelerator, profile: Profile, known: Known
) -> Budget:
    case = case_of(deployment, model, accelerator, profile, known)
    weights = weights_of_rank(model, deployment)
    batch = _batch(case)
    request = _request(case, batch)
    spans = [(stage.start, stage.end) for stage in weights]
    pages = pages_of(case.shape.kinds, case.shape.order, spans, request, profile, case.draft_layers)
    stages = [_stage(case, batch, stage, number, len(weights)) for number, stage in enumerate(weights)]
    blocks = _blocks(stages, pages)
    context = case.asked_context
    if context != AUTO:
        return _budget(case, batch, request, weights, pages, stages, blocks, context)
    context, shorter = (
        longest_request(pages, number - 1, case.own_context, request) for number in (blocks.likely, blocks.low)
    )
    found = _budget(case, batch, request, weights, pages, stages, blocks, context)
    # With a smaller pool the engine takes a shorter context, of which one request fits.
    return found.model_copy(update={"max_concurrency_low": max(found.max_concurrency_low, float(shorter > 0))})


def _budget(
    case: Case,
    batch: _Batch,
    request: Request,
    weights: Sequence[StageWeights],
    pages: Pages,
    stages: Sequence[_Stage],
    blocks: _Blocks,
    context: int,
) -> Budget:
    meaning, tolerance = str(case.profile.value("kv_tokens")), case.shape.tolerance
    likely, low, high = (logged_tokens(pages, number, max(context, 1), request, meaning) for number in blocks[:3])
    if not pages.groups:  # nothing is kept of a token: only max_num_seqs limits
        likely = low = high = batch.requests * context, float(batch.requests)
    per_rank = tuple(
        _rank(case, stage, size, pages, blocks, number) for number, (stage, size) in _numbered(stages, pages)
    )
    least = per_rank[blocks.stage]
    return Budget(
        per_rank=per_rank,
        pooled=True,
        kv_bytes_per_token=case.token_bytes(weights),
        kv_cache_tokens=likely[0],
        kv_cache_tokens_low=math.floor(low[0] * (1 - tolerance)),
        kv_cache_tokens_high=math.ceil(high[0] * (1 + tolerance)),
        num_gpu_blocks=blocks.likely if pages.groups else None,
        max_concurrency=likely[1],
        max_concurrency_low=low[1] * (1 - tolerance),
        max_concurrency_high=high[1] * (1 + tolerance),
        max_model_len=context,
        max_num_seqs=batch.requests,
        max_num_batched_tokens=batch.tokens,
        binding=_binding(least),
        notes=(*case.notes, *pages.notes),
    )


def _batch(case: Case) -> _Batch:
    """Tokens and requests of a step, by the tier of the device where they are not asked for."""
    deployment, accelerator = case.deployment, case.accelerator
    names = " ".join((accelerator.name, *accelerator.aliases)).lower()
    tiers: Sequence[Mapping[str, Any]] = case.profile.value("batch_tiers")
    tier = next(
        tier
        for tier in tiers
        if case.visible.bytes >= tier["above_gib"] * GIB and not any(word in names for word in tier["except"])
    )
    times = 2 if argument(deployment, "performance_mode") == "throughput" else 1
    if accelerator.kind == "cpu":
        tier, times = case.profile.value("cpu_batch"), case.ranks.tp * case.ranks.pp
    requests = deployment.max_num_seqs or tier["max_num_seqs"] * times
    tokens = deployment.max_num_batched_tokens
    if tokens is None:
        tokens = tier["max_num_batched_tokens"] * times
        whole = case.context < case.profile.number("chunks_from_tokens") and not deployment.enable_chunked_prefill
        if whole or deployment.enable_chunked_prefill is False:
            tokens = max(tokens, case.context)
        tokens = min(tokens, requests * case.context)
    return _Batch(tokens, min(requests, tokens))


def _request(case: Case, batch: _Batch) -> Request:
    reuses = case.deployment.enable_prefix_caching
    if reuses is None:
        reuses = case.profile.flag("hybrid_prefix_caching")
    is_recurrent = any(kind.mixer in RECURRENT_KINDS for kind in case.shape.kinds)
    flying = int(case.profile.number("batches_in_flight")) + case.ranks.pp - 1
    return Request(
        tp=case.ranks.attention_tp,
        dcp=case.ranks.dcp,
        block_size=case.deployment.block_size or int(case.profile.number("block_size")),
        in_flight_tokens=flying * batch.tokens,
        kept_states=(2 if reuses else 1) + case.drafted if is_recurrent else 0,
        dtype=case.dtype,
        kv_cache_dtype=case.kv_cache_dtype,
        state_dtype=case.state_dtype("mamba_ssm_cache_dtype"),
        drafted=case.drafted,
        hybrid_groups=_has_groups(case),
    )


def _has_groups(case: Case) -> bool:
    """Whether layers with a window give back what they have left behind; else they keep all tokens."""
    if flag(case.deployment, "disable_hybrid_kv_cache_manager"):
        return False
    chunked = any(kind.mixer == "chunked" for kind in case.shape.kinds)
    speculation = case.deployment.speculative_config
    drafts = speculation is not None and speculation.method in ("eagle", "eagle3")
    if chunked and (drafts or not case.profile.flag("chunked_groups")):
        return False
    return case.profile.flag("hybrid_groups")


def _stage(case: Case, batch: _Batch, weights: StageWeights, number: int, stages: int) -> _Stage:
    """The log that `known` was read from is that of the first stage."""
    profile, known = case.profile, case.known if number == 0 else {}
    width = _together(profile.width, profile.number("constants_width"), _device_width(case.accelerator))
    graphs = _graphs(case, batch, weights.layers, width)
    terms: dict[TermName, Term] = {
        "weights": _weights(case, weights),
        "activation": _activation(case, batch, weights, width, first=number == 0, last=number == stages - 1),
        "overhead": _overhead(case, width),
    }
    if graphs is not None:
        terms["graph"] = graphs[0]
    terms.update({name: measured(known[name]) for name in terms if name in known})
    counted = [term for name, term in terms.items() if name != "graph"]
    if graphs is not None and profile.flag("graphs_subtracted"):
        # Where no version is stated, it may be one that leaves them out.
        low = graphs[1].low if case.deployment.engine_version else 0
        counted.append(terms["graph"] if "graph" in known else graphs[1].model_copy(update={"low": low}))
    stated = known.get("kv_cache", case.deployment.kv_cache_memory_bytes)
    return _left(case, terms, counted, _of_processor(case) if stated is None else stated)


def _of_processor(case: Case) -> float | None:
    """The pool on a processor; None on devices that share what the rest leaves."""
    if case.accelerator.kind != "cpu":
        return None
    pool: Mapping[str, float] = case.profile.value("cpu_pool")
    return pool["gib"] * GIB + pool["share"] * case.visible.bytes


def _left(case: Case, terms: dict[TermName, Term], counted: Sequence[Term], stated: float | Term | None) -> _Stage:
    if stated is not None:
        pool = measured(stated)
        return _Stage(terms, bytes_of(stated), pool.bytes - pool.low, pool.high - pool.bytes)
    share = case.deployment.gpu_memory_utilization or case.profile.number("gpu_memory_utilization")
    asked = float(math.ceil(case.visible.bytes * share))
    unsure = asked * case.visible.tolerance
    return _Stage(
        terms,
        asked - sum(term.bytes for term in counted),
        spread([*(term.high - term.bytes for term in counted), unsure]),
        spread([*(term.bytes - term.low for term in counted), unsure]),
    )


def _weights(case: Case, weights: StageWeights) -> Term:
    kinds = [case.shape.kinds[kind] for kind in case.shape.order[weights.start : weights.end]]
    extra = loaded_extra(case.model, case.ranks, case.accelerator, weights, kinds, case.dtype, absorbs=False)
    return weights_term(case.model, weights, extra)


def _activation(case: Case, batch: _Batch, weights: StageWeights, width: float, *, first: bool, last: bool) -> Term:
    limits = case.deployment.limit_mm_per_prompt
    has_images = any(part.component == "vision" for part in case.model.parts) and (not limits or any(limits.values()))
    block = case.deployment.block_size or int(case.profile.number("block_size"))
    run = Run(batch.tokens, batch.requests, dtype_bytes(case.dtype), has_images, case.context, block)
    kinds = [case.shape.kinds[kind] for kind in sorted(set(case.shape.order[weights.start : weights.end]))]
    peak = peak_of(case.model, kinds, case.ranks, run, case.profile, first=first, last=last)
    has_experts = any(kind.experts is not None for kind in kinds)
    sides = 0.0 if first and last else 0.05  # what stages hand on was seen less exactly
    tolerance = (0.03 * peak.bytes + GIB * (0.04 + 0.2 * has_experts + 0.15 * has_images + sides)) * width
    # Tokens of all replicas may pass the experts in parts of 16,384 (VLLM_FUSED_MOE_CHUNK_SIZE), or all at once.
    gathers = case.ranks.ep > 1 and case.ranks.dp > 1
    parted = max(0.0, 1 - PART_TOKENS / (batch.tokens * case.ranks.dp)) if gathers else 0.0
    return around(peak.bytes, tolerance + parted * peak.kept, tolerance, peak.formula)


def _overhead(case: Case, width: float) -> Term:
    """What is not torch's: libraries, and the buffers of a group for its collectives, fewer without a fast link."""
    single, group, further = case.profile.value("overhead_gib")
    if case.ranks.tp == 1:
        size = case.profile.number("pipeline_overhead_gib") if case.ranks.pp > 1 else single
        return around(size * GIB, 0.04 * GIB * width, 0.15 * GIB * width, "one device")
    formula = f"buffers of a group of {case.ranks.tp}"
    if not has_fast_link(case.accelerator):
        size = single + SLOW_GROUP_SHARE * group + further * (case.ranks.tp - 2)
        return around(size * GIB, 0.5 * size * GIB, 0.8 * size * GIB, formula)
    size = single + group + further * (case.ranks.tp - 2)
    return around(size * GIB, 0.1 * GIB * width, 0.15 * GIB * width, formula)


def _graphs(case: Case, batch: _Batch, layers: int, width: float) -> tuple[Term, Term] | None:
    """What the graphs take, and what the engine estimates that they will."""
    largest = case.deployment.max_cudagraph_capture_size
    if case.deployment.enforce_eager or largest == 0 or case.accelerator.kind == "cpu":
        return None
    if largest is None:
        packed = any(part.dtype == "mxfp4" for kind in case.shape.kinds for part in kind.parts)
        name = "max_cudagraph_capture_size_mxfp4" if packed else "max_cudagraph_capture_size"
        largest = min(2 * batch.requests, int(case.profile.number(name)))
    sizes = _capture_sizes(min(largest, batch.tokens))
    has_experts = any(kind.experts is not None for kind in case.shape.kinds)
    found = []
    for name in ("graph_gib", "graph_estimate_gib"):
        constants: Mapping[str, float] = case.profile.value(name)
        size = (constants["fixed"] + constants["layer"] * layers) * sizes / constants["sizes"]
        size += constants["experts"] if has_experts else 0.0
        tolerance = GIB * (0.12 + 0.12 * size) * width
        found.append(around(size * GIB, tolerance, tolerance, f"{sizes} sizes up to {largest}, {layers} layers"))
    return found[0], found[1]


def _capture_sizes(largest: int) -> int:
    """How many batch sizes are captured: 1, 2, 4, then every 8 up to 256, then every 16.

    >>> _capture_sizes(512), _capture_sizes(1024), _capture_sizes(16)
    (51, 83, 5)
    """
    small = sum(size <= largest for size in (1, 2, 4))
    return small + max(0, min(largest, 255) // 8) + (max(0, largest - 256) // 16 + 1 if largest >= 256 else 0)


def _together(*widths: float) -> float:
    """Doubts that have nothing to do with one another, each as a factor.

    >>> _together(1.0, 3.0, 1.0), round(_together(1.5, 3.0, 1.5), 2)
    (3.0, 3.39)
    """
    return math.sqrt(1 + sum(width * width - 1 for width in widths))


def _device_width(accelerator: Accelerator) -> float:
    """The constants are of Hopper; other devices take other kernels."""
    if (accelerator.architecture or "").lower() == "hopper":
        return 1.0
    return 1.5 if (accelerator.vendor or "NVIDIA").upper() == "NVIDIA" else 2.5


def _blocks(stages: Sequence[_Stage], pages: Pages) -> _Blocks:
    """Every stage gets as many as the one that has the fewest."""

    def fitting(pool: float, size: float) -> int:
        return max(0, int(pool // size)) if size else NO_LIMIT

    pairs = list(zip(stages, pages.block_bytes, strict=True))
    likely = [fitting(stage.pool, size) for stage, size in pairs]
    low = min(fitting(stage.pool - stage.less, size) for stage, size in pairs)
    high = min(fitting(stage.pool + stage.more, size) for stage, size in pairs)
    return _Blocks(min(likely), low, high, likely.index(min(likely)))


def _numbered(stages: Sequence[_Stage], pages: Pages) -> enumerate[tuple[_Stage, float]]:
    return enumerate(zip(stages, pages.block_bytes, strict=True))


def _rank(case: Case, stage: _Stage, size: float, pages: Pages, blocks: _Blocks, number: int) -> RankMemory:
    """Of what the driver shows, its own context is not for the engine; the graphs of old versions come on top."""
    context = case.profile.value("context_gib")
    taken = context[0] + (context[1] if case.ranks.devices > 1 else 0.0)
    formula = f"{blocks.likely:,} blocks of {size:,.0f} B in {len(pages.groups)} group(s) of {pages.block_size} tokens"
    held = [round(count * size) if size else 0 for count in blocks[:3]]
    pool = Term(bytes=held[0], low=held[1], high=held[2], basis="formula", formula=formula)
    terms: dict[TermName, Term] = {**stage.terms, "kv_cache": pool}
    total, slack = sum(term.bytes for term in terms.values()), case.visible.tolerance * case.visible.bytes
    graph = terms.get("graph") or Term.exact(0, "none")
    later = LATER_BYTES if any(kind.experts is not None for kind in case.shape.kinds) else 0.0
    return RankMemory.of(
        f"pp{number}",
        terms,
        ranks=case.ranks.devices // case.ranks.pp,
        low_bytes=max(0, round(total - (graph.bytes - graph.low) - slack)),
        high_bytes=round(total + max(graph.high - graph.bytes, later) + slack),
        available_bytes=round(case.visible.bytes - taken * GIB),
    )


def _binding(rank: RankMemory) -> str:
    """Of the stage that has the least room, what takes most beside the pool."""
    name, term = max(
        ((name, term) for name, term in rank.terms.items() if name != "kv_cache"), key=lambda pair: pair[1].bytes
    )
    return f"{rank.rank}: {name} takes {format_bytes(term.bytes)} of {format_bytes(rank.total_bytes)}"
