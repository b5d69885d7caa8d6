"""The folder store. One folder for each measurement; it appears whole or not at all.

20261120T190304Z-1a2b3c4d5e6f/
    measurement.json    results, a pure function of what follows
    run.json            the facts of the run
    requests.parquet    raw samples
    events.parquet
    manifest.json       sha256 and size of each file, written last
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from servolt.errors import InvalidInputError, StorageError
from servolt.measurement import Measurement, SampleFile
from servolt.results.parquet import Table, read_table, write_table

__all__ = ["Compute", "FolderStore", "Stored"]

# (run.json, tables by name, the files that hold them) -> the measurement
Compute = Callable[[bytes, Mapping[str, Table], tuple[SampleFile, ...]], Measurement]

MANIFEST, MEASUREMENT, RUN = "manifest.json", "measurement.json", "run.json"
PARTIAL = ".partial-"  # folders of this name are being written, or were when the power went
ID_DIGITS = 12  # of the id, in a folder's name: enough for 16 million measurements


@dataclass(frozen=True)
class Stored:
    """One measurement on disk."""

    path: Path
    measurement: Measurement


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
            final = self.root / _folder_name(measurement)
            partial.rename(final)
            _sync(self.root)
        except OSError as error:
            raise self._refusal(error) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return Stored(final, measurement)

    def list(self) -> list[Stored]:
        """Whole measurements, oldest first. Folders that are not whole are left out: `load` says what is wrong."""
        found = []
        for path in self._folders():
            try:
                found.append(self._read(path, verify=False))
            except StorageError:
                continue
        return sorted(found, key=lambda stored: (stored.measurement.created, stored.measurement.id))

    def find(self, name: str) -> Stored:
        """By the first digits of an id, or by a folder's name; `latest` is the newest. Raises InvalidInputError."""
        stored = self.list()
        if name == "latest" and stored:
            return stored[-1]
        hits = [one for one in stored if one.path.name == name or _is_prefix(name, one.measurement.id)]
        if len(hits) == 1:
            return self.load(hits[0].path)
        if hits:
            shown = ", ".join(one.measurement.id[:ID_DIGITS] for one in hits)
            raise InvalidInputError(f"{name} names {len(hits)} measurements: {shown}.", "Give more digits.")
        raise InvalidInputError(f"no measurement {name!r} in {self.root}.", "`servolt list` shows what is there.")

    def load(self, path: Path) -> Stored:
        """Checks each file against the manifest."""
        return self._read(path, verify=True)

    def tables(self, stored: Stored) -> dict[str, Table]:
        """The raw samples."""
        return _tables(stored.path)

    def recompute(self, stored: Stored, compute: Compute) -> bytes:
        """`measurement.json` built anew from the raw files: equal to the stored bytes, or something is wrong."""
        _verify(stored.path)
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

    def _read(self, path: Path, *, verify: bool) -> Stored:
        if not (path / MANIFEST).is_file():
            raise StorageError(f"{path} holds no whole measurement.", "Delete the folder, and measure again.")
        if verify:
            _verify(path)
        try:
            return Stored(path, Measurement.from_json((path / MEASUREMENT).read_bytes()))
        except OSError as error:
            raise StorageError(f"{path} can't be read: {error.strerror}.", "Check its permissions.") from error
        except InvalidInputError as error:
            raise StorageError(f"{path / MEASUREMENT} is damaged: {error.cause}", "Measure again.") from error


def _computed(path: Path, compute: Compute) -> Measurement:
    """From the tables as they read back, so that the first computation and every later one see the same."""
    tables = _tables(path)
    samples = tuple(
        SampleFile(
            name=f"{name}.parquet",
            sha256=_sha256(path / f"{name}.parquet"),
            rows=len(next(iter(table.values()))),
        )
        for name, table in sorted(tables.items())
    )
    return compute((path / RUN).read_bytes(), tables, samples)


def _tables(path: Path) -> dict[str, Table]:
    return {file.stem: read_table(file) for file in sorted(path.glob("*.parquet"))}


def _folder_name(measurement: Measurement) -> str:
    """Sorts by time: 20261120T190304Z-1a2b3c4d5e6f."""
    stamp = re.sub(r"[-:]|\.\d+", "", measurement.created).replace("+0000", "Z")
    return f"{stamp}-{measurement.id[:ID_DIGITS]}"


def _is_prefix(name: str, identity: str) -> bool:
    return len(name) >= 2 and identity.startswith(name.lower())


def _seal(path: Path) -> None:
    """The manifest, and everything on the disk itself before the folder gets its name."""
    files = sorted(path.iterdir())
    for file in files:
        _sync(file)
    manifest = {file.name: {"sha256": _sha256(file), "bytes": file.stat().st_size} for file in files}
    (path / MANIFEST).write_text(json.dumps({"files": manifest}, indent=2) + "\n", encoding="utf-8")
    _sync(path / MANIFEST)
    _sync(path)


def _verify(path: Path) -> None:
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())["files"]
        wrong = [name for name, facts in manifest.items() if _sha256(path / name) != facts["sha256"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{path} is not whole: {error}.", "Measure again.") from error
    if wrong:
        raise StorageError(f"{path} was changed or damaged: {', '.join(wrong)}.", "Measure again.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
