import asyncio
import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servolt import registry, settings
from servolt.deployment import Deployment
from servolt.errors import EngineError, StorageError
from servolt.host import host_facts
from servolt.host.facts import cpu_accelerator
from servolt.measurement import Measurement, Validity
from servolt.plan import Calibration
from servolt.plan.calibration import constants_for
from servolt.plan.fit import ProbePoint
from servolt.plan.speed import default_constants
from servolt.results import FolderStore
from servolt.settings import Folders
from servolt.sources import find_model
from servolt.study import doctor
from servolt.study.doctor import Calibrated, Probe, agree, calibrate, calibrated, known_here
from servolt.study.keep import read_accelerator, read_calibration
from servolt.study.plan import plan_here
from servolt.study.probe import ProbeShape
from servolt.workload import Workload

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
    said: list[tuple[int, int, str]] = []
    found = calibrate(folders, lambda *step: said.append(step))
    assert read_calibration(folders).constants == (found.constants,)
    here = read_accelerator(folders)
    assert here.bandwidth_bytes_per_s == found.accelerator.bandwidth_bytes_per_s
    assert here.available_bytes is not None
    assert constants_for(read_calibration(folders), Deployment.of("guide"), here, None) == found.constants
    assert not list(folders.cache.iterdir())
    assert [done for done, _, _ in said] == list(range(said[0][1]))


@pytest.mark.slow
def test_what_it_finds_is_within_what_processors_can_do(folders: Folders) -> None:
    found = asyncio.run(calibrated(folders, PROBES, 1, lambda *step: None))
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
            await calibrated(folders, PROBES, 1, lambda *step: None)
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


@pytest.fixture
def machine_speed(monkeypatch: pytest.MonkeyPatch) -> Calibrated:
    """What a calibration finds, without the seconds of finding it."""
    machine = cpu_accelerator(source="a test").model_copy(update={"bandwidth_bytes_per_s": 1e10})
    constants = default_constants("llamacpp", machine, 1).model_copy(update={"accelerator": machine.name})
    found = Calibrated(machine, constants)

    async def measured(*_: object) -> Calibrated:
        return found

    monkeypatch.setattr(doctor, "calibrated", measured)
    return found


def keep(folders: Folders, number: int, verdict: str = "valid") -> None:
    """A measurement of the built-in model in the store, as fast as the plan said."""
    deployment, workload = Deployment.of("guide:q8_0"), Workload()
    plan = plan_here(deployment, workload, folders)
    measurement = Measurement(
        id=f"{number:064x}",
        tool_version="0",
        created=f"2026-01-01T00:00:{number:02}Z",
        deployment=deployment,
        deployment_digest=deployment.digest,
        engine="llamacpp",
        engine_version=plan.engine_version,
        model=find_model(deployment),
        accelerators=(plan.accelerator,),
        host=host_facts(),
        workload=workload,
        workload_digest=workload.digest,
        windows=(),
        samples=(),
        results=tuple(one.model_copy(update={"basis": "measured"}) for one in plan.estimates),
        validity=Validity(verdict=verdict),
    )
    store = FolderStore(folders.measurements)
    store.save(b"{}", {"requests": {"n": np.array([1])}, "events": {"n": np.array([1])}}, lambda *_: measurement)


def test_calibrating_again_forgets_nothing_that_was_measured(folders: Folders, machine_speed: Calibrated) -> None:
    for number, verdict in enumerate(("valid", "degraded", "invalid", "valid")):
        keep(folders, number, verdict)
    calibrate(folders)
    first = read_calibration(folders)
    assert first.measurements == 3  # an invalid one teaches nothing
    assert [one.measurement for one in first.observations] == sorted(one.measurement for one in first.observations)
    calibrate(folders)
    assert read_calibration(folders) == first


def test_a_measurement_of_an_engine_that_is_gone_does_not_stop_the_calibration(
    folders: Folders, machine_speed: Calibrated, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(folders, 1)
    whole = FolderStore(folders.measurements).list()[0].measurement
    gone = whole.model_copy(update={"id": "f" * 64, "engine": "sold-off"})
    assert doctor._taught(Calibration(), [gone, whole]).measurements == 1


def test_what_is_damaged_is_found_and_replaced(folders: Folders, machine_speed: Calibrated) -> None:
    folders.data.mkdir(parents=True)
    folders.calibration.write_text("{")
    folders.accelerator.write_text('{"schema": "servolt.accelerator/9"}')
    known = known_here(folders)
    assert [one.code for one in known.problems] == ["accelerator_unreadable", "calibration_unreadable"]
    assert known.calibration == Calibration()
    assert str(folders.data) not in " ".join(one.message for one in known.problems)
    assert all("doctor --calibrate" in one.remedy for one in known.problems)
    calibrate(folders)
    assert known_here(folders).problems == ()
    assert read_calibration(folders).constants == (machine_speed.constants,)
    assert read_accelerator(folders).bandwidth_bytes_per_s == 1e10


def test_folders_that_can_not_be_written_are_told_before_anything_is_measured(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the machine was measured")

    monkeypatch.setattr(doctor, "calibrated", never)
    folders.data.parent.mkdir(parents=True, exist_ok=True)
    folders.data.write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="SERVOLT_HOME"):
        calibrate(folders)


def test_rounds_that_tell_the_same_agree() -> None:
    model = find_model(Deployment.of("guide:q8_0"))
    first = [ProbePoint(model, 1, 8, 0, seconds) for seconds in (1.0, 2.0, 3.0)]
    assert agree(first, [one._replace(seconds=one.seconds * 1.06) for one in first])
    assert agree(first, [*first[:2], first[2]._replace(seconds=9.0)])  # one disturbed point of three
    assert not agree(first, [one._replace(seconds=one.seconds * 1.2) for one in first])


def test_a_machine_that_was_never_calibrated_has_no_speeds(folders: Folders) -> None:
    assert read_calibration(folders) == Calibration()
    assert read_accelerator(folders).bandwidth_bytes_per_s is None
    assert read_accelerator(folders).name == cpu_accelerator(source="a test").name
