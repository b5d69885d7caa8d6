"""`servolt list`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from servolt import settings
from servolt.cli.output import Human, Output, output_options, say
from servolt.document import Problem
from servolt.units import format_bytes, format_count

if TYPE_CHECKING:
    from servolt.measurement import Measurement
    from servolt.results import Fault

__all__ = ["command"]


@click.command()
@click.option("--runs", is_flag=True, help="List measurements in place of models.")
@output_options
def command(runs: bool, out: Output) -> None:
    """List the models that can be named without a path, or the measurements that were kept."""
    if runs:
        _list_measurements(out)
    else:
        _list_models(out)


def _list_models(out: Output) -> None:
    from servolt.sources import survey_models

    models, faults = survey_models()
    rows: list[dict[str, Any]] = [
        {
            "name": deployment.label,
            "parameters": model.total_params,
            "quantization": model.quantization,
            "file_bytes": model.file_bytes,
            "max_position_embeddings": model.max_position_embeddings,
            "path": model.files[0] if model.files else None,
        }
        for deployment, model in models
    ]

    def human() -> Human:
        from servolt.cli.tables import table

        cells = [
            [row["name"], format_count(row["parameters"]), row["quantization"], format_bytes(row["file_bytes"])]
            for row in rows
        ]
        return [table(["name", "parameters>", "weights", "size>"], cells)]

    out.items("servolt.models/1", rows, ids=[row["name"] for row in rows], human=human, warnings=faults)
    if out.format != "json":  # whose document holds the warnings
        for fault in faults:
            say(f"Warning: {fault.message} {fault.remedy}")


def _list_measurements(out: Output) -> None:
    from servolt.results import FolderStore

    whole, faults = FolderStore(settings.folders().measurements).survey()
    runs = [_run(stored.measurement, stored.measurement.validity.verdict) for stored in whole]
    runs += [_run(fault.measurement, fault.kind) for fault in faults if fault.measurement is not None]
    rows = sorted(runs, key=lambda row: (row["created"], row["id"]))
    warnings = [
        Problem(code=f"{fault.kind}_run", severity="warning", message=fault.error.cause, remedy=fault.error.remedy)
        for fault in faults
    ]

    def human() -> Human:
        from servolt.cli.tables import table

        if not rows:
            return "no measurements yet: servolt measure guide" if not faults else []
        columns = ["id", "created", "deployment", "engine", "verdict"]
        return [table(columns, [[str(row[column]) for column in columns] for row in rows])]

    out.items("servolt.runs/1", rows, ids=[row["id"] for row in rows], human=human, warnings=warnings)
    if out.format != "json":  # whose document holds the warnings
        _say_faults(faults)


def _run(one: "Measurement", verdict: str) -> dict[str, Any]:
    return {
        "id": one.id[:12],
        "created": one.created,
        "deployment": one.deployment.label,
        "deployment_digest": one.deployment_digest[:12],
        "engine": one.engine,
        "workload_digest": one.workload_digest[:12],
        "study": one.study,
        "verdict": verdict,
    }


def _say_faults(faults: "Sequence[Fault]") -> None:
    for kind, words in (("damaged", "damaged"), ("unreadable", "not readable here")):
        found = [fault for fault in faults if fault.kind == kind]
        if found:
            many = "1 measurement is" if len(found) == 1 else f"{len(found)} measurements are"
            named = ", ".join(f"{fault.id} ({fault.why})" for fault in found)
            say(f"Warning: {many} {words}: {named}. `servolt show {found[0].id}` says more.")
