"""Before something that takes long: can its result be written where it is wanted?"""

from pathlib import Path

from servolt.errors import StorageError

__all__ = ["check_writable"]


def check_writable(file: Path | None) -> None:
    """By a file beside it, as the result will begin; nothing is left. Raises StorageError."""
    if file is None:
        return
    target = file.resolve()
    if target.exists() and not target.is_file():
        return  # a device or a pipe: only writing to it would tell
    trial = target.with_name(f"{target.name}.partial")
    try:
        if not trial.exists():
            trial.touch()
            trial.unlink()
    except OSError as error:
        raise StorageError(
            f"{file} can't be written: {error.strerror}. Nothing was measured.", "Name another file with -o."
        ) from error
