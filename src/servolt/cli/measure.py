"""`servolt measure`."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from servolt import settings
from servolt.cli.deployment import deployment_options, read_deployment
from servolt.cli.output import Output, hint, output_options, say
from servolt.cli.workload import workload_options
from servolt.errors import InvalidInputError, NotValidError
from servolt.workload import Slo, Workload

__all__ = ["command"]

# The least exact p of n pairs is 2^(1-n): ten blocks can decide eight changes at 5 %.
BLOCKS_TO_COMPARE = 10
BLOCKS_ALONE = 5
QUICK = {"duration_s": 1.5, "repetitions": 3}


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@deployment_options
@workload_options
@click.option("--slo", type=click.Path(dir_okay=False, path_type=Path), help="Bounds as YAML or JSON, for goodput.")
@click.option("--quick", is_flag=True, help="3 windows of 1.5 s: a first look, with wide intervals.")
@click.option("--require-valid", is_flag=True, help="Exit with 4 unless every measurement is valid.")
@output_options
def command(
    models: tuple[str, ...],
    flags: Mapping[str, Any],
    workload: Workload,
    slo: Path | None,
    quick: bool,
    require_valid: bool,
    out: Output,
) -> None:
    """Measure one deployment, or several side by side.

    Each MODEL is a deployment: guide:q8_0, guide:f16, the path of a GGUF file, a deployment as YAML or JSON. Several
    are measured block by block in alternating order, so that they can be compared. Raw samples are kept.
    """
    from servolt.cli.measured import measurement_rows, measurements_shown
    from servolt.cli.progress import shown_progress
    from servolt.study.plan import plan_here
    from servolt.study.side_by_side import measure_side_by_side

    deployments = [read_deployment(model, flags) for model in models or (None,)]
    planned = _planned(workload, len(deployments), quick)
    for deployment in deployments:
        for problem in plan_here(deployment, planned, settings.folders()).warnings:
            if problem.severity == "warning":
                say(f"Warning: {deployment.label}: {problem.message} {problem.remedy}")
    with shown_progress("measuring") as progress:
        stored = asyncio.run(
            measure_side_by_side(
                deployments,
                planned,
                settings.folders(),
                slo=_read_slo(slo),
                load_timeout_s=settings.resolve("load_timeout").value,
                on_step=progress,
            )
        )
    measurements = [one.measurement for one in stored]
    if len(measurements) == 1:
        (only,) = measurements
        out.document(
            only, rows=measurement_rows([only]), ids=[only.id[:12]], human=lambda: measurements_shown(measurements)
        )
    else:
        out.items(
            "servolt.measurements/1",
            [one.model_dump(mode="json") for one in measurements]
            if out.format in ("json", "jsonl")
            else measurement_rows(measurements),
            ids=[one.id[:12] for one in measurements],
            human=lambda: measurements_shown(measurements),
        )
    for one in stored:
        say(f"saved {one.measurement.id[:12]}  {one.path}")
    ids = " ".join(one.id[:8] for one in measurements)
    hint(f"servolt show {ids.split()[0]}" + (f"    servolt compare {ids}" if len(measurements) > 1 else ""))
    invalid = [one for one in measurements if one.validity.verdict == "invalid"]
    degraded = [one for one in measurements if one.validity.verdict != "valid"]
    if invalid or (require_valid and degraded):
        codes = {flag.code for one in degraded for flag in one.validity.flags}
        raise NotValidError(f"measured, but not valid: {', '.join(sorted(codes))}.", "`servolt show` has the remedies.")


def _planned(workload: Workload, deployments: int, quick: bool) -> Workload:
    """Flags that were given stay; the rest depends on what is asked."""
    defaults: dict[str, object] = {
        "duration_s": 2.0,
        "repetitions": BLOCKS_TO_COMPARE if deployments > 1 else BLOCKS_ALONE,
    }
    wanted = {**defaults, **(QUICK if quick else {})}
    return workload.model_copy(
        update={name: value for name, value in wanted.items() if name not in workload.model_fields_set}
    )


def _read_slo(path: Path | None) -> Slo | None:
    if path is None:
        return None
    try:
        return Slo.from_yaml(path.read_bytes())
    except OSError as error:
        raise InvalidInputError(f"{path} can't be read: {error.strerror}.", "Name a file that exists.") from error
