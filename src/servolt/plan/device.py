"""The plan of a deployment on accelerators: memory by its engine's arithmetic, speed by a roofline, power, cost."""

from collections.abc import Mapping, Sequence

from servolt.command import Command
from servolt.deployment import Deployment
from servolt.document import Problem
from servolt.gpu import Accelerator
from servolt.metrics import Basis, Estimate
from servolt.model import Model
from servolt.plan.adjustment import Adjustment
from servolt.plan.correction import KnownPoint, Shift
from servolt.plan.cost import Economy
from servolt.plan.known import KnownDeployments
from servolt.plan.learning import drifts
from servolt.plan.loads import LoadPlanner
from servolt.plan.memory import Budget
from servolt.plan.memory.settings import stated_context
from servolt.plan.plan import Plan, figures_of
from servolt.plan.recall import known_budget, known_points, shifts_of
from servolt.plan.remedies import default_problem, fixes_of, spill_problem
from servolt.plan.validation import problems_of
from servolt.plan.verdict import Fix, Verdict, binding_of, reasons_of, verdict_of
from servolt.workload import Slo, Workload

__all__ = ["make_device_plan"]

FORMULA = "a roofline whose constants were fitted on published measurements"


def make_device_plan(
    deployment: Deployment,
    model: Model,
    accelerator: Accelerator,
    workload: Workload,
    *,
    known: KnownDeployments | None = None,
    points: Sequence[KnownPoint] = (),
    tool_version: str = "",
    economy: Economy | None = None,
    slo: Slo | None = None,
    command: Command | None = None,
    problems: Sequence[Problem] = (),
) -> Plan:
    """Arithmetic only, for `accelerator.count` devices.

    `known` is what start-up logs and measurements have taught, `points` are further measured values of this deployment,
    and `economy` has prices. A deployment that can't be has an error among its problems. Raises InvalidInputError for a
    data type whose size is not known.
    """
    facts = known or KnownDeployments()
    faults = problems_of(deployment, model, accelerator, workload)
    memory = known_budget(facts, deployment, model, accelerator)
    fixes = fixes_of(deployment, model, accelerator, memory)
    verdict, of_defaults = _verdict(facts, deployment, model, accelerator, workload, memory, fixes)
    planner = LoadPlanner(deployment, model, accelerator, workload, memory, economy, slo)
    shifts = shifts_of(facts, deployment, model, accelerator, tool_version=tool_version)
    learnt = planner.adjustment((*known_points(facts, deployment, model, accelerator), *points), shifts)
    estimates = tuple(one for point in workload.points for one in planner.estimates(point, learnt))
    first = planner.load(workload.points[0])
    overload = planner.overloads()
    drift = drifts(facts, deployment, model, accelerator)
    return Plan(
        deployment=deployment,
        deployment_digest=deployment.digest,
        engine_version=deployment.engine_version,
        model=model,
        accelerator=accelerator,
        workload=workload.without_requests,
        workload_digest=workload.digest,
        memory=memory,
        verdict=verdict,
        binding=binding_of(memory),
        reasons=reasons_of(memory),
        fixes=fixes,
        predictions=figures_of(estimates),
        estimates=estimates,
        step=planner.step(first),
        bottleneck=first.at.state.bottleneck,
        throughput_curve=planner.curve(learnt),
        calibration=_in_words(learnt, shifts),
        basis=_weakest(estimates),
        command=command,
        problems=(
            *problems,
            *faults,
            *of_defaults,
            *learnt.problems,
            *drift,
            *overload,
            *planner.plays(),
            *_notes(memory),
        ),
    )


def _verdict(
    facts: KnownDeployments,
    deployment: Deployment,
    model: Model,
    accelerator: Accelerator,
    workload: Workload,
    memory: Budget,
    fixes: Sequence[Fix],
) -> tuple[Verdict, tuple[Problem, ...]]:
    """Where only what nobody asked for is too much, it may run without: whole context, idle slots, all layers here."""
    verdict = verdict_of(memory)
    spilled = spill_problem(deployment, fixes) if verdict == "no" else None
    if spilled is not None:
        return "tight", (spilled,)
    needed = _needed(deployment, workload, memory)
    if verdict != "no" or not needed:
        return verdict, ()
    smaller = known_budget(facts, deployment.model_copy(update=needed), model, accelerator)
    if verdict_of(smaller) == "no":
        return verdict, ()
    return "tight", (default_problem(deployment, memory, needed),)


def _needed(deployment: Deployment, workload: Workload, memory: Budget) -> dict[str, int]:
    """What the workload needs of the settings that are left to the engine, as far as it is less."""
    found: dict[str, int] = {}
    length = workload.input_len + workload.output_len
    if stated_context(deployment) is None and length < memory.max_model_len:
        found["max_model_len"] = length
    streams = max((point.concurrency or 0 for point in workload.points), default=0)
    if not memory.pooled and deployment.max_num_seqs is None and 0 < streams < memory.max_num_seqs:
        found["max_num_seqs"] = streams
    return found


def _weakest(estimates: Sequence[Estimate]) -> Basis:
    order: tuple[Basis, ...] = ("formula", "calibrated", "measured")
    return min((one.basis for one in estimates if one.basis in order), key=order.index, default="formula")


def _in_words(learnt: Adjustment, shifts: Mapping[str, Shift] | None) -> str:
    said = FORMULA
    if shifts:
        most = max(shift.deployments for shift in shifts.values())
        said += f"; shifted by {most} other deployments like it"
    if learnt.points:
        said += f"; corrected by {learnt.points} measured values of this deployment"
    return said


def _notes(memory: Budget) -> list[Problem]:
    remedy = "The intervals are wider for it. A start-up log or a measurement of this deployment narrows them."
    return [Problem(code="planned_wider", severity="note", message=note, remedy=remedy) for note in memory.notes]
