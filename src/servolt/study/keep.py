"""The documents about this machine: read if they are there, written whole or not at all."""

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TypeVar

from servolt.document import Document
from servolt.errors import InvalidInputError, StorageError
from servolt.gpu import Accelerator
from servolt.host.facts import cpu_accelerator
from servolt.plan.calibration import Calibration
from servolt.settings import Folders

__all__ = ["read_accelerator", "read_calibration", "write_document"]

Kind = TypeVar("Kind", bound=Document)


def read_calibration(folders: Folders) -> Calibration:
    """Empty where nothing was calibrated or measured yet. Raises StorageError."""
    return _parsed(folders.calibration, Calibration) or Calibration()


def read_accelerator(folders: Folders) -> Accelerator:
    """This host now, with the speeds that were measured of it, unless those are of another machine."""
    now = cpu_accelerator(source="this machine; its speed was not measured")
    measured = _parsed(folders.accelerator, Accelerator)
    if measured is None or measured.name != now.name:
        return now
    speeds = {"bandwidth_bytes_per_s": measured.bandwidth_bytes_per_s, "flops_per_s": measured.flops_per_s}
    return now.model_copy(update={**speeds, "source": measured.source})


def write_document(path: Path, document: Document) -> None:
    """Under another name first, so that a half-written file is never read. Raises StorageError."""
    written: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
            written = file.name
            file.write(document.to_json())
            file.flush()
            os.fsync(file.fileno())
        Path(written).replace(path)
    except OSError as error:
        if written is not None:
            with contextlib.suppress(OSError):
                Path(written).unlink()
        raise StorageError(
            f"{path} can't be written: {error.strerror}.", "Make the folder writable, or set SERVOLT_HOME."
        ) from error


def _parsed(path: Path, kind: type[Kind]) -> Kind | None:
    text = _read(path)
    try:
        return None if text is None else kind.from_json(text)
    except InvalidInputError as error:
        raise StorageError(
            f"{path} is damaged, or of another version of servolt: {error.cause}",
            "`servolt doctor --calibrate` replaces it, and learns again from the measurements that are kept.",
        ) from error


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(
            f"{path} can't be read: {error.strerror}.", "Make it readable, or set SERVOLT_HOME."
        ) from error
