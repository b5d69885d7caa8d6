import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from servolt import registry, settings
from servolt.deployment import Deployment
from servolt.errors import EngineError
from servolt.host.facts import cpu_accelerator
from servolt.plan import Calibration
from servolt.plan.calibration import constants_for
from servolt.settings import Folders
from servolt.study import doctor
from servolt.study.doctor import Probe, calibrate, calibrated
from servolt.study.keep import read_accelerator, read_calibration
from servolt.study.probe import ProbeShape

# Smaller and fewer than the real ones, so that a second is enough; what they tell of the machine is rough.
PROBES = (
    Probe("thin", ProbeShape(2, 128, 256, 4, 2, 32, 512, True), "f16", (1, 4), 16, 64),
    Probe("deep", ProbeShape(12, 128, 256, 4, 2, 32, 512, True), "f16", (1, 4), 8, 32),
    Probe("wide", ProbeShape(4, 384, 1024, 6, 3, 64, 2048, True), "f16", (1, 4), 8, 64),
)


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return settings.folders({"SERVOLT_HOME": str(tmp_path)})


@pytest.mark.slow
def test_a_calibration_with_the_engine_itself_is_written_and_the_next_plan_takes_it(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "PROBES", PROBES)
    monkeypatch.setattr(doctor, "ROUNDS", 1)
    said: list[str] = []
    found = calibrate(folders, said.append)
    assert read_calibration(folders).constants == (found.constants,)
    here = read_accelerator(folders)
    assert here.bandwidth_bytes_per_s == found.accelerator.bandwidth_bytes_per_s
    assert here.available_bytes is not None
    assert constants_for(read_calibration(folders), Deployment.of("guide"), here, None) == found.constants
    assert not list(folders.cache.iterdir())
    assert said


@pytest.mark.slow
def test_what_it_finds_is_within_what_processors_can_do(folders: Folders) -> None:
    found = asyncio.run(calibrated(folders, PROBES, 1, lambda line: None))
    speed = found.constants.weights["f16"]
    assert 1e8 < speed.flops_per_s < 1e14
    assert 1e8 < speed.small_bytes_per_s < 1e13
    assert found.accelerator.bandwidth_bytes_per_s is not None
    assert 1e8 < found.accelerator.bandwidth_bytes_per_s < 1e13
    assert 0 <= found.constants.sequence_s < 0.1
    assert "doctor --calibrate" in found.constants.source


def test_the_probes_pin_down_every_constant() -> None:
    """Two sizes of each data type, two numbers of layers, and more than one number of streams."""
    dtypes = {probe.dtype for probe in doctor.PROBES}
    assert dtypes == {"f16", "q8_0"}
    assert all(sum(probe.dtype == dtype for probe in doctor.PROBES) >= 2 for dtype in dtypes)
    assert len({probe.shape.layers for probe in doctor.PROBES}) > 1
    assert all(len(probe.streams) > 1 and max(probe.streams) <= doctor.SLOTS for probe in doctor.PROBES)


def test_where_one_engine_does_not_start_none_is_left_running(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[str] = []

    async def start(stack: contextlib.AsyncExitStack, probe: Probe, room: Path, logs: Path) -> None:
        if probe.name == "thin":
            raise EngineError("it did not start.", "Look at its log.")
        await asyncio.sleep(0.05)
        alive.append(probe.name)

        async def stop() -> None:
            alive.remove(probe.name)

        stack.push_async_callback(stop)

    monkeypatch.setattr(doctor, "_start", start)
    monkeypatch.setattr(doctor, "read_bytes_per_s", lambda threads: 1e10)

    async def run() -> list[str]:
        with pytest.raises(EngineError, match="did not start"):
            await calibrated(folders, PROBES, 1, lambda line: None)
        await asyncio.sleep(0.1)
        return alive

    assert asyncio.run(run()) == []


def test_what_other_programs_used_is_not_known_without_the_engines_own_time() -> None:
    engine = registry.engine("llamacpp")
    assert doctor._source(engine, 1, None).endswith("1 thread; whether other programs disturbed it is not known")
    assert doctor._source(engine, 1, 0.01).endswith("1 thread")
    assert doctor._source(engine, 1, 0.5).endswith("other programs used 50% of the processors")
    unknown: Any = doctor._Running(PROBES[0], None, None, "", None)  # type: ignore[arg-type]
    assert doctor._foreign_s([unknown]) is None


def test_a_machine_that_was_never_calibrated_has_no_speeds(folders: Folders) -> None:
    assert read_calibration(folders) == Calibration()
    assert read_accelerator(folders).bandwidth_bytes_per_s is None
    assert read_accelerator(folders).name == cpu_accelerator(source="a test").name
