"""How many cores this process may use. Standard library only: an engine's own process asks it while it starts."""

import math
import os
from pathlib import Path

__all__ = ["physical_cores", "usable_cpus"]

CGROUP = Path("/sys/fs/cgroup")
CPUS = Path("/sys/devices/system/cpu")


def usable_cpus() -> set[int]:
    """Logical processors this process may run on. Where the system does not say, all of them."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def physical_cores(*, cgroup: Path = CGROUP, cpus: Path = CPUS) -> int:
    """Physical cores this process may use: by its affinity, threads of one core counted once, and by its quota."""
    usable = usable_cpus()
    cores = {_siblings(cpus, cpu) for cpu in usable}
    quota = _quota(cgroup)
    return max(1, len(cores) if quota is None else min(len(cores), math.floor(quota)))


def _siblings(cpus: Path, cpu: int) -> str:
    try:
        return (cpus / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return f"cpu{cpu}"


def _quota(cgroup: Path) -> float | None:
    """Processors the container may use on average: cgroup v2, then v1. None without a limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text(encoding="ascii").split()[:2]
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        pass
    try:
        granted = int((cgroup / "cpu" / "cpu.cfs_quota_us").read_text(encoding="ascii"))
        return None if granted <= 0 else granted / int((cgroup / "cpu" / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError, ZeroDivisionError):
        return None
