"""`servolt plan`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from servolt import settings
from servolt.cli.completion import complete_model
from servolt.cli.deployment import planned_options, yaml_of
from servolt.cli.doors import Doors, asked, asked_against, door_options
from servolt.cli.economy import economy_options
from servolt.cli.figures import figure_options
from servolt.cli.optimise import Goals, goal_options, show_answer
from servolt.cli.output import Output, output_options
from servolt.cli.rendered import TARGETS, one_option, rendered
from servolt.cli.workload import workload_options
from servolt.errors import ConditionFailedError, InvalidInputError

if TYPE_CHECKING:
    from servolt.document import Problem
    from servolt.plan import KnownPoint, Plan
    from servolt.workload import Workload

__all__ = ["command"]

UNFIT = {"no": "{} does not fit.", "tight": "{} may not fit.", "unknown": "whether {} fits is not known."}


@click.command()
@click.argument("model", required=False, shell_complete=complete_model)
@click.option(
    "--deployment",
    "deployment_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A deployment as YAML or JSON, in place of MODEL.",
)
@figure_options
@planned_options
@workload_options
@economy_options
@click.option(
    "--measured",
    type=click.Path(dir_okay=False, path_type=Path),
    help='Points that correct this plan: [{"metric": "tpot", "workload": {...}, "value": 0.01}].',
)
@click.option(
    "--export",
    type=click.Choice(TARGETS),
    help="Print what starts it: a command line, a manifest, another program's file; nothing else.",
)
@click.option("--only", metavar="OPTION", help="For --export shell: one option alone, by its name or a field's.")
@click.option("--image", help="For --export: a container image in place of the engine's own.")
@click.option("--check", is_flag=True, help="Exit with 3 unless it fits and can run.")
@door_options
@goal_options
@output_options
def command(
    model: str | None,
    deployment_file: Path | None,
    flags: Mapping[str, Any],
    workload: "Workload",
    measured: Path | None,
    costs: Mapping[str, Any],
    export: str | None,
    only: str | None,
    image: str | None,
    check: bool,
    doors: Doors,
    goals: Goals,
    out: Output,
) -> None:
    """Say whether a model fits, how fast it will be, what it draws and costs, and what runs it.

    MODEL is a built-in name (guide, guide:f16), the path of a GGUF file, of a folder or of a config.json, a name from
    the catalogue, a Hub id, a deployment as YAML or JSON, a saved plan, or a link; or --params and what else is known
    of its sizes. It is planned for this machine, or with --accelerator for any other. Each figure has an interval and
    its basis: exact, formula, calibrated (from measurements), or measured.
    """
    from servolt.cli.planned import plan_rows, plan_shown
    from servolt.study.economy import economy_for
    from servolt.study.plan import plan_for
    from servolt.study.trace import with_trace

    if model and deployment_file:
        raise InvalidInputError("the deployment is named twice.", "Give MODEL or --deployment, not both.")
    if only is not None and export != "shell":
        raise InvalidInputError("--only is for the options of a command line.", "Give --export shell with it.")
    if doors.batch is not None:
        from servolt.cli.batch import plan_batch

        plan_batch(doors.batch, flags, workload, costs, out)
        return
    deployment, workload = asked(str(deployment_file) if deployment_file else model, flags, workload, doors)
    workload = with_trace(workload)
    if goals.are_asked:
        show_answer(deployment, workload, flags, costs, goals, out)
        return
    known = _points(measured) if measured else ()
    plan = plan_for(deployment, workload, settings.folders(), measured=known, economy=economy_for(deployment, costs))
    is_here = deployment.hardware is None or deployment.hardware.accelerator is None
    for problem in plan.problems:
        # What can't be started here is refused; of other hardware it is said beside what can be planned all the same.
        if problem.severity == "error" and (is_here or export is not None):
            raise InvalidInputError(problem.message, problem.remedy)
    if export is not None:
        out.text(rendered(plan, export, image) if only is None else one_option(plan, only))
    elif doors.link:
        from servolt.plan.link import link_of

        out.text(link_of(deployment, workload))
    elif doors.explain:
        from servolt.cli.explain import show_explanation

        show_explanation(plan, out)
    elif doors.against is not None:
        from servolt.cli.against import show_against

        other = asked_against(doors.against, flags, workload, deployment)[0]
        show_against(plan, plan_for(other, workload, settings.folders(), economy=economy_for(other, costs)), out)
    else:
        out.document(plan, rows=plan_rows(plan), ids=[plan.verdict], human=lambda: plan_shown(plan))
    if check and (plan.verdict != "fits" or _refusals(plan)):
        raise _unfit(plan)


def _points(path: Path) -> "tuple[KnownPoint, ...]":
    from servolt.plan import read_points

    try:
        return read_points(yaml_of(path))
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: {error.cause}", error.remedy) from error


def _refusals(plan: "Plan") -> "list[Problem]":
    return [problem for problem in plan.problems if problem.severity == "error"]


def _unfit(plan: "Plan") -> ConditionFailedError:
    if refused := _refusals(plan):
        return ConditionFailedError(f"{plan.deployment.label} can't run so. {refused[0].message}", refused[0].remedy)
    enough = [fix.text for fix in plan.fixes if fix.verdict in ("fits", "tight")]
    remedy = " ".join(enough) or "Free memory, or choose a smaller model."
    return ConditionFailedError(f"{UNFIT[plan.verdict].format(plan.deployment.label)} {' '.join(plan.reasons)}", remedy)
