"""stdout is data, stderr is everything else: the output options that every command has."""

import csv
import functools
import io
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from servolt import __version__
from servolt.document import Document, Problem
from servolt.errors import InvalidInputError, StorageError

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Output", "hint", "output_options", "say"]

FORMATS = ("auto", "human", "agent", "json", "jsonl", "csv", "md", "quiet")
_BY_EXTENSION = {
    ".parquet": "parquet",
    ".json": "json",
    ".jsonl": "jsonl",
    ".csv": "csv",
    ".md": "md",
    ".tsv": "agent",
    ".txt": "human",
}

PATH = click.Path(dir_okay=False, path_type=Path)

# For streams that know no more than ASCII.
ASCII = str.maketrans({"→": "->", "·": "-", "█": "#", "×": "x", "–": "-", "…": "..."})

Row = Mapping[str, Any]
# What people get to see: text, or what rich draws, line by line.
Human: TypeAlias = "str | Sequence[RenderableType]"


def say(text: str) -> None:
    click.echo(text, err=True)


def hint(text: str) -> None:
    say(f"Hint: {text}")


def output_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --format, --json, -q, --no-truncate and -o, and hands the command an `Output` as `out`."""

    @click.option("--format", "format_", type=click.Choice(FORMATS), default="auto", help="How to print the result.")
    @click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
    @click.option("-q", "--quiet", is_flag=True, help="Ids or names only, one a line.")
    @click.option("--no-truncate", is_flag=True, help="Never shorten a column.")
    @click.option("-o", "--output", "file", type=PATH, help="Write to this file; its ending names the format.")
    @functools.wraps(function)
    def wrapped(
        *args: Any, format_: str, as_json: bool, quiet: bool, no_truncate: bool, file: Path | None, **kwargs: Any
    ) -> Any:
        if as_json and quiet:
            raise InvalidInputError("--json and -q exclude each other.", "Leave one of them out.")
        chosen = "json" if as_json else "quiet" if quiet else _resolve(format_, file)
        return function(*args, out=Output(chosen, file, no_truncate), **kwargs)

    return wrapped


def _resolve(format_: str, file: Path | None) -> str:
    if format_ != "auto":
        return format_
    if file is not None:
        if file.suffix not in _BY_EXTENSION:
            known = " ".join(sorted(_BY_EXTENSION))
            raise InvalidInputError(
                f"{file.name} has no ending that names a format.", f"Use one of {known} or --format."
            )
        return _BY_EXTENSION[file.suffix]
    # Only what the environment says: asking a library would go over the network.
    return "agent" if os.environ.get("AI_AGENT") or os.environ.get("AGENT") else "human"


class Output:
    """Where one command's result goes, and as what."""

    def __init__(self, format_: str, file: Path | None, no_truncate: bool) -> None:
        self.format = format_
        self.file = file
        self.no_truncate = no_truncate

    @property
    def for_people(self) -> bool:
        return self.format == "human"

    def document(
        self,
        document: Document,
        *,
        rows: Sequence[Row],
        ids: Sequence[str],
        human: "Callable[[], Human]",
    ) -> None:
        """One document: whole as JSON, as `rows` in the tabular formats, as the text of `human` for people."""
        plain = {"schema": None, "tool_version": __version__, **document.model_dump(mode="json")}
        self._write(plain, [plain], rows, ids, human)

    def items(
        self,
        schema: str,
        rows: Sequence[Row],
        *,
        ids: Sequence[str],
        human: "Callable[[], Human]",
        warnings: Sequence[Problem] = (),
    ) -> None:
        """A list: under `items` as JSON, a line each as JSON lines."""
        found = [warning.model_dump(mode="json") for warning in warnings]
        plain = {"schema": schema, "tool_version": __version__, "items": [dict(row) for row in rows], "warnings": found}
        self._write(plain, rows, rows, ids, human)

    def text(self, text: str) -> None:
        """Text that is data as it is, whatever the format."""
        self._deliver(text)

    def _write(
        self,
        plain: Mapping[str, Any],
        lines: Sequence[Row],
        rows: Sequence[Row],
        ids: Sequence[str],
        human: "Callable[[], Human]",
    ) -> None:
        if self.format == "parquet":
            self._write_parquet(rows)
            return
        texts: dict[str, Callable[[], str]] = {
            "human": lambda: self._for_people(human()),
            "json": lambda: json.dumps(plain, indent=2, ensure_ascii=False),
            "jsonl": lambda: "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines),
            "csv": lambda: _separated(rows, ","),
            "agent": lambda: _separated(rows, "\t"),
            "md": lambda: _markdown(rows),
            "quiet": lambda: "".join(f"{one}\n" for one in ids),
        }
        self._deliver(texts[self.format]())

    def _write_parquet(self, rows: Sequence[Row]) -> None:
        from servolt.results import write_rows

        assert self.file is not None  # only a file's ending chooses this format
        write_rows(self.file, rows)

    def _for_people(self, shown: "Human") -> str:
        if isinstance(shown, str):
            return shown
        from servolt.cli.tables import render

        return render(shown, whole=self.no_truncate or self.file is not None)

    def _deliver(self, text: str) -> None:
        text = text if not text or text.endswith("\n") else text + "\n"
        if self.file is None:
            _write_stdout(text)
            return
        target = self.file.resolve()  # a link stays a link
        try:
            if target.exists() and not target.is_file():
                target.write_text(text, encoding="utf-8")  # a device or a pipe can't be replaced, only written to
                return
            temporary = target.with_name(target.name + ".partial")
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(target)
        except OSError as error:
            raise StorageError(
                f"{self.file} can't be written: {error.strerror}.", "Name another file with -o."
            ) from error


def _write_stdout(text: str) -> None:
    """What a terminal or a file of another encoding can't show becomes its nearest ASCII, or a question mark."""
    try:
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(text.translate(ASCII).encode(encoding, "replace").decode(encoding) if _narrow(text) else text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StorageError(f"stdout can't be written: {error.strerror}.", "Send it elsewhere.") from error


def _narrow(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _cell(value: Any) -> str:
    """Unknown is empty, never 0."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return " ".join(map(_cell, value))
    return str(value).replace("\t", " ").replace("\n", " ")


def _separated(rows: Sequence[Row], separator: str) -> str:
    if not rows:
        return ""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator="\n")
    columns = list(rows[0])
    writer.writerow(columns)
    writer.writerows([[_cell(row.get(column)) for column in columns] for row in rows])
    return text.getvalue()


def _markdown(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([_cell(row.get(column)) for column in columns] for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
