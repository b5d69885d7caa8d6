"""Cores this process may use, from a made-up machine."""

import os
from pathlib import Path

import pytest

from servolt import cores


@pytest.fixture
def four_threads_on_two_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for cpu, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        topology = tmp_path / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{siblings}\n", encoding="ascii")
    monkeypatch.setattr(cores, "usable_cpus", lambda: {0, 1, 2, 3})
    return tmp_path


def test_threads_of_one_core_count_once(four_threads_on_two_cores: Path) -> None:
    assert cores.physical_cores(cgroup=Path("/none"), cpus=four_threads_on_two_cores) == 2


def test_affinity_counts(four_threads_on_two_cores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "usable_cpus", lambda: {0, 2})
    assert cores.physical_cores(cgroup=Path("/none"), cpus=four_threads_on_two_cores) == 1


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("cpu.max", "150000 100000\n", 1),
        ("cpu.max", "max 100000\n", 2),
        ("cpu.max", "20000 100000\n", 1),
        ("cpu.max", "800000 100000\n", 2),
        ("cpu.max", "nonsense", 2),
        ("cpu/cpu.cfs_quota_us", "100000", 1),
        ("cpu/cpu.cfs_quota_us", "-1", 2),
    ],
)
def test_the_containers_quota_counts(four_threads_on_two_cores: Path, file: str, content: str, expected: int) -> None:
    cgroup = four_threads_on_two_cores / "cgroup"
    (cgroup / "cpu").mkdir(parents=True)
    (cgroup / "cpu" / "cpu.cfs_period_us").write_text("100000", encoding="ascii")
    (cgroup / file).write_text(content, encoding="ascii")
    assert cores.physical_cores(cgroup=cgroup, cpus=four_threads_on_two_cores) == expected


def test_where_nothing_is_said_every_processor_is_a_core() -> None:
    assert cores.physical_cores(cgroup=Path("/none"), cpus=Path("/none")) == len(cores.usable_cpus())
    assert cores.usable_cpus() <= set(range(os.cpu_count() or 1))
