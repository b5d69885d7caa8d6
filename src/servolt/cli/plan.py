"""`servolt plan`."""

import json
from collections.abc import Mapping
from typing import Any

import click

from servolt import registry, settings
from servolt.cli.deployment import deployment_options, read_deployment
from servolt.cli.output import Output, output_options
from servolt.cli.workload import workload_options
from servolt.errors import ConditionFailedError, InvalidInputError
from servolt.workload import Workload

__all__ = ["command"]


@click.command()
@click.argument("model", required=False)
@deployment_options
@workload_options
@click.option(
    "--export", type=click.Choice(["shell", "json", "yaml"]), help="Print the command that serve would start."
)
@click.option("--check", is_flag=True, help="Exit with 3 unless it fits.")
@output_options
def command(
    model: str | None, flags: Mapping[str, Any], workload: Workload, export: str | None, check: bool, out: Output
) -> None:
    """Say whether a model fits on this machine, how fast it will be, and what runs it.

    MODEL is a built-in name (guide, guide:f16), the path of a GGUF file, or a deployment as YAML or JSON.
    Each figure has an interval and its basis: formula, calibrated (from measurements on this machine), or measured.
    """
    from servolt.cli.planned import plan_rows, plan_shown
    from servolt.study.plan import plan_here

    deployment = read_deployment(model, flags)
    plan = plan_here(deployment, workload, settings.folders())
    for problem in plan.warnings:
        if problem.severity == "error":
            raise InvalidInputError(problem.message, problem.remedy)
    if export is not None:
        _export(plan.command, export, out)
    else:
        out.document(plan, rows=plan_rows(plan), ids=[plan.verdict], human=lambda: plan_shown(plan))
    if check and plan.verdict != "fits":
        remedy = " ".join(fix.text for fix in plan.fixes) or "Free memory, or choose a smaller model."
        raise ConditionFailedError(f"{deployment.label} does not surely fit: {plan.verdict}. {plan.reasons[0]}", remedy)


def _export(command: Any, form: str, out: Output) -> None:
    if command is None:
        raise InvalidInputError("this deployment starts nothing here.", "Name an engine that runs on this machine.")
    if form == "shell":
        out.text(registry.launcher("process").render(command))
    else:
        out.text(command.to_yaml() if form == "yaml" else json.dumps(command.model_dump(mode="json"), indent=2))
