"""`servolt show`."""

import click

from servolt import __version__, settings
from servolt.cli.deployment import read_deployment
from servolt.cli.output import Human, Output, output_options
from servolt.errors import InvalidInputError, StorageError

__all__ = ["command"]


@click.command()
@click.argument("what", metavar="ID|MODEL")
@click.option(
    "--recompute", is_flag=True, help="Compute the results again from the raw samples, and compare the bytes."
)
@output_options
def command(what: str, recompute: bool, out: Output) -> None:
    """Show a measurement (by its id, a prefix of at least 4 digits, or `latest`) or a model.

    run:ID and model:NAME say which is meant where both exist. A measurement whose files differ from its manifest is an
    error; with --recompute, so is one whose results do not follow from its raw samples, byte by byte.
    """
    kind, _, name = what.partition(":")
    if kind == "model" and name:
        _show_model(name, out)
    elif kind == "run" and name:
        _show_measurement(name, recompute, out)
    elif _is_measurement(what):
        _show_measurement(what, recompute, out)
    else:
        _show_model(what, out)


def _is_measurement(name: str) -> bool:
    from servolt.results import FolderStore

    if name == "latest":
        return True
    if len(name) < 4 or not set(name.lower()) <= set("0123456789abcdef"):
        return False
    return bool(FolderStore(settings.folders().measurements).matches(name))


def _show_measurement(name: str, recompute: bool, out: Output) -> None:
    from servolt.cli.measured import measurement_rows, measurements_shown
    from servolt.measure import measurement_from_files
    from servolt.results import FolderStore

    store = FolderStore(settings.folders().measurements)
    stored = store.find(name)
    one = stored.measurement
    if recompute:
        again = store.recompute(stored, measurement_from_files)
        if again != (stored.path / "measurement.json").read_bytes():
            raise StorageError(
                f"the results of {one.id[:12]} do not follow from its raw samples.",
                f"The files were changed and sealed anew, or another servolt computed them: they carry "
                f"{one.tool_version}, and this is {__version__}.",
            )
        if out.format == "quiet":
            out.text(one.id)
            return
        if out.for_people:
            out.text(f"{one.id[:12]}: computed again from the raw samples, the same {len(again):,} bytes.")
            return
        out.text(again.decode())
        return
    out.document(one, rows=measurement_rows([one]), ids=[one.id], human=lambda: measurements_shown([one]))


def _show_model(name: str, out: Output) -> None:
    from servolt.sources import find_model
    from servolt.units import format_bytes, format_count

    model = find_model(read_deployment(name, {}))
    rows = [group.model_dump(mode="json") for group in model.tensors]

    def human() -> Human:
        from servolt.cli.tables import table

        cells = [
            [one.component, one.dtype, str(one.tensors), f"{one.elements:,}", format_bytes(one.bytes)]
            for one in model.tensors
        ]
        return [
            " · ".join(
                (
                    model.name,
                    model.architecture,
                    f"{format_count(model.total_params)} parameters",
                    model.quantization,
                    f"{format_bytes(model.weights_bytes)} of weights",
                )
            ),
            ", ".join(
                (
                    f"{model.num_layers} layers",
                    f"hidden {model.hidden_size}",
                    f"{model.num_heads} heads of {model.head_dim_k}",
                    f"{model.num_kv_heads} KV heads",
                    f"vocabulary {model.vocab_size:,}",
                    f"context {model.max_position_embeddings:,} tokens",
                )
            ),
            *(f"file {path}" for path in model.files),
            "",
            table(["component", "type", "tensors>", "elements>", "size>"], cells),
        ]

    if not model.total_params and not model.files:
        raise InvalidInputError(f"{name} has no files to show.", "`servolt list` shows the models that do.")
    out.document(model, rows=rows, ids=[name], human=human)
