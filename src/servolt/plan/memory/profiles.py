"""What is known of an engine's memory, version by version: facts with their source and date, read from data files.

A file `data/engines/ENGINE.toml` holds entries. Each says since which version it holds; of those that are not above the
asked version the newest rules. So a version that was never read takes what its nearest older one had.
"""

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

__all__ = ["Entry", "Profile", "profile_of", "profiled_engines", "version_key"]

# How much wider an interval gets: a version between two that were read; one above all that were read; none stated.
BETWEEN_FACTOR = 1.5
BEYOND_FACTOR = 2.5
UNSTATED_FACTOR = 1.5


class Entry(NamedTuple):
    value: Any
    since: str
    source: str
    date: str


class Profile(NamedTuple):
    """An engine at one version. `width` multiplies the intervals of what was fitted, 1 where the version was read."""

    engine: str
    version: str
    entries: Mapping[str, Entry]
    width: float
    notes: tuple[str, ...]

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def value(self, name: str) -> Any:
        return self.entries[name].value

    def number(self, name: str) -> float:
        return float(self.entries[name].value)

    def flag(self, name: str) -> bool:
        return bool(self.entries[name].value)

    @property
    def formula(self) -> str:
        """Names the arithmetic of its pool."""
        return str(self.value("formula"))


def profile_of(engine: str, version: str | None) -> Profile | None:
    """None for an engine without a file. Without a version: the newest that was read."""
    known = _file(engine)
    if known is None:
        return None
    return _profile(engine, version)


@cache
def profiled_engines() -> tuple[str, ...]:
    return tuple(
        sorted(
            entry.name.removesuffix(".toml")
            for entry in files("servolt").joinpath("data", "engines").iterdir()
            if entry.name.endswith(".toml")
        )
    )


def version_key(version: str) -> tuple[int, ...] | None:
    """Numbers to sort by, from a text that may say more; None where it holds no version.

    >>> version_key("v0.8.5.post1"), version_key("main of July (0.5.15 or so)"), version_key("b2824")
    ((0, 8, 5), (0, 5, 15), (2824,))
    """
    match = re.search(r"[0-9]+(?:\.[0-9]+)+", version) or re.search(r"(?<![0-9A-Za-z])[bv]?([0-9]+)$", version)
    if match is None:
        return None
    return tuple(int(number) for number in re.findall("[0-9]+", match.group()))


class _File(NamedTuple):
    read: tuple[tuple[int, ...], ...]  # versions whose source was read, oldest first
    alike: int  # leading numbers of a version that matter: 2 where patch releases are alike
    entries: Mapping[str, tuple[tuple[tuple[int, ...], Entry], ...]]  # by name, oldest first


@cache
def _file(engine: str) -> _File | None:
    if engine not in profiled_engines():
        return None
    text = files("servolt").joinpath("data", "engines", f"{engine}.toml").read_text(encoding="utf-8")
    plain = tomllib.loads(text)
    entries: dict[str, list[tuple[tuple[int, ...], Entry]]] = {}
    for entry in plain["entry"]:
        found = Entry(entry["value"], entry.get("since", "0"), entry["source"], str(entry["date"]))
        entries.setdefault(entry["name"], []).append((_numbers(found.since), found))
    by_age = {name: tuple(sorted(found, key=lambda pair: pair[0])) for name, found in entries.items()}
    return _File(tuple(sorted(map(_numbers, plain["read"]))), plain["alike"], by_age)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


@cache
def _profile(engine: str, version: str | None) -> Profile:
    known = _file(engine)
    assert known is not None
    wanted = version_key(version) if version else None
    width, notes = _trust(engine, version, wanted, known)
    wanted = wanted or known.read[-1]
    entries: dict[str, Entry] = {}
    for name, candidates in known.entries.items():
        older = [entry for since, entry in candidates if since <= wanted]
        entries[name] = older[-1] if older else candidates[0][1]
    return Profile(engine, ".".join(map(str, wanted)), entries, width, notes)


def _trust(
    engine: str, version: str | None, wanted: tuple[int, ...] | None, known: _File
) -> tuple[float, tuple[str, ...]]:
    if wanted is None:
        newest = ".".join(map(str, known.read[-1]))
        said = f"{version!r} names no version of {engine}" if version else f"No version of {engine} is stated"
        return UNSTATED_FACTOR, (f"{said}: planned as {newest}, the newest one known.",)
    if any(wanted[: known.alike] == read[: known.alike] for read in known.read):
        return 1.0, ()
    older = [read for read in known.read if read <= wanted]
    nearest = ".".join(map(str, older[-1] if older else known.read[0]))
    age = "the nearest older" if older else "the oldest"
    note = f"{engine} {'.'.join(map(str, wanted))} is not known: planned as {nearest}, {age} one."
    inside = bool(older) and wanted < known.read[-1]
    return (BETWEEN_FACTOR if inside else BEYOND_FACTOR), (note,)
