"""The one way to an adapter: by group and name from entry points, imported when asked for."""

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from servolt.command import Engine, Launcher
from servolt.errors import InvalidInputError
from servolt.measurement import Meter

__all__ = ["engine", "formula", "launcher", "meter", "names", "source"]


def engine(name: str) -> Engine:
    """Raises InvalidInputError for a name that is not registered; so do the others."""
    return cast("Engine", _load("engines", name)())


def launcher(name: str) -> Launcher:
    return cast("Launcher", _load("launchers", name)())


def meter(name: str) -> Meter:
    return cast("Meter", _load("meters", name)())


def source(name: str) -> Any:
    return _load("sources", name)()


def formula(name: str) -> Any:
    """A plug-in's own figures for plans; see plan/formulas.py for what it is asked."""
    return _load("formulas", name)()


def names(group: str) -> list[str]:
    """The registered names of `engines`, `launchers`, `meters`, `sources` or `formulas`."""
    return sorted(_entries(group))


@cache
def _entries(group: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=f"servolt.{group}")}


def _load(group: str, name: str) -> Any:
    entries = _entries(group)
    if name not in entries:
        known = ", ".join(sorted(entries)) or "none"
        raise InvalidInputError(f"no {group.removesuffix('s')} is called {name!r}.", f"Registered here: {known}.")
    return entries[name].load()
