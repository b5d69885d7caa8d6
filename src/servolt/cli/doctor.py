"""`servolt doctor`."""

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from servolt import __version__, settings
from servolt.cli.output import Human, Output, hint, output_options, say
from servolt.units import format_bytes

if TYPE_CHECKING:
    from servolt.study.doctor import Known

__all__ = ["command"]

NAMES = 27  # columns of the findings' names


@click.command()
@click.option("--calibrate", is_flag=True, help="Measure what this machine's engine can do, 5 to 8 s.")
@output_options
def command(calibrate: bool, out: Output) -> None:
    """Show what this machine offers: pasteable, without names, addresses or keys.

    --calibrate measures memory bandwidth and arithmetic rate with the engine itself, on models with random weights that
    are made for it and removed again. `servolt plan` rests on it, and on what every measurement since has taught.
    """
    from servolt.study.doctor import known_here

    if calibrate:
        _calibrate()
    known = known_here(settings.folders())
    rows = [{"name": name, "value": value, "unit": unit} for name, value, unit in _findings(known)]

    def human() -> Human:
        from servolt.cli.tables import labelled

        return [labelled(row["name"], _words(row["value"], row["unit"]), NAMES) for row in rows]

    out.items("servolt.doctor/1", rows, ids=[row["name"] for row in rows], human=human, warnings=known.problems)
    for remedy in dict.fromkeys(one.remedy for one in known.problems):
        hint(remedy)
    if known.accelerator.bandwidth_bytes_per_s is None and not known.problems:
        hint("`servolt doctor --calibrate` measures this machine in 5 to 8 s, for intervals a third as wide.")


def _calibrate() -> None:
    from servolt.cli.progress import shown_progress
    from servolt.study.doctor import calibrate
    from servolt.study.side_by_side import Step

    if not (os.environ.get("SERVOLT_NO_PROGRESS") or (sys.stderr is not None and sys.stderr.isatty())):
        say("calibrating: 5 to 8 s")
    with shown_progress("calibrating") as show:
        calibrate(settings.folders(), lambda done, total, doing: show(Step(done, total, doing)))


def _findings(known: "Known") -> list[tuple[str, Any, str | None]]:
    """(name, value, unit). What is not known is None."""
    from servolt import registry
    from servolt.host import host_facts
    from servolt.meters import find_meter

    host, meter, machine = host_facts(), find_meter(), known.accelerator
    facts: list[tuple[str, Any, str | None]] = [
        ("servolt", __version__, None),
        ("python", host.python, None),
        ("system", f"{host.os}, {host.kernel}, {host.architecture}", None),
        ("processor", host.cpu, None),
        ("physical cores", host.physical_cores, None),
        ("usable cores", host.usable_cores, None),
        ("virtual machine", host.virtualised, None),
        ("frequency governor", host.governor, None),
        ("memory", machine.memory_bytes, "bytes"),
        ("memory available", machine.available_bytes, "bytes"),
        ("memory bandwidth", machine.bandwidth_bytes_per_s, "bytes/s"),
        *((f"arithmetic rate {dtype}", rate, "FLOP/s") for dtype, rate in sorted(machine.flops_per_s.items())),
        ("speeds", machine.source, None),
        ("measurements learnt from", known.calibration.measurements, None),
        ("energy counter", meter[1], None),
    ]
    facts += [(f"engine {name}", registry.engine(name).version, None) for name in registry.names("engines")]
    return facts + [(one.code.replace("_", " "), one.message, None) for one in known.problems]


def _words(value: Any, unit: str | None) -> str:
    if value is None:
        return "not known" if unit is None else "not measured"
    if unit == "bytes":
        return format_bytes(value)
    if unit == "bytes/s":
        return f"{value / 1e9:.1f} GB/s"
    if unit == "FLOP/s":
        return f"{value / 1e9:.1f} GFLOP/s"
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
