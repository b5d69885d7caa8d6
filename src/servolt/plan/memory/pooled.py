"""An engine of which nothing is known but that it gives what is left of a device to keys and values."""

from servolt.deployment import Deployment
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.model.layers import RECURRENT_KINDS
from servolt.plan.memory.budget import Budget, Term, TermName
from servolt.plan.memory.case import Case, case_of
from servolt.plan.memory.kv import dtype_bytes, state_bytes
from servolt.plan.memory.pools import Asked, Pool, Stage, budget_of_pools, left_of
from servolt.plan.memory.profiles import Profile
from servolt.plan.memory.sharding import GIB, StageWeights, weights_of_rank
from servolt.plan.memory.terms import Known, around, measured, weights_term

__all__ = ["pooled_budget"]

# Engines leave 8 to 15 % of a device free unless told otherwise; their defaults for a step are alike too.
SHARE, SHARE_TOLERANCE = 0.9, 0.05
STEP_TOKENS, REQUESTS = 8192, 256
OVERHEAD_BYTES = 1.0 * GIB
# Where none of these is said, such engines use all devices that there are.
PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")


def pooled_budget(
    deployment: Deployment, model: Model, accelerator: Accelerator, profile: Profile, known: Known
) -> Budget:
    devices = accelerator.count if accelerator.kind != "cpu" else 1
    if devices > 1 and not any(getattr(deployment, name) for name in PARALLEL):
        deployment = deployment.model_copy(update={"tensor_parallel_size": devices})
    case = case_of(deployment, model, accelerator, profile, known)
    asked = Asked(
        context=case.context,
        requests=deployment.max_num_seqs or REQUESTS,
        tokens=deployment.max_num_batched_tokens or min(STEP_TOKENS, case.context),
        block=1,
        available_bytes=case.visible.bytes,
        ranks=case.ranks.devices // case.ranks.pp,
        tolerance=case.shape.tolerance,
    )
    weights = weights_of_rank(model, deployment)
    stages = [_stage(case, asked, stage, number) for number, stage in enumerate(weights)]
    notes = (f"Taken as spread evenly over {devices} devices.",) if case.ranks.tp == devices > 1 else ()
    return budget_of_pools(stages, asked, (*case.notes, *notes))


def _stage(case: Case, asked: Asked, weights: StageWeights, number: int) -> Stage:
    sizes, here = case.token_sizes, case.shape.order[weights.start : weights.end]
    terms, known = _terms(case, asked, weights), case.known if number == 0 else {}
    terms.update({name: measured(known[name]) for name in terms if name in known})
    share = case.deployment.gpu_memory_utilization or case.deployment.free_gpu_memory_fraction
    unsure = case.visible.bytes * (case.visible.tolerance + (0 if share else SHARE_TOLERANCE))
    pool = left_of(case.visible.bytes * (share or SHARE), unsure, 1.0, terms)
    if "kv_cache" in known:
        given = measured(known["kv_cache"])
        pool = Pool(given.bytes, given.low, given.high)
    each = sum(sizes[kind] for kind in here)
    return Stage(terms, pool, each, each * case.context)


def _terms(case: Case, asked: Asked, weights: StageWeights) -> dict[TermName, Term]:
    model, width = case.model, dtype_bytes(case.dtype)
    logits = asked.requests * model.vocab_size * 12.0 if weights.end == len(case.shape.order) else 0.0
    widest = 6.0 * model.hidden_size + 3.0 * model.intermediate_size / case.ranks.tp
    scratch = max(logits, asked.tokens * width * widest)
    slot = asked.requests * sum(_state(case, kind) for kind in case.shape.order[weights.start : weights.end])
    terms: dict[TermName, Term] = {
        "weights": weights_term(model, weights),
        "activation": around(scratch, scratch * 0.6, scratch * 1.5, f"a step of {asked.tokens:,} tokens"),
        "overhead": around(OVERHEAD_BYTES, 0.7 * OVERHEAD_BYTES, 1.5 * OVERHEAD_BYTES, "driver and libraries"),
    }
    if slot:
        terms["state"] = around(slot, 0.9 * slot, 0.0, f"{asked.requests} slots")
    return terms


def _state(case: Case, index: int) -> float:
    kind = case.shape.kinds[index]
    if kind.mixer not in RECURRENT_KINDS:
        return 0.0
    return state_bytes(kind, tp=case.ranks.attention_tp, dtype=case.dtype)
