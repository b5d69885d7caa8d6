"""stdout is data, stderr is everything else: the output options that every command has."""

import csv
import functools
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from servolt import __version__
from servolt.errors import InvalidInputError, StorageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from servolt.document import Document, Problem

__all__ = ["Output", "hint", "output_options", "say"]

FORMATS = ("auto", "human", "agent", "json", "jsonl", "csv", "md", "quiet")
_BY_EXTENSION = {
    ".parquet": "parquet",
    ".json": "json",
    ".jsonl": "jsonl",
    ".csv": "csv",
    ".md": "md",
    ".tsv": "agent",
}
# Text of any kind: people's, unless a flag says otherwise.
_ANY_TEXT = ".txt"

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
    """Adds --format, --json, -q, --no-truncate and -o, and hands the command an `Output` as `out`.

    A command with an option `export` prints that in place of its result, so no other format can be asked with it.
    """

    @click.option("--format", "format_", type=click.Choice(FORMATS), default="auto", help="How to print the result.")
    @click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
    @click.option("-q", "--quiet", is_flag=True, help="Only what a script needs, one a line: ids, names or a verdict.")
    @click.option("--no-truncate", is_flag=True, help="Wrap nothing to the terminal's width.")
    @click.option("-o", "--output", "file", type=PATH, help="Write to this file; its ending names the format.")
    @functools.wraps(function)
    def wrapped(
        *args: Any, format_: str, as_json: bool, quiet: bool, no_truncate: bool, file: Path | None, **kwargs: Any
    ) -> Any:
        export = kwargs.get("export")
        asked = dict(_asked(format_, as_json, quiet, export, file))
        if len(set(asked.values())) > 1:
            raise InvalidInputError(f"{' and '.join(asked)} exclude each other.", "Leave all but one of them out.")
        return function(*args, out=Output(next(iter(asked.values()), None), file, no_truncate), **kwargs)

    return wrapped


def _asked(
    format_: str, as_json: bool, quiet: bool, export: str | None, file: Path | None
) -> Iterator[tuple[str, str]]:
    """Every word that asks for a format, and the format."""
    flags = {"--json": "json" if as_json else None, "-q": "quiet" if quiet else None}
    flags |= {f"--format {format_}": None if format_ == "auto" else format_, f"--export {export}": export}
    found = [(flag, asked) for flag, asked in flags.items() if asked is not None]
    yield from found
    if file is None or file.suffix.lower() == _ANY_TEXT:
        return
    if (ending := _BY_EXTENSION.get(file.suffix.lower())) is not None:
        yield f"-o {file.name}", ending
    elif not found:
        known = " ".join(sorted({*_BY_EXTENSION, _ANY_TEXT}))
        raise InvalidInputError(f"{file.name} has no ending that names a format.", f"Use one of {known} or --format.")


class Output:
    """Where one command's result goes, and as what."""

    def __init__(self, asked: str | None, file: Path | None, no_truncate: bool) -> None:
        self.asked = asked  # by a flag or by the ending of `file`
        # Only what the environment says: asking a library would go over the network.
        by_itself = "agent" if os.environ.get("AI_AGENT") or os.environ.get("AGENT") else "human"
        self.format = asked or ("human" if file is not None else by_itself)
        self.file = file
        self.no_truncate = no_truncate

    @property
    def for_people(self) -> bool:
        return self.format == "human"

    def document(
        self,
        document: "Document",
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
        warnings: "Sequence[Problem]" = (),
    ) -> None:
        """A list: under `items` as JSON, a line each as JSON lines."""
        found = [warning.model_dump(mode="json") for warning in warnings]
        plain = {"schema": schema, "tool_version": __version__, "items": [dict(row) for row in rows], "warnings": found}
        self._write(plain, rows, rows, ids, human)

    def text(self, text: str) -> None:
        """Text that is data as it is, whatever the format."""
        self._deliver(text)

    def json_only(self, plain: Mapping[str, Any]) -> None:
        """A document that has no rows. Raises InvalidInputError if another format was asked."""
        if self.asked not in (None, "json"):
            raise InvalidInputError(f"this is JSON, and {self.asked} is asked.", "Leave the format out, or ask --json.")
        self._deliver(self._json(plain, indent=2))

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
            "json": lambda: self._json(plain, indent=2),
            "jsonl": lambda: "".join(self._json(line) + "\n" for line in lines),
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

    def _json(self, plain: Mapping[str, Any], indent: int | None = None) -> str:
        """Escaped where the file or the stream can't hold the letters themselves: nothing is lost by it."""
        text = json.dumps(plain, indent=indent, ensure_ascii=False)
        held = _fits(text, "utf-8" if self.file is not None else _encoding())
        return text if held else json.dumps(plain, indent=indent)

    def _for_people(self, shown: "Human") -> str:
        if isinstance(shown, str):
            return shown
        from servolt.cli.tables import render

        return render(shown, whole=self.no_truncate or self.file is not None)

    def _deliver(self, text: str) -> None:
        text = text if not text or text.endswith("\n") else text + "\n"
        if self.file is None:
            _write_stdout(text, exact=not self.for_people)
            return
        target = self.file.resolve()  # a link stays a link
        try:
            if target.exists() and not target.is_file():
                target.write_bytes(_bytes(text))  # a device or a pipe can't be replaced, only written to
                return
            temporary = target.with_name(target.name + ".partial")
            temporary.write_bytes(_bytes(text))
            temporary.replace(target)
        except OSError as error:
            raise StorageError(
                f"{self.file} can't be written: {error.strerror}.", "Name another file with -o."
            ) from error


def _write_stdout(text: str, *, exact: bool) -> None:
    """A stream that can't hold the text, such as that of the C locale, gets UTF-8 where the text is data (`exact`);
    people get the nearest ASCII, or a question mark."""
    if sys.stdout is None:
        raise StorageError("stdout is closed.", "Leave it open, or name a file with -o.")
    try:
        if _fits(text, _encoding()):
            sys.stdout.write(text)
        elif exact and hasattr(sys.stdout, "buffer"):
            sys.stdout.flush()
            sys.stdout.buffer.write(_bytes(text))
        else:
            sys.stdout.write(text.translate(ASCII).encode(_encoding(), "replace").decode(_encoding()))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StorageError(f"stdout can't be written: {error.strerror}.", "Send it elsewhere.") from error


def _bytes(text: str) -> bytes:
    """UTF-8; file names that are no text get back the bytes they had."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def _encoding() -> str:
    return getattr(sys.stdout, "encoding", None) or "utf-8"


def _fits(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


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
    cells = [[_cell(row.get(column)).replace("|", r"\|") for column in columns] for row in rows]
    lines = [columns, ["---"] * len(columns), *cells]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
