"""What lies in a folder of the store: a whole measurement, or what is wrong with it."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from servolt import __version__
from servolt.errors import InvalidInputError, StorageError
from servolt.measurement import Measurement

__all__ = ["MANIFEST", "MEASUREMENT", "RUN", "Fault", "Stored", "created_of", "folder_name", "id_of", "look", "sha256"]

MANIFEST, MEASUREMENT, RUN = "manifest.json", "measurement.json", "run.json"
ID_DIGITS = 12  # of the id, in a folder's name: enough for 16 million measurements
SMALL = 256 * 1024  # bytes: half a millisecond for a digest, less than it takes to read the results
FOLDER_NAME = re.compile(rf"(\d{{8}}T\d{{6}}Z)-([0-9a-f]{{{ID_DIGITS}}})")


@dataclass(frozen=True)
class Stored:
    """One measurement on disk."""

    path: Path
    measurement: Measurement


@dataclass(frozen=True)
class Fault:
    """A folder whose files are not those that were written (`damaged`), or that this servolt can't read (`unreadable`).

    `why` is a few words, `details` more of them. `measurement` is what a damaged one still says of itself, None where
    it says nothing that can be read.
    """

    path: Path
    kind: Literal["damaged", "unreadable"]
    why: str
    remedy: str
    details: str = ""
    measurement: Measurement | None = None

    @property
    def id(self) -> str:
        return id_of(self.path) or self.path.name

    @property
    def error(self) -> StorageError:
        wrong = "is damaged" if self.kind == "damaged" else "can't be read"
        return StorageError(f"{self.id} {wrong}: {self.why}.{self.details and ' '}{self.details}", self.remedy)


def look(path: Path, *, thorough: bool) -> Stored | Fault | None:
    """Each file against the manifest: its size, and the digest of every small file or, if `thorough`, of all.

    None for a folder that somebody put beside the measurements. A file that its manifest vouches for and that can't be
    read was written by another servolt; any other is damaged.
    """
    if not FOLDER_NAME.fullmatch(path.name) and not (_holds(path, MANIFEST) or _holds(path, MEASUREMENT)):
        return None
    wrong = _differing(path, thorough=thorough)
    measurement: Measurement | None = None
    try:
        measurement = Measurement.from_json((path / MEASUREMENT).read_bytes())
    except OSError as error:
        wrong = wrong or [f"{MEASUREMENT}: {error.strerror}"]
    except InvalidInputError as refusal:
        if not wrong:
            return _of_another_servolt(path, refusal)
    if wrong or measurement is None:
        remedy = f"Restore {path} from a copy, or delete it and measure again."
        return Fault(path, "damaged", "; ".join(wrong), remedy, measurement=measurement)
    return Stored(path, measurement)


def _holds(path: Path, name: str) -> bool:
    try:
        return (path / name).is_file()
    except OSError:
        return False


def _differing(path: Path, *, thorough: bool) -> list[str]:
    """What is wrong with the manifest, or with the files that it names."""
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())["files"]
        expected = {str(name): (str(facts["sha256"]), int(facts["bytes"])) for name, facts in manifest.items()}
    except FileNotFoundError:
        return [f"it has no {MANIFEST}, which is written last"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [f"its {MANIFEST} can't be read"]
    wrong = [f"its {MANIFEST} does not name {name}" for name in (MEASUREMENT, RUN) if name not in expected]
    return wrong + [
        fault
        for name, (digest, size) in sorted(expected.items())
        if (fault := _fault_of(path / name, size, digest if thorough or size <= SMALL or name == MEASUREMENT else None))
    ]


def _fault_of(file: Path, size: int, digest: str | None) -> str | None:
    try:
        if file.stat().st_size == size and (digest is None or digest == sha256(file)):
            return None
    except OSError as error:
        return f"{file.name}: {error.strerror}"
    return f"{file.name} differs from its manifest"


def _of_another_servolt(path: Path, refusal: InvalidInputError) -> Fault:
    said, details = _said(path).get("tool_version"), refusal.cause[:1].upper() + refusal.cause[1:]
    writer = said if isinstance(said, str) and _release(said) else None
    if writer and _release(writer) > _release(__version__):
        why = f"servolt {writer} wrote it, which is newer than this one, {__version__}"
        return Fault(path, "unreadable", why, "Update servolt, and read it again.", details)
    if writer == __version__:
        why = "another build of this servolt wrote it, in a form that this one does not know"
    else:
        by = writer or "of an unknown version"
        why = f"servolt {by} wrote it, in a form that this one, {__version__}, does not know"
    remedy = "Its files are whole: read it with the servolt that wrote it, or measure again."
    return Fault(path, "unreadable", why, remedy, details)


def _release(version: str) -> tuple[int, ...]:
    """The numbers of 0.1.0; empty for what is no version."""
    numbers = re.match(r"\d{1,9}(\.\d{1,9})*", version)
    return tuple(map(int, numbers[0].split("."))) if numbers else ()


def _said(path: Path) -> dict[str, object]:
    """What `measurement.json` says, whoever wrote it; empty where it is no JSON object."""
    try:
        plain = json.loads((path / MEASUREMENT).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return plain if isinstance(plain, dict) else {}


def folder_name(measurement: Measurement) -> str:
    """Sorts by time: 20261120T190304Z-1a2b3c4d5e6f."""
    return f"{_stamp(measurement.created)}-{measurement.id[:ID_DIGITS]}"


def id_of(path: Path) -> str | None:
    """The first digits of the id, by the folder's name; for a folder that was renamed, by what is in it."""
    named = FOLDER_NAME.fullmatch(path.name)
    said = named[2] if named else _said(path).get("id")
    return said[:ID_DIGITS] if isinstance(said, str) and said else None


def created_of(path: Path) -> str:
    """As it stands in the names of folders."""
    named = FOLDER_NAME.fullmatch(path.name)
    return named[1] if named else _stamp(str(_said(path).get("created", "")))


def _stamp(created: str) -> str:
    return re.sub(r"[-:]|\.\d+", "", created).replace("+0000", "Z")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
