"""Does it fit, what leaves no more room, and what would make it fit: each remedy computed again, none guessed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, get_args

from servolt.deployment import Deployment, Hardware
from servolt.document import Problem
from servolt.errors import InvalidInputError
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.model.quantization import requantized
from servolt.plan.memory.budget import Budget
from servolt.plan.memory.emulate import budget_of as recompute
from servolt.plan.memory.sharding import ranks_of
from servolt.plan.room import (
    LEAST_CONTEXT,
    BudgetOf,
    best_quantization,
    largest_max_model_len,
    largest_that,
    lower_formats,
)
from servolt.plan.validation import problems_of
from servolt.plan.verdict import Fix, Verdict, verdict_of

__all__ = ["default_problem", "fixes_of", "spill_problem"]

Change = dict[str, str | int | float | bool]

# What is given up for a change, cheapest first.
Cost = Literal[
    "nothing",
    "concurrency",
    "prefill speed",
    "precision of the cache",
    "context",
    "speed",
    "quality",
    "devices",
    "most of the speed",  # each step waits for what it reads over the bus
]
COSTS: tuple[Cost, ...] = get_args(Cost)

# vLLM's share of a card that its users raise it to: above it, context and graphs find no room.
RAISED_UTILIZATION = 0.95
VLLM_UTILIZATION, LEAST_UTILIZATION = 0.9, 0.5
RAISED_FRACTION = 0.93
FEWER_REQUESTS = (256, 64, 16, 4, 1)
SMALL_STEP = 2048
SMALL_PASS = 256
MOST_DEVICES = 65536
MOST_LLAMACPP_DEVICES = 16  # ggml-cuda.h GGML_CUDA_MAX_DEVICES
MORE_DEVICES = (2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
SMALLER_KV = {"vllm": "fp8", "sglang": "fp8_e4m3", "tensorrt_llm": "fp8", "llamacpp": "q8_0", "ik_llamacpp": "q8_0"}
GPU_POOLS = ("vllm", "sglang", "tensorrt_llm")
LLAMACPP = ("llamacpp", "ik_llamacpp")
ON_HOST = frozenset({"n_gpu_layers", "n_cpu_moe"})


def default_problem(deployment: Deployment, budget: Budget, needed: Mapping[str, int]) -> Problem:
    """Why it is tight, where the workload's requests fit and what the engine takes by default doesn't."""
    own = {"max_model_len": budget.max_model_len, "max_num_seqs": budget.max_num_seqs}
    said = " and ".join(f"{name} of {own[name]:,}" for name in needed)
    then = " vLLM does not start so." if deployment.engine == "vllm" else ""
    return Problem(
        code="default_too_large",
        severity="warning",
        message=f"The default {said} does not fit; what this workload needs does.{then}",
        remedy=f"Set {' and '.join(f'{name} to {size} or more' for name, size in needed.items())}; "
        "the fixes say how much fits.",
    )


def spill_problem(deployment: Deployment, fixes: Sequence[Fix]) -> Problem | None:
    """llama.cpp keeps on the host what devices have no room for, unless it is told how many layers they take.

    None where it is told, or where that does not help. What is free on the host is often not known.
    """
    told = (deployment.n_gpu_layers, deployment.n_cpu_moe, deployment.override_tensor)
    if deployment.engine not in LLAMACPP or any(one is not None for one in told):
        return None
    helping = [fix for fix in fixes if fix.verdict in ("fits", "tight") and fix.change.keys() & ON_HOST]
    if not helping:
        return None
    said = " or ".join(f"{name} to {value}" for fix in helping for name, value in fix.change.items())
    return Problem(
        code="spills_to_host",
        severity="warning",
        message="Not all layers fit the device: part of the weights, and its part of each step, is the host's.",
        remedy=f"Set {said}, or take another of the fixes; see that the host has room for the rest.",
    )


def fixes_of(
    deployment: Deployment,
    model: Model,
    accelerator: Accelerator,
    budget: Budget,
    budget_of: BudgetOf = recompute,
) -> tuple[Fix, ...]:
    """Single changes, the cheapest of those that make it fit first. None where it fits, or free is not known."""
    if verdict_of(budget) == "fits" or all(rank.available_bytes is None for rank in budget.per_rank):
        return ()
    changes = list(_changes(deployment, model, accelerator, budget, budget_of))
    found = _fixes(deployment, model, accelerator, budget, budget_of, changes)
    if not any(fix.verdict == "fits" for _, fix in found):
        more = list(_combined(deployment, model, accelerator, budget_of, changes))
        found += _fixes(deployment, model, accelerator, budget, budget_of, more)
    order: tuple[Verdict, ...] = ("fits", "tight", "no", "unknown")
    now = order.index(verdict_of(budget))
    helpful = [
        (cost, fix)
        for cost, fix in found
        if order.index(fix.verdict) < now or fix.saved_bytes > 0 or _grows(fix, budget)
    ]
    return tuple(fix for _, fix in sorted(helpful, key=lambda pair: (order.index(pair[1].verdict), pair[0])))


def _fixes(
    deployment: Deployment,
    model: Model,
    accelerator: Accelerator,
    budget: Budget,
    budget_of: BudgetOf,
    changes: list[tuple[Cost, Change]],
) -> list[tuple[int, Fix]]:
    found = []
    for cost, change in changes:
        fix = _computed(deployment, model, accelerator, budget, budget_of, cost, change)
        if fix is not None:
            found.append((COSTS.index(cost), fix))
    return found


def _grows(fix: Fix, budget: Budget) -> bool:
    return budget.pooled and (fix.max_concurrency or 0) > budget.max_concurrency


def _changes(
    deployment: Deployment, model: Model, accelerator: Accelerator, budget: Budget, budget_of: BudgetOf
) -> Iterator[tuple[Cost, Change]]:
    engine = deployment.engine
    if engine == "vllm":
        yield from _utilization(deployment, budget)
    if engine == "tensorrt_llm" and (deployment.free_gpu_memory_fraction or 0.9) < RAISED_FRACTION:
        yield "nothing", {"free_gpu_memory_fraction": RAISED_FRACTION}
    fewer = _fewer_requests(deployment, model, accelerator, budget, budget_of)
    if fewer:
        yield "concurrency", {"max_num_seqs": fewer}
    if engine in LLAMACPP and (deployment.ubatch_size or 512) > SMALL_PASS:
        yield "prefill speed", {"ubatch_size": SMALL_PASS}
    if engine in GPU_POOLS and budget.max_num_batched_tokens > SMALL_STEP:
        yield "prefill speed", {"max_num_batched_tokens": SMALL_STEP}
    if engine in SMALLER_KV and deployment.kv_cache_dtype in (None, "auto", "f16", "bf16", "float16", "bfloat16"):
        yield "precision of the cache", {"kv_cache_dtype": SMALLER_KV[engine]}
    shorter = largest_max_model_len(deployment, model, accelerator, budget_of, most=budget.max_model_len - 1)
    if shorter is not None and shorter >= LEAST_CONTEXT:
        yield "context", {"max_model_len": shorter}
    if engine == "vllm" and not deployment.enforce_eager:
        yield "speed", {"enforce_eager": True}
    lower = lower_formats(deployment, model, accelerator)
    if lower:
        best = best_quantization(deployment, model, accelerator, budget_of)
        yield "quality", {"quantization": best or lower[-1]}
    yield from _on_host(deployment, model, accelerator, budget, budget_of)
    yield from _more_devices(deployment, model, accelerator, budget_of)


def _utilization(deployment: Deployment, budget: Budget) -> Iterator[tuple[Cost, Change]]:
    """More for a pool that is too small; less where what comes beside the share, such as graphs, finds no room."""
    asked = deployment.gpu_memory_utilization or VLLM_UTILIZATION
    rank = budget.fullest
    over = rank.high_bytes - (rank.available_bytes or rank.high_bytes)
    if over > 0:
        lowered = int(100 * (asked - over / max(1, rank.available_bytes or 1))) / 100
        if lowered >= LEAST_UTILIZATION:
            yield "nothing", {"gpu_memory_utilization": lowered}
    elif asked < RAISED_UTILIZATION:
        yield "nothing", {"gpu_memory_utilization": RAISED_UTILIZATION}


def _fewer_requests(
    deployment: Deployment, model: Model, accelerator: Accelerator, budget: Budget, budget_of: BudgetOf
) -> int | None:
    """The most of a few usual numbers with which it fits, else the fewest."""
    smaller = [number for number in FEWER_REQUESTS if number < budget.max_num_seqs]
    for number in smaller:
        if _verdict(deployment.model_copy(update={"max_num_seqs": number}), model, accelerator, budget_of) == "fits":
            return number
    return smaller[-1] if smaller else None


def _on_host(
    deployment: Deployment, model: Model, accelerator: Accelerator, budget: Budget, budget_of: BudgetOf
) -> Iterator[tuple[Cost, Change]]:
    """Weights that move to the host: experts first, since few of them are read for a token."""
    if accelerator.kind == "cpu":
        return
    if deployment.engine in LLAMACPP:
        layers = len(model.layer_order) or model.num_layers
        has_experts = any(kind.experts is not None for kind in model.layers)
        if has_experts and deployment.override_tensor is None:
            kept = largest_that(
                lambda on_device: (
                    _verdict(
                        deployment.model_copy(update={"n_cpu_moe": layers - on_device}), model, accelerator, budget_of
                    )
                    == "fits"
                ),
                0,
                layers - 1,
            )
            if kept is not None:
                yield "speed", {"n_cpu_moe": layers - kept}
        placed = largest_that(
            lambda count: (
                _verdict(deployment.model_copy(update={"n_gpu_layers": count}), model, accelerator, budget_of) == "fits"
            ),
            1,  # with none no device is planned
            layers,
        )
        if placed is not None and (deployment.n_gpu_layers is None or placed != deployment.n_gpu_layers):
            yield "most of the speed", {"n_gpu_layers": placed}
    elif deployment.engine in ("vllm", "sglang"):
        missing = (budget.fullest.high_bytes - (budget.fullest.available_bytes or 0)) / 2**30
        for size in (4, 8, 16, 32, 64):
            if size > max(0.0, missing) and size * 2**30 < budget.fullest.weights_bytes:
                wanted: Change = {"cpu_offload_gb": float(size)}
                if _verdict(deployment.model_copy(update=wanted), model, accelerator, budget_of) == "fits":
                    yield "most of the speed", wanted
                    return


def _more_devices(
    deployment: Deployment, model: Model, accelerator: Accelerator, budget_of: BudgetOf
) -> Iterator[tuple[Cost, Change]]:
    """The fewest with which it fits, else may fit; else the most that were tried."""
    if accelerator.kind == "cpu" or accelerator.unified_memory:
        return
    own = deployment.hardware or Hardware(accelerator=accelerator.name, count=accelerator.count)
    ranks = ranks_of(deployment)
    tried: dict[str, Change] = {}
    most = MOST_LLAMACPP_DEVICES if deployment.engine in LLAMACPP else MOST_DEVICES
    for count in (own.count * times for times in MORE_DEVICES if own.count * times <= most):
        said: Change = {"hardware.count": count}
        if deployment.engine in GPU_POOLS:
            said = {"tensor_parallel_size": max(1, count // (ranks.pp * ranks.dp)), **said}
        other = _changed(deployment, accelerator, said)
        if any(problem.severity == "error" for problem in problems_of(other, model, accelerator)):
            continue
        budget = budget_of(other, model, accelerator)
        verdict = verdict_of(budget)
        if verdict == "fits":
            yield "devices", said
            return
        tried.setdefault("holds a request" if verdict == "no" and budget.max_concurrency >= 1 else verdict, said)
        tried["last"] = said
    best = next((tried[name] for name in ("tight", "holds a request", "last") if name in tried), None)
    if best is not None:
        yield "devices", best


def _combined(
    deployment: Deployment,
    model: Model,
    accelerator: Accelerator,
    budget_of: BudgetOf,
    changes: list[tuple[Cost, Change]],
) -> Iterator[tuple[Cost, Change]]:
    """Where no single change is enough: fewer bits or more devices, without graphs, with a context that then fits."""
    for cost, change in changes:
        if cost not in ("quality", "devices"):
            continue
        smaller = requantized(model, str(change["quantization"])) if "quantization" in change else model
        for base in (change, {**change, "enforce_eager": True}):
            length = largest_max_model_len(_changed(deployment, accelerator, base), smaller, accelerator, budget_of)
            if length is not None and length >= LEAST_CONTEXT:
                yield cost, {**base, "max_model_len": length}
                break
            if deployment.engine != "vllm":
                break


def _changed(deployment: Deployment, accelerator: Accelerator, change: Change) -> Deployment:
    """Without the weights, which are the model's."""
    fields: dict[str, object] = {name: value for name, value in change.items() if name in Deployment.model_fields}
    fields.pop("quantization", None)
    if "hardware.count" in change:
        own = deployment.hardware or Hardware(accelerator=accelerator.name)
        fields["hardware"] = own.model_copy(update={"count": change["hardware.count"]})
    return deployment.model_copy(update=fields)


def _verdict(deployment: Deployment, model: Model, accelerator: Accelerator, budget_of: BudgetOf) -> Verdict:
    return verdict_of(budget_of(deployment, model, accelerator))


def _computed(
    deployment: Deployment,
    model: Model,
    accelerator: Accelerator,
    budget: Budget,
    budget_of: BudgetOf,
    cost: Cost,
    change: Change,
) -> Fix | None:
    """None where the changed deployment can't be planned."""
    other_model = requantized(model, str(change["quantization"])) if "quantization" in change else model
    try:
        changed = budget_of(_changed(deployment, accelerator, change), other_model, accelerator)
    except InvalidInputError:
        return None
    return Fix(
        change=change,
        cost=cost,
        verdict=verdict_of(changed),
        total_bytes=changed.total_bytes,
        saved_bytes=budget.total_bytes - changed.total_bytes,
        max_concurrency=changed.max_concurrency,
    )
