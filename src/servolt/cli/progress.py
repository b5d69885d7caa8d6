"""A progress bar on a terminal, else a line every 10 s; SERVOLT_NO_PROGRESS=1 silences it."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from servolt.cli.output import say
from servolt.study.side_by_side import Step

__all__ = ["shown_progress"]

LINE_EVERY_S = 10.0


@contextmanager
def shown_progress(title: str) -> Iterator[Callable[[Step], None]]:
    """A function that shows a step of a study on stderr."""
    if os.environ.get("SERVOLT_NO_PROGRESS"):
        yield lambda step: None
    elif sys.stderr is not None and sys.stderr.isatty():
        with _bar(title) as show:
            yield show
    else:
        yield _Lines(title)


@contextmanager
def _bar(title: str) -> Iterator[Callable[[Step], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(28), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[doing]}"), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None, doing="")

        def show(step: Step) -> None:
            bar.update(task, completed=step.done, total=step.total, doing=step.doing)

        yield show


class _Lines:
    def __init__(self, title: str) -> None:
        self._title, self._next = title, time.monotonic() + LINE_EVERY_S

    def __call__(self, step: Step) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_EVERY_S
            say(f"{self._title} {step.done}/{step.total} {step.doing}".rstrip())
