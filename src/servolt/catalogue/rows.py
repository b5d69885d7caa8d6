"""The files of facts: those that ship with servolt, and the user's own beside the settings, whose rows win."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson

from servolt.errors import InvalidInputError
from servolt.settings import folders

__all__ = ["KINDS", "Entry", "Kind", "Row", "entries", "number", "parse", "shipped", "stamp", "user_file", "written"]

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """One file. Rows with the same `key` are rows of the same thing."""

    name: str
    file: str
    key: tuple[str, ...]
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """A row and where it stands. `path` is None for what ships with servolt."""

    kind: Kind
    row: Row
    path: Path | None
    line: int

    @property
    def key(self) -> tuple[str, ...]:
        return tuple(str(self.row.get(column) or "").strip().casefold() for column in self.kind.key)

    @property
    def where(self) -> str:
        return f"{self.path or self.kind.file} line {self.line}"

    @property
    def origin(self) -> str:
        """Whose row it is, in a word."""
        return "servolt" if self.path is None else "yours"


_SAID = ("source", "date", "verified", "notes")

KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "accelerators",
            "accelerators.csv",
            ("name",),
            (
                *("name", "vendor", "kind", "architecture", "compute_capability", "year", "cores"),
                *("memory_gib", "memory_options_gib", "memory_type", "smi_mib", "visible_gib", "unified_memory"),
                *("bandwidth_gb_per_s", "float32_tflops", "tf32_tflops", "float16_tflops", "bfloat16_tflops"),
                *("fp8_tflops", "int8_tops", "fp4_tflops", "tdp_w", "idle_w", "link", "link_gb_per_s"),
                *("host_link", "host_link_gb_per_s", "aliases", "source", "date", "verified", "unverified", "notes"),
            ),
        ),
        Kind(
            "models",
            "models.jsonl",
            ("name",),
            (
                *("name", "aliases", "hub_id", "family", "parameters", "active_parameters", "total", "context"),
                *("licence", "config", *_SAID),
            ),
        ),
        Kind(
            "prices",
            "prices.csv",
            ("provider", "instance", "accelerator", "count", "region"),
            (
                *("provider", "instance", "accelerator", "count", "usd_per_hour", "spot_usd_per_hour", "region"),
                *_SAID,
            ),
        ),
        Kind("grid", "grid.csv", ("region",), ("region", "name", "aliases", "gco2e_per_kwh", "year", *_SAID)),
    )
}


def entries(kind: str) -> tuple[Entry, ...]:
    """All rows, a user's in place of the shipped row with the same key. Raises InvalidInputError for a user's file."""
    return _entries(kind, stamp(kind))


def stamp(kind: str) -> tuple[Path, int | None]:
    """What changes when the user's file does: the key under which everything derived from the rows is kept."""
    path = user_file(kind)
    try:
        return path, path.stat().st_mtime_ns
    except OSError:
        return path, None


def user_file(kind: str) -> Path:
    return folders().config / "catalogue" / KINDS[kind].file


@lru_cache(maxsize=16)
def _entries(kind: str, stamp: tuple[Path, int | None]) -> tuple[Entry, ...]:
    path, modified = stamp
    own = parse(KINDS[kind], _text(path), path) if modified is not None else []
    taken = {entry.key for entry in own}
    return (*own, *(entry for entry in shipped(kind) if entry.key not in taken))


@lru_cache(maxsize=8)
def shipped(kind: str) -> tuple[Entry, ...]:
    text = (files("servolt") / "data" / "catalogue" / KINDS[kind].file).read_text(encoding="utf-8")
    return tuple(parse(KINDS[kind], text, None))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} can't be read: {error}.", "Correct the file or move it away.") from error


def parse(kind: Kind, text: str, path: Path | None) -> list[Entry]:
    """Raises InvalidInputError naming the line and what is wrong with its form. Says nothing of the facts in it."""
    rows = _objects(text, path) if kind.file.endswith(".jsonl") else _separated(text, path)
    columns = frozenset(kind.columns)
    found = []
    for line, row in rows:
        where = f"{path or kind.file} line {line}"
        if not columns.issuperset(row):
            unknown = ", ".join(sorted(set(row) - columns))
            raise InvalidInputError(
                f"{where} has {unknown}, which is no column of {kind.name}.",
                f"The columns are {', '.join(kind.columns)}.",
            )
        missing = [column for column in kind.key if not row.get(column)]
        if missing:
            raise InvalidInputError(f"{where} has no {', '.join(missing)}.", "Every row needs it: it is its name.")
        found.append(Entry(kind, row, path, line))
    return found


def _separated(text: str, path: Path | None) -> Iterable[tuple[int, Row]]:
    """As csv.DictReader reads, in half the time: the first plan of a process waits for this."""
    reader = csv.reader(io.StringIO(text))
    header = next(reader, [])
    for cells in reader:
        if len(cells) > len(header):
            raise InvalidInputError(
                f"{path} line {reader.line_num} has more cells than columns.", "Put quotes around a comma in a cell."
            )
        if cells:
            yield reader.line_num, dict(zip(header, cells, strict=False))


def _objects(text: str, path: Path | None) -> Iterable[tuple[int, Row]]:
    for line, one in enumerate(text.splitlines(), 1):
        if not one.strip():
            continue
        try:
            row = orjson.loads(one)
        except orjson.JSONDecodeError as error:
            raise InvalidInputError(f"{path} line {line} is no JSON: {error}.", "Write one object a line.") from error
        if not isinstance(row, dict):
            raise InvalidInputError(f"{path} line {line} is no object.", "Write one JSON object a line.")
        yield line, row


def written(kind: Kind, rows: Sequence[Row]) -> str:
    """The file that holds these rows: what `parse` reads."""
    if kind.file.endswith(".jsonl"):
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, kind.columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def number(row: Row, column: str) -> float | None:
    """None for an empty cell. Raises ValueError naming the column."""
    text = row.get(column)
    if text is None or text == "":
        return None
    try:
        return float(text)
    except (TypeError, ValueError):
        raise ValueError(f"{column} is {text!r}, which is no number") from None
