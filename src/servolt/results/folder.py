"""The folder store. One folder for each measurement; it appears whole or not at all.

20261120T190304Z-1a2b3c4d5e6f/
    measurement.json    results, a pure function of what follows
    run.json            the facts of the run
    requests.parquet    raw samples
    events.parquet
    manifest.json       sha256 and size of each file, written last
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from servolt.errors import InvalidInputError, StorageError
from servolt.measurement import Measurement, SampleFile
from servolt.results.look import (
    MANIFEST,
    MEASUREMENT,
    RUN,
    Fault,
    Stored,
    created_of,
    folder_name,
    id_of,
    look,
    sha256,
)
from servolt.results.parquet import Table, read_table, write_table

__all__ = ["Compute", "FolderStore", "Survey"]

# (run.json, tables by name, the files that hold them) -> the measurement
Compute = Callable[[bytes, Mapping[str, Table], tuple[SampleFile, ...]], Measurement]

PARTIAL = ".partial-"  # folders of this name are being written, or were when the power went


class Survey(NamedTuple):
    """All that a store holds, oldest first."""

    whole: Sequence[Stored]
    faults: Sequence[Fault]


class FolderStore:
    """Measurements under one folder. Everything that can't be read or written is a StorageError."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def save(self, run_json: bytes, tables: Mapping[str, Table], compute: Compute) -> Stored:
        """Writes the raw files, computes from what was written, and lets the folder appear in one step.

        A full disk or a folder that can't be written leaves nothing behind.
        """
        partial = self._partial()
        try:
            (partial / RUN).write_bytes(run_json)
            for name, table in tables.items():
                write_table(partial / f"{name}.parquet", table)
            measurement = _computed(partial, compute)
            (partial / MEASUREMENT).write_text(measurement.to_json(), encoding="utf-8")
            _seal(partial)
            final = self.root / folder_name(measurement)
            partial.rename(final)
            _sync(self.root)
        except OSError as error:
            raise self._refusal(error) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return Stored(final, measurement)

    def survey(self) -> Survey:
        """Every folder. Of raw samples that are large only the sizes are checked; `find` checks all."""
        looks = [look(path, thorough=False) for path in self._folders()]
        whole = [one for one in looks if isinstance(one, Stored)]
        faults = [one for one in looks if isinstance(one, Fault)]
        return Survey(
            sorted(whole, key=lambda one: (one.measurement.created, one.measurement.id)),
            sorted(faults, key=lambda one: (created_of(one.path), one.id)),
        )

    def list(self) -> list[Stored]:
        """Whole measurements, oldest first. The `faults` of a `survey` are those that are left out."""
        return [*self.survey().whole]

    def matches(self, name: str) -> Sequence[Path]:
        """The folders that a name may mean, whether or not they are whole."""
        ours = [path for path in self._folders() if id_of(path) is not None or path.name == name]
        if name == "latest":
            return sorted(ours, key=lambda path: (created_of(path), path.name))[-1:]
        return [path for path in ours if path.name == name or _is_prefix(name, id_of(path))]

    def find(self, name: str) -> Stored:
        """By the first digits of an id, or by a folder's name; `latest` is the newest. Each file is checked.

        Raises InvalidInputError, and StorageError for one that is not whole.
        """
        hits = self.matches(name)
        if len(hits) > 1:
            shown = ", ".join(sorted(id_of(path) or path.name for path in hits))
            raise InvalidInputError(f"{name} names {len(hits)} measurements: {shown}.", "Give more digits.")
        if hits:
            found = self.load(hits[0])
            if name in ("latest", found.path.name) or found.measurement.id.startswith(name.lower()):
                return found
        raise InvalidInputError(
            f"no measurement {name!r} in {self.root}.", "`servolt list --runs` shows what is there."
        )

    def load(self, path: Path) -> Stored:
        """Checks each file against the manifest. Raises StorageError."""
        found = look(path, thorough=True)
        if isinstance(found, Stored):
            return found
        if found is None:
            raise StorageError(f"{path} holds no measurement.", "`servolt list --runs` shows what is there.")
        raise found.error

    def tables(self, stored: Stored) -> dict[str, Table]:
        """The raw samples."""
        return _tables(stored.path)

    def recompute(self, stored: Stored, compute: Compute) -> bytes:
        """`measurement.json` built anew from the raw files: equal to the stored bytes, or something is wrong."""
        self.load(stored.path)
        return _computed(stored.path, compute).to_json().encode()

    def _partial(self) -> Path:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix=PARTIAL, dir=self.root))
        except OSError as error:
            raise self._refusal(error) from error

    def _refusal(self, error: OSError) -> StorageError:
        why = error.strerror or str(error)
        return StorageError(
            f"the measurement can't be saved in {self.root}: {why}. Nothing half-written was left.",
            "Free space there, or set SERVOLT_HOME to a folder that can be written.",
        )

    def _folders(self) -> Iterator[Path]:
        try:
            entries = sorted(self.root.iterdir())
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(f"{self.root} can't be read: {error.strerror}.", "Check its permissions.") from error
        yield from (path for path in entries if path.is_dir() and not path.name.startswith("."))


def _computed(path: Path, compute: Compute) -> Measurement:
    """From the tables as they read back, so that the first computation and every later one see the same."""
    tables = _tables(path)
    samples = tuple(
        SampleFile(
            name=f"{name}.parquet",
            sha256=sha256(path / f"{name}.parquet"),
            rows=len(next(iter(table.values()))),
        )
        for name, table in sorted(tables.items())
    )
    return compute((path / RUN).read_bytes(), tables, samples)


def _tables(path: Path) -> dict[str, Table]:
    return {file.stem: read_table(file) for file in sorted(path.glob("*.parquet"))}


def _is_prefix(name: str, first_digits: str | None) -> bool:
    """Of an id of which a folder's name holds the first digits only."""
    if first_digits is None or len(name) < 2:
        return False
    return first_digits.startswith(name.lower()[: len(first_digits)])


def _seal(path: Path) -> None:
    """The manifest, and everything on the disk itself before the folder gets its name."""
    files = sorted(path.iterdir())
    for file in files:
        _sync(file)
    manifest = {file.name: {"sha256": sha256(file), "bytes": file.stat().st_size} for file in files}
    (path / MANIFEST).write_text(json.dumps({"files": manifest}, indent=2) + "\n", encoding="utf-8")
    _sync(path / MANIFEST)
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
