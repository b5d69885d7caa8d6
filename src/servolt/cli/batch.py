"""`servolt plan --batch`: a CSV file of deployments, answered row by row."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from servolt import __version__, settings
from servolt.cli.deployment import with_hardware
from servolt.cli.doors import said_load
from servolt.cli.output import Output, say
from servolt.errors import InvalidInputError, StorageError

if TYPE_CHECKING:
    from servolt.workload import Workload

__all__ = ["plan_batch"]

MAX_BYTES = 256 * 2**20  # of a table; a million rows have less


def plan_batch(
    source: Path, flags: Mapping[str, Any], given: "Workload", costs: Mapping[str, Any], out: Output
) -> None:
    """Flags fill in what a row leaves empty. As CSV each answer is on the disk as soon as it is there."""
    from servolt.study.bulk import ANSWERS, Defaults, Planner, answers

    columns, rows = _table(source)
    defaults = Defaults(with_hardware(flags), said_load(given))
    found = answers(rows, Planner(settings.folders(), costs), __version__, defaults)
    # A column that went in comes out as it was, and an answer of the same name does not hide it.
    names = [*columns, *(name for name in ANSWERS if name not in columns)]
    whole = ({**answer, **row} for row, answer in zip(rows, found, strict=True))
    if out.format == "csv" and out.file is not None:
        counts = _written(whole, names, out.file)
    else:
        done = [{name: row[name] for name in names} for row in whole]
        counts = len(done), sum(row["code"] is not None for row in done)
        out.items("servolt.plans/1", done, ids=[_id(row) for row in done], human=lambda: _text(done, names))
    say(f"{counts[0]} rows, {counts[1]} of them refused: their columns code, message and remedy say why.")


def _table(path: Path) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    """Raises InvalidInputError, which names the line. A row with too many cells is a fault of the whole table."""
    from servolt.study.bulk import columns_of

    try:
        if path.stat().st_size > MAX_BYTES:
            raise InvalidInputError(f"{path} has more than {MAX_BYTES:,} bytes.", "Split it.")
        text = path.read_text(encoding="utf-8-sig")
        lines = list(csv.reader(io.StringIO(text), strict=True))
    except OSError as error:
        raise InvalidInputError(f"{path} can't be read: {error.strerror}.", "Name a file that exists.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInputError(f"{path} is no CSV in UTF-8: {error}.", "Save it as CSV with commas.") from error
    if not lines:
        raise InvalidInputError(f"{path} is empty.", "Its first line names the columns: model,engine,...")
    try:
        columns = columns_of(lines[0])
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: {error.cause}", error.remedy) from error
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if not line:
            continue
        if len(line) > len(columns):
            raise InvalidInputError(
                f"{path}: row {number} has {len(line)} cells for {len(columns)} columns.",
                "Quote cells that hold commas.",
            )
        rows.append(dict(zip(columns, [*line, *[""] * (len(columns) - len(line))], strict=True)))
    return columns, rows


def _written(rows: Iterable[Mapping[str, Any]], names: Sequence[str], file: Path) -> tuple[int, int]:
    """Beside the file until the last row is there, so that a run that is broken off leaves what it has, and no table
    that looks whole."""
    target = file.resolve()
    unfinished = target.with_name(target.name + ".partial")
    done = refused = 0
    try:
        with unfinished.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(names)
            for row in rows:
                writer.writerow([_cell(row[name]) for name in names])
                stream.flush()
                done += 1
                refused += row["code"] is not None
        unfinished.replace(target)
    except OSError as error:
        raise StorageError(f"{file} can't be written: {error.strerror}.", "Name another file with -o.") from error
    except KeyboardInterrupt:
        say(f"{done} rows are in {unfinished}.")
        raise
    return done, refused


def _text(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_cell(row[name]) for name in names] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> str:
    """Unknown is empty, never 0."""
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _id(row: Mapping[str, Any]) -> str:
    return str(row["verdict"] or row["code"])
