"""A measurement on disk is whole or it is not there."""

import errno
import json
import os
import resource
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
