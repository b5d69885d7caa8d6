"""`servolt export`."""

from pathlib import Path

import click

from servolt.cli.deployment import read_deployment
from servolt.cli.output import Output, output_options
from servolt.errors import InvalidInputError, StorageError

__all__ = ["command"]


@click.command()
@click.argument("model", default="guide:f16")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@output_options
def command(model: str, folder: Path, out: Output) -> None:
    """Write a model as a Hugging Face folder with safetensors, for engines that read no GGUF.

    MODEL holds 16- or 32-bit weights; quantised ones can't be turned back into what they were made from.
    """
    from servolt.sources import find_model
    from servolt.sources.huggingface_folder import write_huggingface_folder

    found = find_model(read_deployment(model, {}))
    if not found.files:
        raise InvalidInputError(f"{model} has no weights.", "Name a model that has: guide:f16.")
    try:
        written = write_huggingface_folder(Path(found.files[0]), folder)
    except ValueError as error:
        raise InvalidInputError(f"{model} can't be exported.", str(error)) from error
    except OSError as error:
        raise StorageError(f"{folder} can't be written: {error.strerror}.", "Name another folder.") from error
    rows = [{"file": str(path), "bytes": path.stat().st_size} for path in written]
    out.items(
        "servolt.export/1",
        rows,
        ids=[str(path) for path in written],
        human=lambda: "\n".join(str(row["file"]) for row in rows),
    )
