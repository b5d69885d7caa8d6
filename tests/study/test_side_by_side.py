"""The chain over several deployments, against the replay engine's stated law."""

import asyncio
import json
from pathlib import Path

import pytest

from servolt import settings
from servolt.compare import compare
from servolt.deployment import Deployment
from servolt.errors import EngineError, InvalidInputError, StorageError
from servolt.measure import measurement_from_files
from servolt.metrics import Metrics
from servolt.results import FolderStore, Stored
from servolt.settings import Folders
from servolt.sources import find_model
from servolt.study.keep import read_calibration
from servolt.study.side_by_side import Step, measure_side_by_side, order
from servolt.workload import Workload

# A step of 4 ms against one of 8 ms: output throughput of one stream differs by a factor of 2 less prefill.
QUICK = "replay?step_s=0.004&step_s_per_sequence=0&prefill_s_per_token=0.0001"
SLOW = "replay?step_s=0.008&step_s_per_sequence=0&prefill_s_per_token=0.0001"
LOAD = Workload(concurrency=(1,), input_len=20, output_len=20, duration_s=0.5, repetitions=2, warmup_requests=1)


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return settings.folders({"SERVOLT_HOME": str(tmp_path)})


def replay(law: str) -> Deployment:
    return Deployment(model=law, engine="replay", max_num_seqs=4)


def measured(folders: Folders, *laws: str) -> list[Stored]:
    return asyncio.run(measure_side_by_side([replay(law) for law in laws], LOAD, folders))


def test_every_other_block_runs_backwards() -> None:
    taken = [(block, deployment) for block, _, deployment in order(3, 2)]
    assert taken == [(0, 0), (0, 1), (0, 2), (1, 2), (1, 1), (1, 0)]


def test_the_law_is_recovered_and_the_results_follow_from_the_raw_samples(folders: Folders) -> None:
    stored = measured(folders, QUICK, SLOW)
    for one, step_s in zip(stored, (0.004, 0.008), strict=True):
        tpot = Metrics(items=one.measurement.results).get("tpot", statistic="mean", concurrency=1)
        assert tpot is not None
        # a busy machine makes steps late, and a late first token shortens the time that the others seem to take
        assert tpot.value == pytest.approx(step_s, rel=0.3)
        again = FolderStore(folders.measurements).recompute(one, measurement_from_files)
        assert again == (one.path / "measurement.json").read_bytes()


def test_measurements_of_one_study_can_be_compared(folders: Folders) -> None:
    stored = measured(folders, QUICK, SLOW)
    first, second = (one.measurement for one in stored)
    assert first.study == second.study
    assert [window.block for window in first.windows] == [0, 1]
    assert [window.position for window in first.windows] == [0, 1]
    comparison = compare([first, second])
    assert comparison.interleaved
    throughput = next(change for change in comparison.changes if change.metric == "output_throughput")
    assert throughput.change is not None
    assert throughput.change < -0.2
    assert throughput.verdict == "undecided"  # two blocks can't decide anything


def test_a_measurement_carries_what_was_predicted_and_teaches_the_next_plan(folders: Folders) -> None:
    assert read_calibration(folders).measurements == 0
    (one,) = measured(folders, QUICK)
    assert one.measurement.prediction is not None
    assert one.measurement.prediction.items
    assert read_calibration(folders).measurements == 1


def test_without_a_counter_energy_is_null_and_said_in_words(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servolt.study.side_by_side.find_meter", lambda: (None, "not measured: no readable counter"))
    (one,) = measured(folders, QUICK)
    energy = Metrics(items=one.measurement.results).get("energy_per_output_token", concurrency=1)
    assert energy is not None
    assert energy.value is None
    assert energy.reason == "not measured: no readable counter"


def test_what_is_kept_names_no_folder_of_this_machine(folders: Folders, tmp_path: Path) -> None:
    path = tmp_path / "private" / "mine.gguf"
    path.parent.mkdir()
    path.symlink_to(find_model(Deployment.of("guide")).files[0])
    deployment = Deployment.of(str(path))
    (one,) = asyncio.run(measure_side_by_side([deployment], LOAD, folders))
    assert one.measurement.deployment.model == "mine.gguf"
    assert one.measurement.deployment_digest == deployment.digest
    for file in ("run.json", "measurement.json"):
        text = (one.path / file).read_text()
        assert str(tmp_path) not in text
        assert str(Path.home()) not in text


def test_a_deployment_named_twice_is_refused(folders: Folders) -> None:
    with pytest.raises(InvalidInputError, match="twice"):
        measured(folders, QUICK, QUICK)


def test_progress_counts_every_window(folders: Folders) -> None:
    steps: list[Step] = []
    asyncio.run(measure_side_by_side([replay(QUICK)], LOAD, folders, on_step=steps.append))
    assert (steps[-1].done, steps[-1].total) == (2, 2)


def test_an_engine_that_does_not_start_keeps_nothing(folders: Folders) -> None:
    broken = Deployment(model="guide", engine_executable="/bin/false", threads=1)
    with pytest.raises(EngineError):
        asyncio.run(measure_side_by_side([broken], LOAD, folders))
    assert not folders.measurements.exists()


def test_blocks_that_are_whole_are_kept_when_an_engine_dies(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    from servolt.measure import RawWindow, measure_window

    calls = 0

    async def dies_in_the_last_window(*args: object, **kwargs: object) -> RawWindow:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise EngineError("the engine died.", "Look at its log.")
        return await measure_window(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr("servolt.study.side_by_side.measure_window", dies_in_the_last_window)
    with pytest.raises(EngineError, match="1 of 2 blocks were complete and are kept"):
        measured(folders, QUICK, SLOW)
    kept = FolderStore(folders.measurements).list()
    assert [len(one.measurement.windows) for one in kept] == [1, 1]


def test_the_run_file_is_plain_json(folders: Folders) -> None:
    (one,) = measured(folders, QUICK)
    assert json.loads((one.path / "run.json").read_text())["schema"] == "servolt.run/1"


def test_requests_longer_than_the_context_are_refused_before_anything_starts(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("an engine was to be started")

    monkeypatch.setattr("servolt.serve.supervisor.Supervisor.ensure_ready", never)
    deployment = replay(QUICK).model_copy(update={"max_model_len": 512})
    workload = LOAD.model_copy(update={"input_len": 500, "output_len": 100})
    with pytest.raises(InvalidInputError, match=r"600 tokens is longer than the context of 512"):
        asyncio.run(measure_side_by_side([deployment], workload, folders))


def test_what_was_measured_is_kept_and_named_when_the_calibration_can_not_be_written(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageError("no space.", "Free some.")

    monkeypatch.setattr("servolt.study.side_by_side.write_document", full)
    with pytest.raises(StorageError, match="no space") as caught:
        measured(folders, QUICK)
    (kept,) = FolderStore(folders.measurements).list()
    assert f"kept, as {kept.measurement.id[:12]}" in caught.value.cause
