"""Counters of joules, one file for each kind of sensor."""

from collections.abc import Iterable

from servolt import registry
from servolt.measurement import Meter

__all__ = ["find_meter"]


def find_meter(meters: Iterable[Meter] | None = None) -> tuple[Meter | None, str]:
    """The first registered meter that reads something here and a line about it, or None and why there is none.

    A model of power is no sensor of this machine, so it is never chosen by itself.
    """
    reasons = []
    for meter in meters if meters is not None else map(registry.meter, registry.names("meters")):
        if meter.kind == "model":
            continue
        readable = meter.read()
        if readable:
            return meter, f"{meter.name} reads {', '.join(sorted(readable))} ({meter.source})"
        reasons.append(meter.why_absent())
    return None, f"not measured: no readable counter ({'; '.join(reasons) or 'no sensor is registered'})"
