"""Processor seconds and memory of a process tree, on processes that burn a known amount."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from servolt.host import ProcessTree, machine_busy_s, own_cpu_s

BURN = "import time\nwhile time.process_time() < 0.4: pass\n"
PARENT = (
    f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN!r}])\nprint('done', flush=True)\ninput()\n"
)


def test_a_child_that_has_ended_is_counted_once() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        seconds = ProcessTree(parent.pid).cpu_s()
        parent.communicate(b"\n")
    assert seconds is not None
    assert 0.38 <= seconds < 0.78


def test_a_process_that_is_gone_is_unknown_and_not_zero() -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        process.wait()
    assert ProcessTree(process.pid).cpu_s() is None
    assert ProcessTree(process.pid).resident_bytes() is None


def test_the_machine_was_at_least_as_busy_as_this_process() -> None:
    machine, own = machine_busy_s(), own_cpu_s()
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    ticks = 2 / os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 0.05
    assert machine_busy_s() - machine >= own_cpu_s() - own - ticks


STAT = """cpu  900 0 900 0 0 0 0 0 0 0
cpu0 100 10 20 5000 7 1 2 300 50 0
cpu2 400 0 0 5000 0 0 0 0 0 0
cpu3 100 0 100 5000 0 0 0 0 0 0
intr 1 2 3
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc/stat")
@pytest.mark.parametrize(
    ("usable", "ticks"),
    [
        ({0}, 133),  # user, nice, system, irq, softirq: neither idle nor steal
        ({0, 3}, 333),  # by number, though cpu1 is offline and cpu3 the third line
        ({0, 2, 3}, 733),
        ({8, 9}, 733),  # a container that is shown three processors of its own
    ],
)
def test_only_the_processors_that_we_may_use_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, usable: set[int], ticks: int
) -> None:
    (tmp_path / "stat").write_text(STAT)
    monkeypatch.setattr("servolt.host.cpu.usable_cpus", lambda: usable)
    assert machine_busy_s(proc=tmp_path) == pytest.approx(ticks / os.sysconf("SC_CLK_TCK"))


def test_resident_memory_is_that_of_the_process() -> None:
    seen = ProcessTree(os.getpid()).resident_bytes()
    assert seen is not None
    assert seen > 10_000_000
