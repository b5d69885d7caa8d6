"""`servolt config`."""

import click

from servolt import settings
from servolt.cli.output import Output, output_options

__all__ = ["command"]


@click.command()
@click.option("--origin", is_flag=True, help="Also print where each value comes from.")
@click.argument("action", type=click.Choice(["show"]), default="show")
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

    def human() -> str:
        lines = []
        for row in rows:
            value = "not set" if row["value"] in (None, "") else row["value"]
            place = f"  ({row['origin']})" if origin else ""
            lines.append(f"{row['name']:15} {value!s:12} {row['meaning']}{place}")
        return "\n".join(lines)

    out.items("servolt.config/1", rows, ids=[str(row["name"]) for row in rows], human=human)
