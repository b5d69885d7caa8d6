"""Finding one row by a name that nobody spells the same way."""

import difflib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from servolt.catalogue.words import Name
from servolt.errors import InvalidInputError

__all__ = [
    "LABEL_TOLERANCE",
    "OPTION_TOLERANCE",
    "AmbiguousNameError",
    "Index",
    "Language",
    "Spelling",
    "UnknownNameError",
]

NAMED = 6  # candidates an error names
LIKE = 0.6  # share of letters in common that makes a name worth naming
LABEL_TOLERANCE = 0.10  # a label and what is sold or shown under it: 192 and 180, 288 and 270, 96 and 95.0
OPTION_TOLERANCE = 0.05  # two sizes of one chip: 64 is not 48


Words: TypeAlias = tuple[str, ...]


class UnknownNameError(InvalidInputError):
    """No such name. `nearest` are names there are."""

    def __init__(self, what: str, text: str, nearest: Sequence[str], remedy: str) -> None:
        near = f" The nearest are {', '.join(nearest)}." if nearest else ""
        super().__init__(f"no {what} is called {text!r}.{near}", remedy)
        self.nearest = tuple(nearest)


class AmbiguousNameError(InvalidInputError):
    """`candidates` are the names that it could be, the likeliest first."""

    def __init__(self, what: str, text: str, candidates: Sequence[str]) -> None:
        more = f" and {len(candidates) - NAMED} more" if len(candidates) > NAMED else ""
        super().__init__(
            f"{text!r} is more than one {what}: {', '.join(candidates[:NAMED])}{more}.", "Name one of them in full."
        )
        self.candidates = tuple(candidates)


class Spelling(NamedTuple):
    """One way to write the name of row number `row`."""

    text: str
    row: int


@dataclass(frozen=True)
class Language:
    """How names of one kind of thing are read. `telling` are words that make another thing of a name."""

    what: str
    read: Callable[[str], Name]
    split: Callable[[str], Sequence[str]]
    telling: frozenset[str]


class _Read(NamedTuple):
    """A spelling and what is in it."""

    name: Name
    row: int


class Index:
    """All spellings, by each of their words; a spelling is read in full only where a word of it is asked for.

    `memories` gives the sizes in bytes with which a row's device is sold or shown.
    """

    def __init__(
        self,
        language: Language,
        titles: Sequence[str],
        spellings: Iterable[Spelling],
        memories: Callable[[int], Iterable[float]] = lambda row: (),
    ) -> None:
        self.language = language
        self.titles = titles
        self.spellings = tuple(spellings)
        self.memories = memories
        self._names: dict[str, Name] = {}
        self._by_word: dict[str, list[Spelling]] = defaultdict(list)
        for spelling in self.spellings:
            for word in set(language.split(spelling.text)):
                self._by_word[word].append(spelling)

    def find(self, text: str, name: Name) -> int:
        """The row's number. Raises UnknownNameError, AmbiguousNameError."""
        row = self.match(text, name)
        if row is not None:
            return row
        raise UnknownNameError(self.language.what, text, self.nearest(text), "`servolt catalog list` prints them all.")

    def match(self, text: str, name: Name) -> int | None:
        """None for an unknown name: what is near it takes long to find. Raises AmbiguousNameError."""
        near = self._near(name)
        asked = name.words
        found = [one for one in near if one.name.words == asked]
        found = found or [one for one in near if sorted(one.name.words) == sorted(asked)]
        found = found or _longest([one for one in near if self._contained(one.name.words, asked)])
        found = found or [one for one in near if _shortened(one.name.words, asked)]
        return self._one(text, name, found) if found else None

    def nearest(self, text: str, most: int = NAMED) -> list[str]:
        """By the letters, the best first."""
        matcher = difflib.SequenceMatcher(b=text.casefold(), autojunk=False)
        scored: dict[int, float] = {}
        for spelling in self.spellings:
            matcher.set_seq1(spelling.text.casefold())
            if matcher.real_quick_ratio() > LIKE and matcher.quick_ratio() > LIKE:
                scored[spelling.row] = max(scored.get(spelling.row, 0.0), matcher.ratio())
        best = sorted(scored, key=lambda row: -scored[row])
        return [self.titles[row] for row in best if scored[row] >= LIKE][:most]

    def _near(self, name: Name) -> list[_Read]:
        """Whatever the way to find it, a spelling shares the numbers of the name, or some word where it has none."""
        numbers = [word for word in name.words if _is_number(word)]
        if numbers:
            spellings = min((self._by_word.get(number, []) for number in numbers), key=len)
        else:
            spellings = list(dict.fromkeys(one for word in name.words for one in self._by_word.get(word, [])))
        return [_Read(self._read(spelling.text), spelling.row) for spelling in spellings]

    def _read(self, text: str) -> Name:
        if text not in self._names:
            self._names[text] = self.language.read(text)
        return self._names[text]

    def _contained(self, words: Words, asked: Words) -> bool:
        """A known name with words around it that make no other thing of it."""
        length = len(words)
        for start in range(len(asked) - length + 1):
            if words and asked[start : start + length] == words:
                around = asked[:start] + asked[start + length :]
                return not any(word in self.language.telling or _is_number(word) for word in around)
        return False

    def _one(self, text: str, name: Name, spellings: list[_Read]) -> int:
        spellings = self._with_cores(name, spellings)
        if name.memory_bytes is not None:
            spellings = self._with_memory(name.memory_bytes, spellings)
        else:
            spellings = [one for one in spellings if one.name.memory_bytes is None] or spellings
        rows = list(dict.fromkeys(one.row for one in spellings))
        if len(rows) > 1:
            raise AmbiguousNameError(self.language.what, text, [self.titles[row] for row in rows])
        return rows[0]

    def _with_cores(self, name: Name, spellings: list[_Read]) -> list[_Read]:
        """The plain spelling of a chip means its default cores; the others' spellings count where the size decides."""
        if name.cores is not None:
            return [one for one in spellings if one.name.cores == name.cores] or spellings
        plain = [one for one in spellings if one.name.cores is None]
        if name.memory_bytes is None or not plain:
            return plain or spellings
        held = [one for one in plain if self._holds(one.row, name.memory_bytes, OPTION_TOLERANCE)]
        return held or spellings

    def _with_memory(self, memory_bytes: float, spellings: list[_Read]) -> list[_Read]:
        """Said in the very spelling, else the rows that come with that much, else (a card that was changed) those that
        are named without a size."""
        said = [one for one in spellings if one.name.memory_bytes == memory_bytes]
        if said:
            return said
        held = [one for one in spellings if self._holds(one.row, memory_bytes, LABEL_TOLERANCE)]
        if held:
            nearest = min(self._distance(one.row, memory_bytes) for one in held)
            held = [one for one in held if self._distance(one.row, memory_bytes) <= nearest + 0.01]
        wanted = held or spellings
        return [one for one in wanted if one.name.memory_bytes is None] or wanted

    def _holds(self, row: int, memory_bytes: float, tolerance: float) -> bool:
        return self._distance(row, memory_bytes) <= tolerance

    def _distance(self, row: int, memory_bytes: float) -> float:
        return min((abs(one - memory_bytes) / one for one in self.memories(row)), default=1.0)


def _is_number(word: str) -> bool:
    return word[0].isdigit()


def _shortened(words: Words, asked: Words) -> bool:
    """A name of which only some words are said: with a number among them, or it could be anything."""
    return any(map(_is_number, asked)) and set(asked) <= set(words)


def _longest(spellings: list[_Read]) -> list[_Read]:
    most = max((len(one.name.words) for one in spellings), default=0)
    return [one for one in spellings if len(one.name.words) == most]
