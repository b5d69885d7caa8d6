"""`servolt ps`."""

from typing import Any

import click

from servolt.cli.output import Human, Output, output_options, say
from servolt.errors import AddressError
from servolt.units import format_bytes

__all__ = ["command"]


@click.command()
@output_options
def command(out: Output) -> None:
    """List the servers that run and the models they hold."""
    from servolt.cli.gateways import running_gateways

    rows: list[dict[str, Any]] = []
    for gateway in running_gateways():
        served = {"url": gateway.url, "pid": gateway.pid, "started": gateway.started}
        try:
            loaded = gateway.loaded()
        except AddressError as error:  # one that is stuck must not hide the others
            say(f"Warning: {error}")
            loaded = []
        rows += [
            {
                **served,
                "model": model["name"],
                "bytes": model.get("size"),
                "context": model.get("context_length"),
                "expires_at": model.get("expires_at"),
            }
            for model in loaded
        ]
        if not loaded:
            rows.append({**served, "model": None, "bytes": None, "context": None, "expires_at": None})

    def human() -> Human:
        from servolt.cli.tables import table

        if not rows:
            return "no server runs: servolt serve"
        cells = [
            [
                row["url"],
                str(row["pid"]),
                row["model"] or "none loaded",
                "" if row["bytes"] is None else format_bytes(row["bytes"]),
                str(row["expires_at"] or ""),
            ]
            for row in rows
        ]
        return [table(["server", "process", "model", "memory>", "until"], cells)]

    out.items("servolt.servers/1", rows, ids=[row["url"] for row in rows], human=human)
