"""`servolt ps`."""

from datetime import UTC, datetime
from typing import Any

import click

from servolt.cli.output import Human, Output, output_options, say
from servolt.errors import AddressError
from servolt.units import format_bytes, format_duration

__all__ = ["command"]

FOR_EVER_S = 365 * 86400.0


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
                _remaining(row["expires_at"]),
            ]
            for row in rows
        ]
        return [table(["server", "process", "model", "memory>", "unloaded in"], cells)]

    out.items("servolt.servers/1", rows, ids=[row["url"] for row in rows], human=human)


def _remaining(expires_at: str | None) -> str:
    """Where a model stays for ever, Ollama's clients expect a date in a far century."""
    if not expires_at:
        return ""
    seconds = (datetime.fromisoformat(expires_at) - datetime.now(UTC)).total_seconds()
    if seconds < 1:
        return "now"
    return "never" if seconds > FOR_EVER_S else format_duration(round(seconds))
