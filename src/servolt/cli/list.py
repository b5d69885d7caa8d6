"""`servolt list`."""

from typing import Any

import click

from servolt import settings
from servolt.cli.output import Human, Output, output_options
from servolt.units import format_bytes, format_count

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
    from servolt.sources import list_models

    rows: list[dict[str, Any]] = [
        {
            "name": deployment.label,
            "parameters": model.parameters,
            "quantization": model.quantization,
            "file_bytes": model.file_bytes,
            "max_position_embeddings": model.max_position_embeddings,
            "path": model.files[0] if model.files else None,
        }
        for deployment, model in list_models()
    ]

    def human() -> Human:
        from servolt.cli.tables import table

        cells = [
            [row["name"], format_count(row["parameters"]), row["quantization"], format_bytes(row["file_bytes"])]
            for row in rows
        ]
        return [table(["name", "parameters>", "weights", "size>"], cells)]

    out.items("servolt.models/1", rows, ids=[row["name"] for row in rows], human=human)


def _list_measurements(out: Output) -> None:
    from servolt.results import FolderStore

    rows: list[dict[str, Any]] = [
        {
            "id": one.id[:12],
            "created": one.created,
            "deployment": one.deployment.label,
            "deployment_digest": one.deployment_digest[:12],
            "engine": one.engine,
            "workload_digest": one.workload_digest[:12],
            "study": one.study,
            "verdict": one.validity.verdict,
        }
        for one in (stored.measurement for stored in FolderStore(settings.folders().measurements).list())
    ]

    def human() -> Human:
        from servolt.cli.tables import table

        if not rows:
            return "no measurements yet: servolt measure guide"
        columns = ["id", "created", "deployment", "engine", "verdict"]
        return [table(columns, [[str(row[column]) for column in columns] for row in rows])]

    out.items("servolt.runs/1", rows, ids=[row["id"] for row in rows], human=human)
