"""What machine this is, without names, addresses or serial numbers."""

import platform
from pathlib import Path

import psutil

from servolt.cores import physical_cores, usable_cpus
from servolt.gpu import Accelerator
from servolt.measurement import Host

__all__ = ["available_memory_bytes", "cpu_accelerator", "cpu_name", "host_facts", "memory_bytes"]

PROC = Path("/proc")
SYS = Path("/sys")
NO_LIMIT = 2**62  # cgroup v1 writes a number near 2**63 where no limit is set


def host_facts(*, proc: Path = PROC, sys: Path = SYS) -> Host:
    """The machine as the measurement keeps it."""
    return Host(
        cpu=cpu_name(proc),
        architecture=platform.machine(),
        physical_cores=psutil.cpu_count(logical=False),
        usable_cores=min(physical_cores(), len(usable_cpus())),
        memory_bytes=memory_bytes(sys),
        os=_os(),
        kernel=platform.release(),
        python=platform.python_version(),
        virtualised=_virtualised(proc),
        governor=_text(sys / "devices/system/cpu/cpu0/cpufreq/scaling_governor"),
    )


def cpu_accelerator(
    *,
    source: str,
    sys: Path = SYS,
) -> Accelerator:
    """This host as an accelerator, without speeds: nothing here measures them."""
    return Accelerator(
        name=cpu_name() or platform.machine(),
        kind="cpu",
        count=physical_cores(),
        memory_bytes=memory_bytes(sys),
        available_bytes=available_memory_bytes(sys),
        source=source,
    )


def cpu_name(proc: Path = PROC) -> str | None:
    """As the processor calls itself."""
    for line in (_text(proc / "cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "cpu model") and value.strip():
            return value.strip()
    return platform.processor() or None


def memory_bytes(sys: Path = SYS) -> int:
    """Installed, or the container's limit where that is less."""
    installed = int(psutil.virtual_memory().total)
    limit = _cgroup(sys, "memory.max", "memory/memory.limit_in_bytes")
    return installed if limit is None else min(installed, limit)


def available_memory_bytes(sys: Path = SYS) -> int:
    """What a new process can take without swapping, the container's limit kept."""
    available = int(psutil.virtual_memory().available)
    limit = _cgroup(sys, "memory.max", "memory/memory.limit_in_bytes")
    used = _cgroup(sys, "memory.current", "memory/memory.usage_in_bytes")
    if limit is None or used is None:
        return available
    return max(0, min(available, limit - used))


def _cgroup(sys: Path, unified: str, legacy: str) -> int | None:
    """A number of this container's cgroup, v2 then v1; None without a limit."""
    text = _text(sys / "fs/cgroup" / unified) or _text(sys / "fs/cgroup" / legacy)
    if text is None or not text.isdigit() or int(text) >= NO_LIMIT:
        return None
    return int(text)


def _os() -> str:
    if platform.system() != "Linux":
        return f"{platform.system()} {platform.release()}"
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


def _virtualised(proc: Path) -> bool | None:
    """x86 processors show their hypervisor as a flag; elsewhere it is not known."""
    for line in (_text(proc / "cpuinfo") or "").splitlines():
        if line.startswith("flags"):
            return "hypervisor" in line.split()
    return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None
