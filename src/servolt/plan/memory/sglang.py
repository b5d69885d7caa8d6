"""What SGLang takes of each device, and how many tokens its pools then hold.

A reserve by formula stays free for activations and graphs; the rest of what was free before loading, less the weights,
is the pool. Source: sglang 0.5.15 sglang/srt/model_executor/pool_configurator.py and model_runner_kv_cache_mixin.py.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from servolt.deployment import Deployment
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.model.layers import ATTENTION_KINDS, RECURRENT_KINDS
from servolt.plan.memory.budget import Budget, RankMemory, Term, TermName
from servolt.plan.memory.case import Case, case_of
from servolt.plan.memory.kv import state_bytes
from servolt.plan.memory.loading import loaded_extra
from servolt.plan.memory.profiles import Profile
from servolt.plan.memory.ranks import binding_of
from servolt.plan.memory.settings import argument, has_fast_link
from servolt.plan.memory.sglang_reserve import Reserve, reserve_of
from servolt.plan.memory.sharding import GIB, StageWeights, weights_of_rank
from servolt.plan.memory.terms import Known, around, bytes_of, measured, spread, weights_term

__all__ = ["sglang_budget"]

AITER_PARTITION = 256  # tokens
REQUESTS_PER_LENGTH = 512  # that may run for each that fits at full length
NO_LIMIT = 2**31 - 1  # tokens of a stage that keeps nothing of them

# What the engine takes of a device before its pool, beside the weights, was seen off by this; by more with a group.
POOL_TOLERANCE_BYTES, GROUP_TOLERANCE_BYTES = 0.15 * GIB, 0.9 * GIB

# Activations and graphs seldom fill what is reserved for them: 1.8 of 4.6 GiB in a log of Qwen3-14B on 4 cards of
# 24 GiB.
RESERVE_USED, RESERVE_LESS, RESERVE_MORE = 0.4, 0.25, 0.4


class _Layers(NamedTuple):
    """Bytes of one stage: for a token of layers that keep all, of sliding ones, and of one slot of state; what the
    attention's workspace takes for each request that runs.
    """

    full: float
    sliding: float
    slot: float
    workspace: float


class _Pools(NamedTuple):
    """Of one rank. `tokens` are those of the full pool, or of the only one."""

    tokens: int
    kv_bytes: float = 0.0
    state_bytes: float = 0.0
    slots: int = 0


class _Stage(NamedTuple):
    terms: dict[TermName, Term]
    likely: _Pools
    low: _Pools
    high: _Pools


def sglang_budget(
    deployment: Deployment, model: Model, accelerator: Accelerator, profile: Profile, known: Known
) -> Budget:
    case = case_of(deployment, model, accelerator, profile, known)
    outside: Mapping[str, float] = profile.value("context_gib")
    group = outside["group"] if case.ranks.tp > 1 and has_fast_link(accelerator) else 0.0
    free = case.visible.bytes - (outside["taken"] + group) * GIB
    reserve = reserve_of(case, case.visible.bytes + outside["above_torch"] * GIB)
    room = free * reserve.fraction - outside["loading"] * GIB
    weights = weights_of_rank(model, deployment)
    stages = [_stage(case, reserve, stage, room, number) for number, stage in enumerate(weights)]
    return _budget(case, reserve, weights, stages, free)


def _budget(
    case: Case, reserve: Reserve, weights: Sequence[StageWeights], stages: Sequence[_Stage], free: float
) -> Budget:
    likely = min((stage.likely for stage in stages), key=lambda pools: pools.tokens)
    low = math.floor(min(stage.low.tokens for stage in stages) * (1 - case.shape.tolerance))
    high = math.ceil(min(stage.high.tokens for stage in stages) * (1 + case.shape.tolerance))
    running = _running(case, likely)
    per_rank = tuple(_rank(case, stage, free, number) for number, stage in enumerate(stages))
    return Budget(
        per_rank=per_rank,
        pooled=True,
        kv_bytes_per_token=case.token_bytes(weights),
        kv_cache_tokens=likely.tokens,
        kv_cache_tokens_low=low,
        kv_cache_tokens_high=high,
        max_concurrency=min(likely.tokens / case.context, running),
        max_concurrency_low=min(low / case.context, running),
        max_concurrency_high=min(high / case.context, running),
        max_model_len=case.context,
        max_num_seqs=running,
        max_num_batched_tokens=reserve.step,
        binding=binding_of(per_rank),
        notes=case.notes,
    )


def _stage(case: Case, reserve: Reserve, weights: StageWeights, room: float, number: int) -> _Stage:
    """The log that `known` was read from is that of the first stage."""
    known: Known = case.known if number == 0 else {}
    terms = _terms(case, reserve, weights, known)
    layers, loaded = _layers(case, weights), terms["weights"]
    slack = case.profile.width * (GROUP_TOLERANCE_BYTES if case.ranks.tp > 1 else POOL_TOLERANCE_BYTES)
    unsure = case.visible.tolerance * case.visible.bytes
    left = room - loaded.bytes
    less, more = (spread([side, slack, unsure]) for side in (loaded.high - loaded.bytes, loaded.bytes - loaded.low))
    if "kv_cache" in known:
        left = bytes_of(known["kv_cache"]) + (bytes_of(known["state"]) if "state" in known else 0.0)
        pool = measured(known["kv_cache"])
        less, more = pool.bytes - pool.low, pool.high - pool.bytes
    return _Stage(
        terms, _pools(case, layers, left), _pools(case, layers, left - less), _pools(case, layers, left + more)
    )


def _terms(case: Case, reserve: Reserve, weights: StageWeights, known: Known) -> dict[TermName, Term]:
    kinds = [case.shape.kinds[kind] for kind in case.shape.order[weights.start : weights.end]]
    extra = loaded_extra(case.model, case.ranks, case.accelerator, weights, kinds, case.dtype, absorbs=True)
    terms: dict[TermName, Term] = {
        "weights": weights_term(case.model, weights, extra),
        "activation": _of_reserve(reserve.activation_bytes, f"of the reserve for {reserve.step:,} tokens"),
    }
    if reserve.graph_bytes:
        terms["graph"] = _of_reserve(reserve.graph_bytes, f"of the reserve for batches up to {reserve.graph_batch}")
    terms.update({name: measured(known[name]) for name in terms if name in known})
    return terms


def _of_reserve(size: float, formula: str) -> Term:
    return around(size * RESERVE_USED, size * RESERVE_LESS, size * RESERVE_MORE, formula)


def _layers(case: Case, weights: StageWeights) -> _Layers:
    state_dtype, sizes = case.state_dtype("mamba_ssm_dtype"), case.token_sizes
    full = sliding = slot = 0.0
    here = case.shape.order[weights.start : weights.end]
    for index, kind in enumerate(case.shape.kinds):
        count = here.count(index)
        if kind.mixer in ("sliding", "chunked") and kind.window:
            sliding += count * sizes[index]
        else:
            full += count * sizes[index]
        if kind.mixer in RECURRENT_KINDS:
            slot += count * state_bytes(kind, tp=case.ranks.attention_tp, dtype=case.dtype, state_dtype=state_dtype)
    if case.draft_layers:
        keeping = sum(case.shape.kinds[index].mixer in ATTENTION_KINDS for index in here)
        full += case.draft_layers * (full + sliding) / max(keeping, 1)
    return _Layers(full, sliding, slot, _workspace(case))


def _workspace(case: Case) -> float:
    """AITER, on AMD: partial results in float32 for each part of 256 tokens of the longest context, for each request.

    Qwen3-30B-A3B at 262,144 tokens: 3,261 requests x 32 heads x 1,024 parts x (128 x 4 + 8) B = 51.75 GiB, as logged
    (sglang 0.5.15 sglang/srt/layers/attention/aiter_backend.py).
    """
    if case.accelerator.vendor != "AMD":
        return 0.0
    kinds = [kind for kind in case.shape.kinds if kind.mixer in ("full", "sliding", "chunked")]
    widest = max((kind.num_heads * (4 * kind.head_dim_v + 8) for kind in kinds), default=0)
    return widest / case.ranks.attention_tp * -(-case.context // AITER_PARTITION)


def _pools(case: Case, layers: _Layers, room: float) -> _Pools:
    room, slots = _states(case, layers, max(room, 0.0))
    asked = argument(case.deployment, "max_total_tokens")
    most = int(asked) if isinstance(asked, int | float) else NO_LIMIT
    if not layers.full and not layers.sliding:
        return _Pools(most, 0.0, slots * layers.slot, slots)
    # Where every layer slides there is one pool; else that of sliding layers has a share of the other's tokens.
    ratio = case.deployment.swa_full_tokens_ratio or case.profile.number("swa_full_tokens_ratio")
    ratio = ratio if layers.full else 1.0
    each = layers.full + ratio * layers.sliding
    tokens = min(int(_without_workspace(case, layers, each, room) // each), most)
    held = tokens * layers.full + int(tokens * ratio) * layers.sliding
    return _Pools(tokens, held, slots * layers.slot, slots)


def _without_workspace(case: Case, layers: _Layers, each: float, room: float) -> float:
    """What the workspace leaves, which grows with the requests that run, which grow with the tokens."""
    if not layers.workspace:
        return room
    if case.deployment.max_num_seqs:
        return max(0.0, room - case.deployment.max_num_seqs * layers.workspace)
    per_token = REQUESTS_PER_LENGTH / case.context
    running = room / (each + layers.workspace * per_token) * per_token
    return max(0.0, room - _within_limits(case, running) * layers.workspace)


def _within_limits(case: Case, running: float) -> float:
    """By default between 2,048 and 4,096 requests."""
    most = case.profile.number("max_running_requests")
    return max(min(running, most), most / 2)


def _states(case: Case, layers: _Layers, room: float) -> tuple[float, int]:
    """What recurrent layers leave to the others, and how many slots they have.

    Speculation keeps the state after each drafted token for every request that runs.
    """
    if not layers.slot:
        return room, 0
    deployment, per_request = case.deployment, _slots_per_request(case)
    drafted = case.drafted + 1 if case.drafted else 0
    asked = argument(deployment, "max_mamba_cache_size")
    if isinstance(asked, int | float):
        slots = int(asked)
    elif deployment.enable_prefix_caching is False and deployment.max_num_seqs:
        slots = deployment.max_num_seqs
    else:
        ratio = case.profile.number("mamba_full_memory_ratio")
        slots = int(room * ratio / (1 + ratio) // (layers.slot * (1 + drafted / per_request)))
    running = min(deployment.max_num_seqs or slots, slots // per_request)
    return max(0.0, room - layers.slot * (slots + running * drafted)), slots


def _slots_per_request(case: Case) -> int:
    return 1 if case.deployment.enable_prefix_caching is False else int(case.profile.number("states_per_request"))


def _running(case: Case, pools: _Pools) -> int:
    """Requests at the same time: by default 512 for each that would fit at full length.

    Slots of recurrent state clamp it without a word.
    """
    default = _within_limits(case, pools.tokens * REQUESTS_PER_LENGTH / case.context)
    running = min(case.deployment.max_num_seqs or int(default), pools.tokens // 2)
    if pools.slots:
        running = min(running, pools.slots // _slots_per_request(case))
    return max(running, 0)


def _rank(case: Case, stage: _Stage, free: float, number: int) -> RankMemory:
    likely, low, high = stage.likely, stage.low, stage.high
    taken = case.visible.bytes - free
    terms: dict[TermName, Term] = {
        **stage.terms,
        "kv_cache": _between(likely.kv_bytes, low.kv_bytes, high.kv_bytes, f"{likely.tokens:,} tokens"),
        "overhead": around(taken, 0.1 * GIB, 0.3 * GIB, "driver and libraries, before loading"),
    }
    if likely.slots:
        terms["state"] = _between(likely.state_bytes, low.state_bytes, high.state_bytes, f"{likely.slots:,} slots")
    total = sum(term.bytes for term in terms.values())
    soft = [terms[name] for name in ("activation", "graph", "overhead") if name in terms]
    return RankMemory.of(
        f"pp{number}",
        terms,
        ranks=case.ranks.devices // case.ranks.pp,
        low_bytes=max(0, round(total - spread(term.bytes - term.low for term in soft))),
        high_bytes=round(total + spread(term.high - term.bytes for term in soft)),
        available_bytes=round(case.visible.bytes),
    )


def _between(size: float, low: float, high: float, formula: str) -> Term:
    return Term(
        bytes=round(size), low=round(min(low, size)), high=round(max(high, size)), basis="formula", formula=formula
    )
