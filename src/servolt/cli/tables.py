"""Tables and figures for people."""

import io
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table

from servolt.units import format_bytes, format_duration

__all__ = ["labelled", "point", "quantity", "render", "spread", "table", "terminal_width"]

_NOT_MEASURED = "not measured"
UNFITTED = 10_000  # columns: a pipe and a file have no width
GAP = 2  # columns between two columns
LABEL = 12  # columns of what stands before a sentence


def render(parts: Sequence[RenderableType], *, whole: bool = False) -> str:
    """What rich draws, as text; fitted only where stdout is a terminal. `whole` fits and colours nothing."""
    text = io.StringIO()
    console = Console(
        file=text,
        force_terminal=not whole and _is_coloured(),
        color_system="standard" if not whole and _is_coloured() else None,
        width=UNFITTED if whole else terminal_width(),
        highlight=False,
        markup=False,
    )
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str))  # a line to copy is the terminal's to break
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def terminal_width() -> int:
    return shutil.get_terminal_size((120, 40)).columns if _is_terminal() else UNFITTED


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def _is_coloured() -> bool:
    """no-color.org and force-color.org: set to anything at all, and who says no wins."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return bool(os.environ.get("FORCE_COLOR")) or _is_terminal()


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> RenderableType:
    """Columns whose name ends in `>` are right-aligned."""
    return _Fitted(columns, rows)


def labelled(label: str, text: str, width: int = LABEL) -> RenderableType:
    """A label in so many columns and what it says, whose further lines on a terminal begin below the first."""
    return _Labelled(label, text, width)


class _Fitted:
    """As wide as it needs to be; on a narrow terminal the widest columns are wrapped between words, and within names
    and intervals where they must be; where even that is too wide, each row is a paragraph. Nothing is cut off."""

    def __init__(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self._names = [column.removesuffix(">") for column in columns]
        self._right = [column.endswith(">") for column in columns]
        self._rows = rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        widths = self._widths(options.max_width)
        yield from self._paragraphs() if widths is None else [self._drawn(widths)]

    def _widths(self, room: int) -> list[int] | None:
        """None if the smallest parts of all columns have no room beside one another."""
        columns = list(zip(self._names, *self._rows, strict=True))
        widths = [max(map(cell_len, column)) for column in columns]
        for parts in (_words, _pieces):
            least = [max(cell_len(part) for cell in column for part in parts(cell)) for column in columns]
            while sum(widths) + GAP * (len(widths) - 1) > room:
                yielding = [place for place, width in enumerate(widths) if width > least[place]]
                if not yielding:
                    break
                widths[max(yielding, key=lambda place: widths[place])] -= 1
            else:
                return widths
        return None

    def _drawn(self, widths: Sequence[int]) -> Table:
        drawn = Table(box=None, pad_edge=False, show_edge=False, padding=(0, GAP, 0, 0))
        for name, right, width in zip(self._names, self._right, widths, strict=True):
            drawn.add_column(_wrapped(name, width), justify="right" if right else "left", width=width, no_wrap=True)
        for row in self._rows:
            drawn.add_row(*(_wrapped(cell, width) for cell, width in zip(row, widths, strict=True)))
        return drawn

    def _paragraphs(self) -> Iterator[str]:
        for row in self._rows:
            yield row[0]
            yield from (
                f"  {name}: {cell}" if name else f"  {cell}"
                for name, cell in zip(self._names[1:], row[1:], strict=True)
                if cell
            )


class _Labelled:
    def __init__(self, label: str, text: str, width: int) -> None:
        self._label, self._text, self._width = f"{label:{width - 1}} ", text, width

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        room = options.max_width - self._width
        if room < self._width or len(self._label) > self._width:
            yield _wrapped(self._label + self._text, options.max_width)
        else:
            yield self._label + _wrapped(self._text, room).replace("\n", "\n" + " " * self._width)


def _words(cell: str) -> list[str]:
    """What stays together: words, an interval in its brackets, a percentage, and an indentation with its word."""
    return re.findall(r"^ *\S+|\[[^\]]*\]|\S+ %\S*|\S+", cell) or [""]


def _pieces(cell: str) -> list[str]:
    """Words again, cut behind the underscores of names."""
    return re.findall(r"^ *[^\s_]+_?|[^\s_]+_?|_", cell) or [""]


def _wrapped(text: str, width: int) -> str:
    """Broken between words, and within one only where it is longer than a line. A piece never is."""
    if cell_len(text) <= width:
        return text
    lines = [""]
    for word in _words(text):
        parts = [word] if cell_len(word) <= width else _pieces(word)
        for part, glue in zip(parts, (" ", *_glue(word, parts)), strict=True):
            longer = f"{lines[-1]}{glue}{part}" if lines[-1] else part
            if lines[-1] and cell_len(longer) > width:
                lines.append(part)
            else:
                lines[-1] = longer
    return "\n".join(lines)


def _glue(word: str, parts: Sequence[str]) -> list[str]:
    """Between the pieces of a word: nothing behind an underscore, else the space that stood there."""
    return ["" if part.endswith("_") else " " for part in parts[:-1]]


def quantity(value: float | None, unit: str) -> str:
    """In people's units. Unknown is words."""
    if value is None:
        return _NOT_MEASURED
    if unit == "s":
        return format_duration(value)
    if unit == "bytes":
        return format_bytes(value)
    if unit == "share":
        return f"{value * 100:.1f} %"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 3
    return f"{value:,.{digits}f} {unit}"


def spread(value: float | None, low: float | None, high: float | None, unit: str) -> str:
    """
    >>> spread(0.012, 0.011, 0.013, "s")
    '12.0 ms [11.0 ms, 13.0 ms]'
    """
    if value is None or low is None or high is None:
        return quantity(value, unit)
    return f"{quantity(value, unit)} [{_bare(low, unit)}, {_bare(high, unit)}]"


def _bare(value: float, unit: str) -> str:
    text = quantity(value, unit)
    return text if unit in ("s", "bytes") else text.removesuffix(f" {unit}")


def point(concurrency: int | None, request_rate: float | None) -> str:
    if request_rate is not None:
        return f"{request_rate:g}/s"
    return "" if concurrency is None else f"c={concurrency}"
