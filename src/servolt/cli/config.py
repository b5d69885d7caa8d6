"""`servolt config`."""

from typing import Any

import click

from servolt import settings
from servolt.cli.output import Human, Output, output_options

__all__ = ["command"]


@click.command()
@click.option("--origin", is_flag=True, help="Also print where each value comes from.")
@click.argument("action", metavar="[show]", type=click.Choice(["show"]), default="show")
@output_options
def command(action: str, origin: bool, out: Output) -> None:
    """Show the settings.

    A flag wins over SERVOLT_*, that over servolt.toml in this folder or above, that over
    config.toml in the config folder, that over OLLAMA_*, and that over the default.
    """
    rows = [
        {
            "name": found.name,
            "value": found.value,
            **({"origin": found.origin} if origin else {}),
            "meaning": settings.SETTINGS[found.name].sentence,
        }
        for found in settings.resolve_all()
    ]

    def human() -> Human:
        from servolt.cli.tables import table

        columns = ["setting", "value", *(["from"] if origin else []), "meaning"]
        cells = [
            [row["name"], _words(row["value"]), *([row["origin"]] if origin else []), row["meaning"]] for row in rows
        ]
        return [table(columns, cells)]

    out.items("servolt.config/1", rows, ids=[str(row["name"]) for row in rows], human=human)


def _words(value: Any) -> str:
    if value in (None, ""):
        return "not set"
    return f"{value:g}" if isinstance(value, float) else str(value)
