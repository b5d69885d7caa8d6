"""The RAPL reader on a made-up powercap tree; the layout is that of the kernel's Documentation/power/powercap."""

from pathlib import Path

import pytest

from servolt.meters import find_meter
from servolt.meters.rapl import RaplMeter

RANGE_UJ = 262_143_328_850  # of a Xeon, as its max_energy_range_uj says


def _zone(root: Path, folder: str, name: str, energy_uj: int) -> Path:
    zone = root / folder
    zone.mkdir(parents=True)
    (zone / "name").write_text(f"{name}\n")
    (zone / "energy_uj").write_text(f"{energy_uj}\n")
    (zone / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    return zone


def test_joules_grow_from_where_the_meter_began(tmp_path: Path) -> None:
    zone = _zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    meter = RaplMeter(tmp_path)
    assert meter.read() == {"package-0": 0.0}
    (zone / "energy_uj").write_text("7500000\n")
    assert meter.read() == {"package-0": 2.5}


class _Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_wrap_is_unfolded(tmp_path: Path) -> None:
    zone, clock = _zone(tmp_path, "intel-rapl:0", "package-0", RANGE_UJ - 1_000_000), _Clock()
    meter = RaplMeter(tmp_path, clock)
    meter.read()
    for _ in range(2):
        clock.now += 0.02
        (zone / "energy_uj").write_text("2000000")
        joules = meter.read()["package-0"]
    assert joules == pytest.approx(3.0)


def test_a_wrap_between_two_readings_in_one_period_is_one_too(tmp_path: Path) -> None:
    zone, clock = _zone(tmp_path, "intel-rapl:0", "package-0", RANGE_UJ - 100_000), _Clock()
    meter = RaplMeter(tmp_path, clock)
    meter.read()
    clock.now += 20e-6
    (zone / "energy_uj").write_text("100000")  # 0.2 J, which 200 W are in a period of 1 ms
    assert meter.read() == {"package-0": pytest.approx(0.2)}


@pytest.mark.parametrize("has_range", [True, False])
def test_a_counter_that_was_reset_is_absent_from_then_on_and_never_262_kilojoules(
    tmp_path: Path, has_range: bool
) -> None:
    zone, clock = _zone(tmp_path, "intel-rapl:0", "package-0", 9_000_000), _Clock()
    _zone(tmp_path, "intel-rapl:1", "package-1", 5)
    meter = RaplMeter(tmp_path, clock)
    meter.read()
    clock.now += 10
    (zone / "energy_uj").write_text("1000000")
    if not has_range:
        (zone / "max_energy_range_uj").unlink()
    assert meter.read() == {"package-1": 0.0}
    clock.now += 10
    (zone / "energy_uj").write_text("2000000")
    assert meter.read() == {"package-1": 0.0}
    assert "package-0 was reset" in meter.why_absent()


def test_every_package_is_read_and_their_parts_are_not_read_twice(tmp_path: Path) -> None:
    _zone(tmp_path, "intel-rapl:0", "package-0", 1)
    _zone(tmp_path, "intel-rapl:1", "package-1", 1)
    _zone(tmp_path, "intel-rapl:0:0", "core", 1)
    _zone(tmp_path, "intel-rapl:2", "psys", 1)
    (tmp_path / "intel-rapl").mkdir()
    assert set(RaplMeter(tmp_path).read()) == {"package-0", "package-1"}


def test_a_counter_that_may_not_be_read_is_absent_and_the_reason_is_said(tmp_path: Path) -> None:
    zone = _zone(tmp_path, "intel-rapl:0", "package-0", 1)
    # root reads any file, so a folder stands where the counter was: it can't be read by anyone
    (zone / "energy_uj").unlink()
    (zone / "energy_uj").mkdir()
    assert RaplMeter(tmp_path).read() == {}
    meter, reason = find_meter([RaplMeter(tmp_path)])
    assert meter is None
    assert reason.startswith("not measured: no readable counter")
    assert "root" in reason


def test_a_machine_without_powercap_has_no_meter_and_says_so(tmp_path: Path) -> None:
    meter, reason = find_meter([RaplMeter(tmp_path / "absent")])
    assert meter is None
    assert reason == (
        "not measured: no readable counter (this machine shows no powercap folder, as most virtual machines don't)"
    )


def test_a_readable_counter_is_found(tmp_path: Path) -> None:
    _zone(tmp_path, "intel-rapl:0", "package-0", 1)
    meter, reason = find_meter([RaplMeter(tmp_path)])
    assert meter is not None
    assert meter.name == "rapl"
    assert "package-0" in reason
