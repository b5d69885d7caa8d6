"""`servolt measure`."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from servolt import settings
from servolt.cli.completion import complete_model
from servolt.cli.deployment import deployment_options, read_deployment, read_file
from servolt.cli.output import Output, hint, output_options, say
from servolt.cli.workload import workload_options
from servolt.cli.writable import check_writable
from servolt.errors import NotValidError, StorageError
from servolt.workload import Slo, Workload

if TYPE_CHECKING:
    from servolt.measurement import Measurement

__all__ = ["command"]

# The least exact p of n pairs is 2^(1-n): ten blocks can decide eight changes at 5 %.
BLOCKS_TO_COMPARE = 10
BLOCKS_ALONE = 5
QUICK = {"duration_s": 1.5, "repetitions": 3}


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...", shell_complete=complete_model)
@deployment_options
@workload_options
@click.option("--slo", type=click.Path(dir_okay=False, path_type=Path), help="Bounds as YAML or JSON, for goodput.")
@click.option("--quick", is_flag=True, help="3 windows of 1.5 s: a first look, with wide intervals.")
@click.option(
    "--require-valid", is_flag=True, help="Exit with 4 for a degraded measurement too, not only for an invalid one."
)
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

    A measurement is valid, degraded (something disturbed it: the flags say what) or invalid (its figures mean nothing:
    exit code 4). All three are kept.
    """
    from servolt.cli.progress import shown_progress
    from servolt.study.plan import plan_here
    from servolt.study.side_by_side import NOT_MEASURABLE, check_workload, measure_side_by_side

    check_writable(out.file)
    check_workload(workload)
    deployments = [read_deployment(model, flags) for model in models or (None,)]
    planned = _planned(workload, len(deployments), quick)
    for deployment in deployments:
        for problem in plan_here(deployment, planned, settings.folders()).problems:
            if problem.severity == "warning" and problem.code not in NOT_MEASURABLE:
                say(f"Warning: {deployment.label}: {problem.message} {problem.remedy}")
    with shown_progress("measuring") as progress:
        stored = asyncio.run(
            measure_side_by_side(
                deployments,
                planned,
                settings.folders(),
                slo=None if slo is None else read_file(Slo, slo),
                load_timeout_s=settings.resolve("load_timeout").value,
                on_step=progress,
            )
        )
    measurements = [one.measurement for one in stored]
    for one in stored:
        say(f"saved {one.measurement.id[:12]}  {one.path}")
    try:
        _write(measurements, out)
    except StorageError as error:
        ids = " and ".join(f"`servolt show {one.id[:12]}`" for one in measurements)
        raise StorageError(error.cause, f"{error.remedy} What was measured is kept: {ids}.") from error
    ids = " ".join(one.id[:8] for one in measurements)
    hint(f"servolt show {ids.split()[0]}" + (f"    servolt compare {ids}" if len(measurements) > 1 else ""))
    _judge(measurements, require_valid)


def _write(measurements: "Sequence[Measurement]", out: Output) -> None:
    from servolt.cli.measured import measurement_rows, measurements_shown

    rows, ids = measurement_rows(measurements), [one.id[:12] for one in measurements]
    if len(measurements) == 1:
        out.document(measurements[0], rows=rows, ids=ids, human=lambda: measurements_shown(measurements))
    else:
        whole = out.format in ("json", "jsonl")
        items = [one.model_dump(mode="json") for one in measurements] if whole else rows
        out.items("servolt.measurements/1", items, ids=ids, human=lambda: measurements_shown(measurements))


def _judge(measurements: "Sequence[Measurement]", require_valid: bool) -> None:
    """Raises NotValidError, which names what made it so."""
    refused = ("error", "warning") if require_valid else ("error",)
    codes = {flag.code for one in measurements for flag in one.validity.flags if flag.severity in refused}
    if codes:
        word = "invalid" if any(one.validity.verdict == "invalid" for one in measurements) else "degraded"
        raise NotValidError(f"measured, but {word}: {', '.join(sorted(codes))}.", "`servolt show` has the remedies.")


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
