"""A counter with a stated law, for trying and testing what reads energy. Its joules are made up and it says so."""

import time
from collections.abc import Callable, Mapping

from servolt.measurement import MeterKind, MeterScope

__all__ = ["ReplayMeter"]


class ReplayMeter:
    """`power_w` of time, integrated in closed form from the meter's start, shown in steps of `period_s`.

    The law is idle_w while nothing runs and idle_w + busy_w * load(t) else; `load` gives the integral of the load in
    seconds since the start, so the truth is known to the last digit.
    """

    name = "replay"
    scope: MeterScope = "package"
    kind: MeterKind = "model"
    gain_tolerance: float | None = 0.0
    step_joules: float | None = None
    source = "a stated law, not a sensor"

    def __init__(
        self,
        *,
        idle_w: float = 10.0,
        busy_w: float = 0.0,
        load_s: Callable[[float], float] = lambda elapsed_s: elapsed_s,
        period_s: float = 0.01,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.period_s = period_s
        self._idle_w, self._busy_w, self._load_s, self._clock = idle_w, busy_w, load_s, clock
        self._start_s = clock()

    def read(self) -> Mapping[str, float]:
        """One device, `replay-0`."""
        ticks = int((self._clock() - self._start_s) / self.period_s)
        elapsed_s = ticks * self.period_s
        return {"replay-0": self._idle_w * elapsed_s + self._busy_w * self._load_s(elapsed_s)}

    def why_absent(self) -> str:
        return "a stated law is never absent"
