"""What this machine says of itself, and what a made-up one says."""

import socket
from pathlib import Path

from servolt.host import cpu_accelerator, host_facts
from servolt.host.facts import cpu_name, memory_bytes


def test_the_facts_hold_no_name_of_the_machine() -> None:
    assert socket.gethostname() not in host_facts().model_dump_json()


def test_what_cannot_be_known_is_none(tmp_path: Path) -> None:
    facts = host_facts(proc=tmp_path, sys=tmp_path)
    assert facts.governor is None
    assert facts.virtualised is None
    assert facts.usable_cores >= 1


def test_the_hypervisor_and_the_governor_are_read_where_they_stand(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("model name\t: Some CPU @ 3 GHz\nflags\t\t: fpu avx2 hypervisor\n")
    governor = tmp_path / "devices/system/cpu/cpu0/cpufreq/scaling_governor"
    governor.parent.mkdir(parents=True)
    governor.write_text("performance\n")
    facts = host_facts(proc=tmp_path, sys=tmp_path)
    assert (facts.cpu, facts.virtualised, facts.governor) == ("Some CPU @ 3 GHz", True, "performance")


def test_a_container_has_the_memory_that_it_may_use(tmp_path: Path) -> None:
    limit = tmp_path / "fs/cgroup/memory.max"
    limit.parent.mkdir(parents=True)
    limit.write_text("1073741824\n")
    (tmp_path / "fs/cgroup/memory.current").write_text("73741824\n")
    assert memory_bytes(tmp_path) == 1073741824
    accelerator = cpu_accelerator(source="a test", sys=tmp_path)
    assert accelerator.memory_bytes == 1073741824
    assert accelerator.available_bytes is not None
    assert accelerator.available_bytes <= 1_000_000_000
    limit.write_text("max\n")
    assert memory_bytes(tmp_path) > 1073741824


def test_a_host_without_known_speed_is_an_accelerator_without_a_speed() -> None:
    accelerator = cpu_accelerator(source="a test")
    assert accelerator.kind == "cpu"
    assert accelerator.bandwidth_bytes_per_s is None
    assert accelerator.name == (cpu_name() or accelerator.name)
