"""Which flags each version of an engine knows, from the tables that tools/engine_flags makes of its source.

A version that was not read is taken as the ones before and after it: what both know is known.
"""

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

__all__ = ["Flag", "Known", "parsed", "version_key", "versions"]

FOLDER = files("servolt") / "data" / "engines" / "flags"


class Flag(NamedTuple):
    """One option: `kind` is int, float, str, json, list, bool, switch (no value) or toggle (with a --no- form)."""

    name: str
    kind: str
    choices: tuple[Any, ...] = ()
    known: tuple[Any, ...] = ()
    off: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    default: Any = None
    env: str | None = None


class Known:
    """What one version of an engine knows. `version` None is the newest that was read."""

    def __init__(self, engine: str, version: str | None = None) -> None:
        self.engine = engine
        read = versions(engine)
        self.version = version.removeprefix("v") if version is not None else read[-1]
        self.tables = _around(self.version, read)

    @property
    def exact(self) -> bool:
        return self.tables == (self.version,)

    def flag(self, name: str) -> Flag | None:
        """By any of its spellings; None for one that this version does not know, or may not."""
        found = [_table(self.engine, version).get(name) for version in self.tables]
        return found[0] if all(found) else None

    def names(self) -> list[str]:
        return sorted(name for name in _table(self.engine, self.tables[0]) if self.flag(name) is not None)


def parsed(known: Known, argv: tuple[str, ...]) -> dict[str, Any]:
    """Options of a command line under the first name of each, without dashes; positional words are left out.

    Raises ValueError for an option that this version does not know.
    """
    options: dict[str, Any] = {}
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            continue
        name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        flag = known.flag(name)
        if flag is None:
            raise ValueError(f"{known.engine} {known.version} knows no option {name}")
        if flag.kind in ("switch", "toggle"):
            options[flag.name.lstrip("-")] = name not in flag.off
        else:
            options[flag.name.lstrip("-")] = _read(flag, value if equals else rest.pop(0))
    return options


def _read(flag: Flag, text: str) -> Any:
    if flag.kind == "int":
        return int(text)
    if flag.kind == "float":
        return float(text)
    return json.loads(text) if flag.kind == "json" else text


@cache
def versions(engine: str) -> tuple[str, ...]:
    """Those whose source was read, oldest first."""
    pattern = re.compile(rf"{re.escape(engine)}-(\d.*)\.json")
    found = [match[1] for entry in FOLDER.iterdir() if (match := pattern.fullmatch(entry.name))]
    return tuple(sorted(found, key=version_key))


def version_key(version: str) -> tuple[int, ...]:
    """Sorts versions; what stands after the numbers does not count.

    >>> version_key("0.19.0") < version_key("v0.20.2rc1") < version_key("0.33")
    True
    """
    numbers = re.match(r"\d+(?:\.\d+)*", version.removeprefix("v"))
    return tuple(int(number) for number in numbers[0].split(".")) if numbers else ()


def _around(version: str, read: tuple[str, ...]) -> tuple[str, ...]:
    """The table of the version itself, else those of its neighbours."""
    if version in read:
        return (version,)
    key = version_key(version)
    older = [one for one in read if version_key(one) <= key]
    newer = [one for one in read if version_key(one) > key]
    return (*older[-1:], *newer[:1])


@cache
def _table(engine: str, version: str) -> Mapping[str, Flag]:
    document = json.loads((FOLDER / f"{engine}-{version}.json").read_text(encoding="utf-8"))
    found = {}
    for name, told in document["flags"].items():
        flag = Flag(
            name,
            told["kind"],
            tuple(told.get("choices", ())),
            tuple(told.get("known", ())),
            tuple(told.get("off", ())),
            tuple(told.get("aliases", ())),
            told.get("default"),
            told.get("env"),
        )
        for spelling in (name, *flag.aliases, *flag.off):
            found[spelling] = flag
    return found
