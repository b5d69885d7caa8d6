"""A measurement on disk is whole or it is not there."""

import errno
import hashlib
import json
import os
import resource
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servolt import __version__
from servolt.errors import InvalidInputError, StorageError
from servolt.measure import measurement_from_files
from servolt.measurement import Measurement
from servolt.results import FolderStore, Table
from servolt.results.parquet import read_table, write_table

RUN: dict[str, Any] = {
    "schema": "servolt.run/1",
    "tool_version": "0",
    "created": "2026-11-20T19:03:04.120Z",
    "deployment": {"model": "guide"},
    "engine": None,
    "engine_version": None,
    "model": None,
    "host": {
        "cpu": None, "architecture": "x", "physical_cores": 1, "usable_cores": 1, "memory_bytes": 1, "os": "x",
        "kernel": "x", "python": "x",
    },
    "workload": {"output_len": 4, "input_len": 8},
    "windows": [
        {"index": 0, "repetition": 0, "block": 0, "position": 0, "concurrency": 1, "start_ns": 0, "end_ns": 10**9}
    ],
    "meter_note": "not measured: no readable counter",
}  # fmt: skip


def _tables(requests: int = 20) -> dict[str, Table]:
    count = np.arange(requests)
    starts = count * (10**9 // requests)
    unknown = np.ma.MaskedArray(np.zeros(requests, dtype=np.int64), mask=True)
    return {
        "requests": {
            "window": np.zeros(requests, dtype=np.int32), "i": count, "s_ns": starts, "d_ns": starts + 1000,
            "c1_ns": starts + 10**6, "c_last_ns": starts + 4 * 10**6,
            "e_ns": np.ma.MaskedArray(starts + 4 * 10**6, mask=count == 3),
            "n_in": np.full(requests, 8), "n_out": np.full(requests, 4), "cached": np.zeros(requests, dtype=np.int64),
            "prefill_ns": unknown, "decode_ns": unknown, "http_status": np.full(requests, 200),
            "events": np.full(requests, 4), "running_count": np.ones(requests, dtype=bool),
            "outcome": np.array(["completed"] * requests, dtype=object),
            "finish_reason": np.ma.MaskedArray(np.array(["length"] * requests, dtype=object), mask=count == 5),
            "worker": np.zeros(requests, dtype=np.int32),
        },
        "events": {
            "window": np.zeros(4 * requests, dtype=np.int32), "i": np.repeat(count, 4),
            "t_ns": np.repeat(starts, 4) + np.tile(np.arange(1, 5) * 10**6, requests),
            "tokens": np.ones(4 * requests, dtype=np.uint16),
            "lag_ns": np.full(4 * requests, 30_000),
        },
    }  # fmt: skip


def _run(**fields: Any) -> bytes:
    return json.dumps(RUN | fields).encode()


def _save(store: FolderStore, **fields: Any) -> Any:
    return store.save(_run(**fields), _tables(), measurement_from_files)


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "measurements")
    stored = _save(store)
    assert stored.path.name == f"20261120T190304Z-{stored.measurement.id[:12]}"
    assert store.load(stored.path).measurement == stored.measurement
    assert [one.measurement.id for one in store.list()] == [stored.measurement.id]
    assert {file.name for file in stored.path.iterdir()} == {
        "events.parquet", "manifest.json", "measurement.json", "requests.parquet", "run.json",
    }  # fmt: skip


def test_recomputing_gives_the_same_bytes(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    stored = _save(store)
    assert store.recompute(stored, measurement_from_files) == (stored.path / "measurement.json").read_bytes()


def test_tables_read_back_as_they_were(tmp_path: Path) -> None:
    for name, table in _tables().items():
        write_table(tmp_path / f"{name}.parquet", table)
        read = read_table(tmp_path / f"{name}.parquet")
        assert list(read) == list(table)
        for column, values in table.items():
            mask = np.ma.getmaskarray(np.ma.asarray(values))
            assert np.ma.getmaskarray(np.ma.asarray(read[column])).tolist() == mask.tolist()
            assert np.asarray(read[column])[~mask].tolist() == np.asarray(values)[~mask].tolist()


def test_a_measurement_is_found_by_the_first_digits_of_its_id(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    first, second = _save(store), _save(store, created="2026-11-21T08:00:00Z")
    assert store.find(second.measurement.id[:8]).path == second.path
    assert store.find(first.path.name).path == first.path
    assert store.find("latest").path == second.path
    with pytest.raises(InvalidInputError, match="no measurement"):
        store.find("zz")


def test_digits_that_name_two_are_refused(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    seen: set[str] = set()
    for hour in range(24):
        for minute in range(60):
            two = _save(store, created=f"2026-11-20T{hour:02}:{minute:02}:00Z").measurement.id[:2]
            if two in seen:
                with pytest.raises(InvalidInputError, match="more digits"):
                    store.find(two)
                return
            seen.add(two)
    pytest.fail("256 prefixes and no pair")


def test_an_empty_or_absent_store_lists_nothing(tmp_path: Path) -> None:
    assert FolderStore(tmp_path / "absent").list() == []
    with pytest.raises(InvalidInputError):
        FolderStore(tmp_path / "absent").find("latest")


def test_a_half_written_folder_is_never_taken_for_a_whole_one(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    stored = _save(store)
    for missing in ("manifest.json", "events.parquet", "measurement.json"):
        half = tmp_path / "half"
        shutil.copytree(stored.path, half)
        (half / missing).unlink()
        with pytest.raises(StorageError):
            store.load(half)
        shutil.rmtree(half)
    (tmp_path / ".partial-abc").mkdir()
    assert len(store.list()) == 1


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    stored = _save(store)
    with (stored.path / "events.parquet").open("ab") as file:
        file.write(b"x")
    with pytest.raises(StorageError, match=r"events\.parquet"):
        store.load(stored.path)
    with pytest.raises(StorageError, match=r"events\.parquet"):
        store.recompute(stored, measurement_from_files)


@pytest.mark.parametrize("name", ["events.parquet", "measurement.json", "run.json"])
def test_a_file_that_differs_from_the_manifest_is_named_and_its_run_left_out(tmp_path: Path, name: str) -> None:
    store = FolderStore(tmp_path)
    broken, whole = _save(store), _save(store, created="2026-11-21T08:00:00Z")
    with (broken.path / name).open("ab") as file:
        file.write(b" ")
    identity = broken.measurement.id[:12]
    with pytest.raises(StorageError, match=rf"{identity} is damaged: {name} differs from its manifest"):
        store.find(identity)
    survey = store.survey()
    assert [one.path for one in survey.whole] == [whole.path]
    assert [(one.id, one.kind) for one in survey.faults] == [(identity, "damaged")]
    assert survey.faults[0].measurement == broken.measurement  # what it says of itself can still be read


def test_a_changed_byte_of_the_samples_is_found_by_what_shows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderStore(tmp_path)
    stored = _save(store)
    file = stored.path / "events.parquet"
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    for name in ("latest", stored.measurement.id[:8], stored.path.name):
        with pytest.raises(StorageError, match=r"damaged: events\.parquet differs"):
            store.find(name)
    assert store.list() == []
    monkeypatch.setattr("servolt.results.look.SMALL", 100)
    assert store.list()  # of large files a list checks the size only


def _rewrite(stored: Any, **changes: Any) -> None:
    """As another servolt would have written it: the manifest vouches for the file."""
    file, manifest = stored.path / "measurement.json", stored.path / "manifest.json"
    text = json.dumps({**json.loads(file.read_text()), **changes}).encode()
    file.write_bytes(text)
    sealed = json.loads(manifest.read_text())
    sealed["files"][file.name] = {"sha256": hashlib.sha256(text).hexdigest(), "bytes": len(text)}
    manifest.write_text(json.dumps(sealed))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"tool_version": "99.1.0", "host": {}}, "servolt 99.1.0 wrote it, which is newer than this one"),
        ({"tool_version": "0.0.1", "host": {}}, "servolt 0.0.1 wrote it, in a form that this one"),
        ({"tool_version": __version__, "host": {}}, "another build of this servolt wrote it"),
        ({"schema": "servolt.measurement/2"}, r"A newer servolt wrote it, as servolt\.measurement/2"),
        ({"schema": "servolt.measurement/0"}, r"An older servolt wrote it, as servolt\.measurement/0"),
    ],
)
def test_what_another_servolt_wrote_is_not_called_damaged(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    store = FolderStore(tmp_path)
    stored = _save(store)
    _rewrite(stored, **changes)
    assert store.list() == []
    (fault,) = store.survey().faults
    assert fault.kind == "unreadable"
    identity = stored.measurement.id[:12]
    with pytest.raises(StorageError, match=f"{identity} can't be read: .*{why}"):
        store.find(identity)


def test_fields_that_a_newer_servolt_adds_are_kept(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    stored = _save(store)
    _rewrite(stored, temperature_of_the_moon={"celsius": -20})
    (read,) = store.list()
    assert json.loads(read.measurement.to_json())["temperature_of_the_moon"] == {"celsius": -20}


def test_a_folder_beside_the_measurements_is_none_of_them(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    store = FolderStore(tmp_path)
    assert store.survey() == ([], [])
    stored = _save(store)
    stored.path.rename(tmp_path / "the-good-one")
    assert store.find(stored.measurement.id[:8]).path == tmp_path / "the-good-one"
    assert store.find("latest").path == tmp_path / "the-good-one"


def test_the_newest_is_not_passed_over_because_it_is_damaged(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    _save(store)
    newest = _save(store, created="2026-11-21T08:00:00Z")
    (newest.path / "measurement.json").write_text("{")
    with pytest.raises(StorageError, match=newest.measurement.id[:12]):
        store.find("latest")


def test_all_digits_of_an_id_have_to_be_right(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    identity = _save(store).measurement.id
    assert store.find(identity).measurement.id == identity
    with pytest.raises(InvalidInputError, match="no measurement"):
        store.find(identity[:12] + ("0" if identity[12] != "0" else "1"))


def test_a_full_disk_leaves_nothing_behind_and_says_so(tmp_path: Path) -> None:
    # a limit on the size of files stops a write midway, as a full disk does
    store = FolderStore(tmp_path / "measurements")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for limit in (100, 2000, 6000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            with pytest.raises(StorageError) as caught:
                _save(store)
            assert caught.value.remedy
            assert list(store.root.iterdir()) == []
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_no_space_left_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    store = FolderStore(tmp_path / "measurements")
    with pytest.raises(StorageError, match="No space left"):
        _save(store)
    assert list(store.root.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="can't be saved"):
        _save(FolderStore(tmp_path / "file" / "measurements"))


def test_a_read_only_folder_is_a_storage_error(tmp_path: Path) -> None:
    folder = tmp_path / "measurements"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):  # root writes everywhere but in the kernel's own folders
        folder = Path("/sys/kernel")
    with pytest.raises(StorageError, match=r"Permission denied|not permitted"):
        _save(FolderStore(folder))


def test_a_failing_computation_leaves_nothing_behind(tmp_path: Path) -> None:
    def fails(run: bytes, tables: Any, samples: Any) -> Measurement:
        raise InvalidInputError("no", "none")

    with pytest.raises(InvalidInputError):
        FolderStore(tmp_path).save(_run(), _tables(), fails)
    assert list(tmp_path.iterdir()) == []
