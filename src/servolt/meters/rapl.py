"""Intel's and AMD's processor energy counters, as Linux shows them in its powercap folder."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from servolt.measurement import MeterKind, MeterScope

__all__ = ["POWERCAP", "RaplMeter"]

POWERCAP = Path("/sys/class/powercap")

# No processor package draws as much: the largest of 2025 are specified at 500 W, and short peaks at twice that. What
# grew faster was no energy.
MOST_WATTS = 2000.0


class RaplMeter:
    """Joules of each processor package since this meter was made.

    A counter wraps at `max_energy_range_uj`; a step down is unfolded as one wrap, so it must be read more often than
    the range lasts (at 200 W a range of 262 kJ lasts 22 minutes). A step down that would be more than MOST_WATTS was a
    reset: what the package drew meanwhile is not known, so it is absent from then on. Packages only: their figure holds
    the cores', on servers not the memory's. `psys` covers the packages again and is left out.
    """

    name = "rapl"
    scope: MeterScope = "package"
    kind: MeterKind = "counter"
    period_s = 0.001  # update interval of the status register: Intel SDM vol. 3B, 16.10 "about 1 ms"
    gain_tolerance: float | None = None  # neither vendor states one
    step_joules: float | None = 6.104e-5  # 2**-14 J, the usual energy unit of MSR_RAPL_POWER_UNIT
    source = "Linux powercap, intel-rapl:N/energy_uj"

    def __init__(self, root: Path = POWERCAP, clock: Callable[[], float] = time.monotonic) -> None:
        self._root, self._clock = root, clock
        self._last: dict[str, tuple[int, float]] = {}
        self._total: dict[str, int] = {}
        self._reset: set[str] = set()

    def read(self) -> Mapping[str, float]:
        """A package whose counter can't be read, or was reset since the first reading, is absent."""
        joules = {}
        for device, zone in self._packages():
            counted = _number(zone / "energy_uj")
            if counted is None or device in self._reset:
                continue
            grown = self._growth(device, counted, zone)
            if grown is None:
                self._reset.add(device)
                continue
            self._total[device] = self._total.get(device, 0) + grown
            joules[device] = self._total[device] / 1e6
        return joules

    def why_absent(self) -> str:
        """In words, for when `read` returns nothing."""
        if self._reset:
            return f"the counter of {', '.join(sorted(self._reset))} was reset while it was read"
        if not self._root.is_dir():
            return "this machine shows no powercap folder, as most virtual machines don't"
        zones = [zone for _, zone in self._packages()]
        if not zones:
            return f"{self._root} holds no package counter"
        return "the package counters may be read by root only; grant reading of energy_uj"

    def _growth(self, device: str, counted: int, zone: Path) -> int | None:
        """µJ since the last reading. None after a fall that is no wrap."""
        now = self._clock()
        before, read_s = self._last.get(device, (counted, now))
        self._last[device] = counted, now
        if counted >= before:
            return counted - before
        span = _number(zone / "max_energy_range_uj")
        if span is None:
            return None
        # A reading shows the energy up to the register's last update, so two of them may lie a period further apart.
        most = MOST_WATTS * (now - read_s + self.period_s) * 1e6
        unfolded = counted - before + span
        return unfolded if 0 <= unfolded <= most else None

    def _packages(self) -> Iterator[tuple[str, Path]]:
        """Zones on the top level, `intel-rapl:0`, under the name that the kernel gives: package-0."""
        try:
            zones = sorted(self._root.iterdir())
        except OSError:
            return
        for zone in zones:
            name = _text(zone / "name")
            if zone.name.startswith("intel-rapl:") and name is not None and name.startswith("package-"):
                yield name, zone


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text is not None and text.isdigit() else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
