"""Joules: what an idle machine draws, and the three energies of a window. Unmeasured is None with a reason, never 0."""

import asyncio
import time
from collections.abc import Mapping, Set
from typing import Any

from pydantic import Field

from servolt.document import Value
from servolt.measurement import Meter, Window

__all__ = ["IdlePower", "gross_joules", "measure_idle", "meter_facts", "net_joules"]


class IdlePower(Value):
    """Mean power of each device over a stretch without load."""

    duration_s: float = Field(gt=0)
    watts: Mapping[str, float]


async def measure_idle(meter: Meter, duration_s: float) -> IdlePower:
    """Two readings and a subtraction."""
    before, start_ns = meter.read(), time.monotonic_ns()
    await asyncio.sleep(duration_s)
    after, end_ns = meter.read(), time.monotonic_ns()
    elapsed_s = (end_ns - start_ns) / 1e9
    watts = {device: (after[device] - before[device]) / elapsed_s for device in sorted(after) if device in before}
    return IdlePower(duration_s=elapsed_s, watts=watts)


def meter_facts(meter: Meter) -> dict[str, Any]:
    """What the measurement says of the sensor."""
    return {
        "name": meter.name,
        "scope": meter.scope,
        "kind": meter.kind,
        "period_s": meter.period_s,
        "gain_tolerance": meter.gain_tolerance,
        "step_joules": meter.step_joules,
        "source": meter.source,
    }


def gross_joules(window: Window, devices: Set[str]) -> float | None:
    """Over all devices that were read in any window, idle included. None where one of them was not read in this one."""
    return sum(window.joules.values()) if window.joules and set(window.joules) == devices else None


def net_joules(window: Window, devices: Set[str], idle: IdlePower | None) -> float | None:
    """Less what the same devices draw when idle. It may be negative: a floor would hide a wrong baseline."""
    gross = gross_joules(window, devices)
    if gross is None or idle is None or devices - set(idle.watts):
        return None
    duration_s = (window.end_ns - window.start_ns) / 1e9
    return gross - sum(idle.watts[device] for device in devices) * duration_s
