"""`servolt dirs`."""

from dataclasses import asdict

import click

from servolt import settings
from servolt.cli.output import Output, output_options

__all__ = ["command"]


@click.command()
@output_options
def command(out: Output) -> None:
    """Show the folders that servolt uses. SERVOLT_HOME moves all four."""
    rows = [{"name": name, "path": str(path)} for name, path in asdict(settings.folders()).items()]

    def human() -> str:
        return "\n".join(f"{row['name']:7} {row['path']}" for row in rows)

    out.items("servolt.dirs/1", rows, ids=[row["path"] for row in rows], human=human)
