"""`servolt stop`."""

import os
import signal
import time

import click

from servolt.cli.completion import complete_model
from servolt.cli.output import Output, output_options
from servolt.errors import AddressError, ModelNotFoundError

__all__ = ["command"]

PATIENCE_S = 45.0  # a gateway drains for 30 s and then gives its engines 10 s
POLL_S = 0.02


@click.command()
@click.argument("model", required=False, shell_complete=complete_model)
@output_options
def command(model: str | None, out: Output) -> None:
    """Unload MODEL wherever it is loaded; without MODEL, stop every server of this user."""
    stopped = _unload(model) if model else _stop_servers()
    did = "unloaded" if model else "stopped"
    rows = [{"stopped": name} for name in stopped]
    human = "\n".join(f"{did} {name}" for name in stopped) or "no server ran"
    out.items("servolt.stopped/1", rows, ids=stopped, human=lambda: human)


def _unload(model: str) -> list[str]:
    from servolt.cli.gateways import running_gateways

    bare = model.lower().removesuffix(":latest")
    serving = [gateway for gateway in running_gateways() if bare in map(str.lower, gateway.models) and gateway.loaded()]
    for gateway in serving:
        gateway.unload(model)
    if not serving:
        raise ModelNotFoundError(f"no server holds {model}.", "`servolt ps` lists what is loaded.")
    return [f"{model} at {gateway.url}" for gateway in serving]


def _stop_servers() -> list[str]:
    from servolt.cli.gateways import running_gateways

    gateways = running_gateways()
    for gateway in gateways:
        try:
            os.kill(gateway.pid, signal.SIGTERM)
        except ProcessLookupError:  # it has left by itself
            continue
        except PermissionError as error:
            raise AddressError(f"process {gateway.pid} is another user's.", "Stop it as that user.") from error
    deadline = time.monotonic() + PATIENCE_S
    while alive := [gateway.pid for gateway in gateways if gateway.is_alive]:
        if time.monotonic() > deadline:
            pids = " ".join(map(str, alive))
            raise AddressError(f"process {pids} does not end.", f"It still answers; `kill {pids}` cuts it short.")
        time.sleep(POLL_S)
    return [gateway.url for gateway in gateways]
