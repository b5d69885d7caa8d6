"""The plan of a deployment on this machine's processor, by the law of its steps."""

import math
from collections.abc import Callable, Mapping, Sequence

from servolt.command import Command
from servolt.deployment import Deployment
from servolt.document import Problem
from servolt.gpu import Accelerator
from servolt.metrics import METRICS, Basis, Estimate
from servolt.model import Model
from servolt.plan.calibration import Calibration, Correction, constants_for, correction
from servolt.plan.estimates import Z90, Raw, law_for, raw_estimates, threads_of
from servolt.plan.kv_cache import Bound, bounds_of
from servolt.plan.memory import Memory, host_budgets, memory_of
from servolt.plan.plan import Plan, StepTerm, figures_of
from servolt.plan.remedies import fixes_of
from servolt.plan.speed import Constants, Term
from servolt.plan.verdict import binding_of, reasons_of, verdict_of
from servolt.workload import LoadPoint, Workload

__all__ = ["make_plan"]

LEVEL = 0.9  # of all intervals: nine of ten measurements are meant to lie within
OWN_FORMULAS = ("llamacpp", "replay")  # whose memory and steps are known; any other is planned as llama.cpp
BOUNDS: Mapping[Bound, str] = {
    "sliding_window": "some layers keep a window of the context only",
    "layers_differ": "the layers keep different numbers of heads",
    "latent_attention": "keys and values share a latent, which engines keep in different ways",
    "recurrent_state": "layers that keep a state in place of keys and values are counted with both",
}


def make_plan(
    deployment: Deployment,
    model: Model,
    accelerator: Accelerator,
    workload: Workload,
    calibration: Calibration | None = None,
    *,
    overhead: Callable[[Deployment], int],
    engine_version: str | None = None,
    command: Command | None = None,
    problems: Sequence[Problem] = (),
) -> Plan:
    """Arithmetic only. `overhead` (bytes of the process), `command` and `problems` are what the engine's adapter says.

    Raises InvalidInputError for a KV data type whose size is not known.
    """
    known = calibration or Calibration()
    free = accelerator.available_bytes
    memory = memory_of(deployment, model, overhead_bytes=overhead(deployment), available_bytes=free)
    budget_of = host_budgets(overhead)
    budget = budget_of(deployment, model, accelerator)
    verdict = verdict_of(budget)
    constants = constants_for(known, deployment, accelerator, engine_version)
    raws = raw_estimates(deployment, model, accelerator, workload, constants, memory)
    corrections = [correction(known, raw, deployment, model, accelerator, workload, engine_version) for raw in raws]
    estimates = tuple(_estimate(*pair, constants) for pair in zip(raws, corrections, strict=True))
    step = _step(deployment, model, accelerator, workload, constants, memory)
    return Plan(
        deployment=deployment,
        deployment_digest=deployment.digest,
        engine_version=engine_version,
        model=model,
        accelerator=accelerator,
        workload=workload,
        workload_digest=workload.digest,
        threads=threads_of(deployment, accelerator),
        memory=budget,
        verdict=verdict,
        binding=binding_of(budget),
        reasons=reasons_of(budget),
        fixes=fixes_of(deployment, model, accelerator, budget, budget_of),
        predictions=figures_of(estimates),
        estimates=estimates,
        step=step,
        bottleneck=max(step, key=lambda term: term.seconds).name,
        calibration=_in_words(constants, raws, corrections),
        basis=_weakest(estimates),
        command=command,
        problems=(*problems, *_warnings(deployment, model, workload, memory, accelerator, constants)),
    )


def _estimate(raw: Raw, found: Correction, constants: Constants) -> Estimate:
    unit, point = METRICS[raw.metric].unit, raw.point
    common = {"metric": raw.metric, "statistic": raw.statistic, "unit": unit, "concurrency": point.concurrency}
    basis = _basis(raw, found, constants)
    if raw.value is None:
        return Estimate(**common, request_rate=point.request_rate, value=None, basis=basis, reason=raw.reason)
    value = raw.value * math.exp(found.log_shift)
    factor = math.exp(Z90 * found.spread)
    return Estimate(
        **common,
        request_rate=point.request_rate,
        value=value,
        low=value / factor,
        high=value * factor,
        basis=basis,
        level=LEVEL,
        method="log-normal: spread of the constants, of unprobed shapes and of runs, less what measurements settled",
        n=found.values,
        reason=_rests_on(raw, found, constants),
    )


def _basis(raw: Raw, found: Correction, constants: Constants) -> Basis:
    if found.at_this_point:
        return "measured"
    calibrated = constants.accelerator is not None and raw.metric != "resident_memory"
    return "calibrated" if calibrated or found.values else "formula"


def _rests_on(raw: Raw, found: Correction, constants: Constants) -> str:
    formula = "header and the engine's rules" if raw.metric == "resident_memory" else constants.source
    if not found.values:
        return formula
    return f"{formula}; {found.values} earlier values of this metric, {found.at_this_point} at this very point"


def _weakest(estimates: Sequence[Estimate]) -> Basis:
    order: tuple[Basis, ...] = ("formula", "calibrated", "measured")
    speeds = [estimate.basis for estimate in estimates if estimate.metric != "resident_memory"]
    return min(speeds, key=order.index)


def _in_words(constants: Constants, raws: Sequence[Raw], corrections: Sequence[Correction]) -> str:
    speeds = [found for raw, found in zip(raws, corrections, strict=True) if raw.metric != "resident_memory"]
    here = max(found.at_this_point for found in corrections)
    count = len(frozenset().union(*(found.measurements for found in speeds)))
    if not count:
        return constants.source
    own = f", {here} of this deployment at this workload" if here else ""
    many = f"{count} measurement" if count == 1 else f"{count} measurements"
    return f"{constants.source}; corrected by {many}{own}"


def _step(
    deployment: Deployment,
    model: Model,
    accelerator: Accelerator,
    workload: Workload,
    constants: Constants,
    memory: Memory,
) -> tuple[StepTerm, ...]:
    law = law_for(deployment, model, accelerator, constants, memory)
    sequences = min(workload.points[0].concurrency or 1, memory.max_num_seqs)
    terms: tuple[Term, ...] = law.decode_terms(sequences, workload.input_len + workload.output_len / 2)
    total = sum(term.seconds for term in terms)
    return tuple(
        StepTerm(name=term.name, seconds=term.seconds, share=term.seconds / total, formula=term.formula)
        for term in terms
    )


def _warnings(
    deployment: Deployment,
    model: Model,
    workload: Workload,
    memory: Memory,
    accelerator: Accelerator,
    constants: Constants,
) -> list[Problem]:
    found = [
        _not_calibrated(constants, accelerator),
        _kv_bounds(model),
        _engine_formula(deployment),
        _too_long(workload, memory),
        _queues(workload.points, memory),
    ]
    return [problem for problem in found if problem is not None]


def _not_calibrated(constants: Constants, accelerator: Accelerator) -> Problem | None:
    if constants.accelerator is not None or constants.engine == "replay":
        return None
    return Problem(
        code="not_calibrated",
        severity="note",
        message=f"The speed of {accelerator.name} was not measured: the speeds rest on stated defaults.",
        remedy="Run `servolt doctor --calibrate` (5 to 8 s) for intervals a third as wide.",
    )


def _kv_bounds(model: Model) -> Problem | None:
    bounds = bounds_of(model)
    if not bounds:
        return None
    return Problem(
        code="kv_cache_bound",
        severity="warning",
        message=f"The KV cache is planned as the most it can be, since {' and '.join(BOUNDS[one] for one in bounds)}.",
        remedy="It may fit even where this plan says no: start it once, and read the engine's log for what it takes.",
    )


def _engine_formula(deployment: Deployment) -> Problem | None:
    if deployment.engine in OWN_FORMULAS:
        return None
    return Problem(
        code="engine_formula",
        severity="warning",
        message=f"Memory and speed are computed as llama.cpp would have them; nothing is known here of how "
        f"{deployment.engine} lays out its memory.",
        remedy="Measure with this engine before you rely on the plan.",
    )


def _too_long(workload: Workload, memory: Memory) -> Problem | None:
    needed = workload.input_len + workload.output_len
    if needed <= memory.max_model_len:
        return None
    return Problem(
        code="workload_exceeds_context",
        severity="warning",
        message=f"A request of {needed:,} tokens is longer than the context of {memory.max_model_len:,}.",
        remedy=f"Set max_model_len to at least {needed}, or shorten the workload.",
    )


def _queues(points: Sequence[LoadPoint], memory: Memory) -> Problem | None:
    most = max((point.concurrency or 0 for point in points), default=0)
    if most <= memory.max_num_seqs:
        return None
    return Problem(
        code="queueing",
        severity="note",
        message=f"{most} streams share {memory.max_num_seqs} sequences: the rest wait, and ttft holds their wait.",
        remedy=f"Set max_num_seqs to {most} to run all of them at the same time.",
    )
