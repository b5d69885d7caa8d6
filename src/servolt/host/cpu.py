"""Who used the processors, and how much memory a process tree holds."""

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from servolt.cores import usable_cpus

__all__ = ["ProcessTree", "machine_busy_s", "own_cpu_s"]


PROC = Path("/proc")
STAT_COLUMNS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq")  # man 5 proc_stat


def machine_busy_s(*, proc: Path = PROC) -> float:
    """Processor seconds since boot in which the processors that we may use did something, all processes together.

    Time that a hypervisor took away (steal) is not counted: this machine's processes did not have it. A container that
    is shown its own processors only, under numbers of its own, counts them all.
    """
    usable, busy = usable_cpus(), _busy_s_by_cpu(proc)
    counted = usable if usable <= set(busy) else set(busy)
    return sum(busy[cpu] for cpu in counted)


def _busy_s_by_cpu(proc: Path) -> Mapping[int, float]:
    """By the system's number of the processor: on Linux psutil leaves out those that are offline, and the number."""
    if sys.platform != "linux":
        return {cpu: _busy_s(times._asdict()) for cpu, times in enumerate(psutil.cpu_times(percpu=True))}
    ticks, busy = os.sysconf("SC_CLK_TCK"), {}
    for line in (proc / "stat").read_text(encoding="ascii").splitlines():
        name, *counts = line.split()
        if name.startswith("cpu") and name != "cpu":
            times = dict(zip(STAT_COLUMNS, (int(count) / ticks for count in counts), strict=False))
            busy[int(name.removeprefix("cpu"))] = _busy_s(times)
    return busy


def _busy_s(times: Mapping[str, float]) -> float:
    return float(sum(times.get(name, 0.0) for name in ("user", "nice", "system", "irq", "softirq")))


def own_cpu_s() -> float:
    """Processor seconds of this process, without its children."""
    return time.process_time()


class ProcessTree:
    """One process and all its descendants. Each reading looks anew, since engines start children late."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def cpu_s(self) -> float | None:
        """Processor seconds so far, of ended and waited-for children too. None once the process is gone."""
        try:
            root = psutil.Process(self._pid)
            times = root.cpu_times()
        except psutil.Error:
            return None
        # A child that has ended is in its parent's children_* sums, a living one is not: nothing counts twice.
        ended = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
        total = times.user + times.system + ended
        for child in _descendants(root):
            try:
                times = child.cpu_times()
            except psutil.Error:
                continue
            ended = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
            total += times.user + times.system + ended
        return float(total)

    def resident_bytes(self) -> int | None:
        """Resident memory now. None once the process is gone."""
        try:
            root = psutil.Process(self._pid)
            total = root.memory_info().rss
        except psutil.Error:
            return None
        for child in _descendants(root):
            try:
                total += child.memory_info().rss
            except psutil.Error:
                continue
        return int(total)


def _descendants(root: psutil.Process) -> list[psutil.Process]:
    try:
        return root.children(recursive=True)
    except psutil.Error:
        return []
