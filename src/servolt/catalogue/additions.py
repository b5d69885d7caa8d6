"""A user's own rows: validated, then written to the folder beside the settings."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from servolt.catalogue.checks import problems_of
from servolt.catalogue.rows import KINDS, Entry, Row, parse, shipped, user_file, written
from servolt.errors import InvalidInputError, StorageError

__all__ = ["Added", "add", "row_of"]


class Added(NamedTuple):
    """`replaced` are the rows in whose place the new ones stand: the user's, which are gone, and shipped ones."""

    entries: tuple[Entry, ...]
    replaced: tuple[Entry, ...]


def row_of(kind: str, assignments: Sequence[str]) -> dict[str, Any]:
    """From `column=value` words. Raises InvalidInputError for one that is none."""
    row: dict[str, Any] = {}
    for word in assignments:
        column, sign, value = word.partition("=")
        if not sign or column not in KINDS[kind].columns:
            raise InvalidInputError(
                f"{word!r} sets no column of {kind}.", f"Write COLUMN=VALUE; the columns are {_columns(kind)}."
            )
        row[column] = value
    if kind == "models":
        raise InvalidInputError("a model has a config and can't be set in words.", "Give a JSON Lines file, or -.")
    return row


def add(kind: str, rows: Sequence[Row]) -> Added:
    """Writes rows after their checks, in place of the user's rows with the same key.

    Raises InvalidInputError naming every fault, before anything is written, and StorageError.
    """
    path = user_file(kind)
    new = parse(KINDS[kind], written(KINDS[kind], [_complete(row) for row in rows]), path)  # as it will be read back
    if not new:
        raise InvalidInputError("there is no row to add.", f"The columns are {_columns(kind)}.")
    faults = [problem for entry in new for problem in problems_of(entry)]
    if faults:
        raise InvalidInputError(
            "; ".join(fault.message.removeprefix(f"{path} ").rstrip(".") for fault in faults) + ".",
            "Nothing was written. Correct the rows.",
        )
    keys = {entry.key for entry in new}
    own = parse(KINDS[kind], path.read_text(encoding="utf-8-sig"), path) if path.is_file() else []
    kept = [entry for entry in own if entry.key not in keys]
    _write(path, written(KINDS[kind], [entry.row for entry in (*kept, *new)]))
    return Added(tuple(new), tuple(entry for entry in (*own, *shipped(kind)) if entry.key in keys))


def _complete(row: Mapping[str, Any]) -> dict[str, Any]:
    """A person's own row counts as read by that person."""
    return {"verified": "yes", **{key: value for key, value in row.items() if value not in ("", None)}}


def _columns(kind: str) -> str:
    return ", ".join(KINDS[kind].columns)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".partial")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise StorageError(f"{path} can't be written: {error.strerror}.", "SERVOLT_HOME moves the folders.") from error
