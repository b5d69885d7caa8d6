"""`servolt plan`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from servolt import settings
from servolt.cli.completion import complete_model
from servolt.cli.deployment import deployment_options, read_deployment
from servolt.cli.output import Output, output_options
from servolt.cli.workload import workload_options
from servolt.errors import ConditionFailedError, InvalidInputError

if TYPE_CHECKING:
    from servolt.command import Command
    from servolt.plan import Plan
    from servolt.workload import Workload

__all__ = ["command"]

UNFIT = {"no": "{} does not fit.", "tight": "{} may not fit.", "unknown": "whether {} fits is not known."}


@click.command()
@click.argument("model", required=False, shell_complete=complete_model)
@deployment_options
@workload_options
@click.option(
    "--export",
    type=click.Choice(["shell", "json", "yaml"]),
    help="Print the command that serve would start, and nothing else.",
)
@click.option("--check", is_flag=True, help="Exit with 3 unless it fits.")
@output_options
def command(
    model: str | None, flags: Mapping[str, Any], workload: "Workload", export: str | None, check: bool, out: Output
) -> None:
    """Say whether a model fits on this machine, how fast it will be, and what runs it.

    MODEL is a built-in name (guide, guide:f16), the path of a GGUF file, or a deployment as YAML or JSON.
    Each figure has an interval and its basis: formula, calibrated (from measurements on this machine), or measured.
    """
    from servolt.cli.planned import plan_rows, plan_shown
    from servolt.study.plan import plan_here

    deployment = read_deployment(model, flags)
    plan = plan_here(deployment, workload, settings.folders())
    for problem in plan.problems:
        if problem.severity == "error":
            raise InvalidInputError(problem.message, problem.remedy)
    if export is not None:
        _export(plan.command, export, out)
    else:
        out.document(plan, rows=plan_rows(plan), ids=[plan.verdict], human=lambda: plan_shown(plan))
    if check and plan.verdict != "fits":
        raise _unfit(plan)


def _export(command: "Command | None", form: str, out: Output) -> None:
    from servolt import registry

    if command is None:
        raise InvalidInputError("this deployment starts nothing here.", "Name an engine that runs on this machine.")
    if form == "shell":
        out.text(registry.launcher("process").render(command))
    elif form == "yaml":
        out.text(command.to_yaml())
    else:
        out.json_only(command.model_dump(mode="json"))


def _unfit(plan: "Plan") -> ConditionFailedError:
    enough = [fix.text for fix in plan.fixes if fix.verdict in ("fits", "tight")]
    remedy = " ".join(enough) or "Free memory, or choose a smaller model."
    return ConditionFailedError(f"{UNFIT[plan.verdict].format(plan.deployment.label)} {' '.join(plan.reasons)}", remedy)
