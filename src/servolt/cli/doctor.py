"""`servolt doctor`."""

from typing import Any

import click

from servolt import __version__, registry, settings
from servolt.cli.output import Output, output_options, say
from servolt.units import format_bytes

__all__ = ["command"]


@click.command()
@click.option("--calibrate", is_flag=True, help="Measure what this machine's engine can do, about 8 s.")
@output_options
def command(calibrate: bool, out: Output) -> None:
    """Show what this machine offers: pasteable, without names, addresses or keys.

    --calibrate measures memory bandwidth and arithmetic rate with the engine itself, on models with random weights that
    are made for it and removed again. `servolt plan` rests on it.
    """
    if calibrate:
        from servolt.study.doctor import calibrate as calibrate_machine

        calibrate_machine(settings.folders(), lambda doing: say(f"calibrating: {doing}"))
    rows = [{"name": name, "value": value, "unit": unit} for name, value, unit in _findings()]

    def human() -> str:
        return "\n".join(f"{row['name']:26} {_words(row['value'], row['unit'])}" for row in rows)

    out.items("servolt.doctor/1", rows, ids=[row["name"] for row in rows], human=human)


def _findings() -> list[tuple[str, Any, str | None]]:
    """(name, value, unit). What is not known is None."""
    from servolt.host import host_facts
    from servolt.meters import find_meter
    from servolt.study.keep import read_accelerator, read_calibration

    host, meter = host_facts(), find_meter()
    machine = read_accelerator(settings.folders())
    known = read_calibration(settings.folders())
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
        ("measurements learnt from", known.measurements, None),
        ("energy counter", meter[1], None),
    ]
    return facts + [(f"engine {name}", registry.engine(name).version, None) for name in registry.names("engines")]


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
