"""Tables and figures for people."""

import io
import shutil
import sys
from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.table import Table

from servolt.units import format_bytes, format_duration

__all__ = ["point", "quantity", "render", "spread", "table"]

_NOT_MEASURED = "not measured"
UNFITTED = 10_000  # columns: a pipe and a file have no width


def render(parts: Sequence[RenderableType], *, whole: bool = False) -> str:
    """What rich draws, as text; coloured and fitted only where stdout is a terminal. `whole` shortens nothing."""
    fitted = sys.stdout.isatty() and not whole
    text = io.StringIO()
    width = max(60, shutil.get_terminal_size((120, 40)).columns) if fitted else UNFITTED
    console = Console(file=text, force_terminal=sys.stdout.isatty(), width=width, highlight=False, markup=False)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str))  # a line is the terminal's to break
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Columns whose name ends in `>` are right-aligned."""
    drawn = Table(box=None, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        drawn.add_column(column.removesuffix(">"), justify="right" if column.endswith(">") else "left", no_wrap=True)
    for row in rows:
        drawn.add_row(*row)
    return drawn


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
