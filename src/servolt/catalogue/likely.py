"""What a name that the catalogue does not have probably means: a copy, a class, a relative, a family.

For plans only, and never without a caution. Nothing here is keyed by a model's name: every rule reads the entries.
"""

import difflib
import itertools
import math
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from servolt.catalogue.entries import TELLING, ModelEntry, known_model_entry, models, words_of_name
from servolt.catalogue.names import AmbiguousNameError
from servolt.catalogue.rows import stamp
from servolt.model.card import Size, size_in

__all__ = ["Likely", "likely_models", "slip_of"]


class Likely(NamedTuple):
    """`entries` stand by size; several where it is left open. `why` says what speaks for them. `same`: these very
    layers, perhaps with other weights."""

    entries: tuple[ModelEntry, ...]
    why: str
    same: bool = False

    @property
    def middle(self) -> ModelEntry:
        """The geometric one: the nearest to the mean of the logarithms of the smallest and the largest."""
        ends = (self.entries[0].parameters, self.entries[-1].parameters)
        centre = math.sqrt(ends[0] * ends[1])
        return min(self.entries, key=lambda one: abs(math.log(one.parameters / centre)))


_CLASS = re.compile(r"\b([A-Z]\w*?)For(?:CausalLM|ConditionalGeneration|VisionText2Text)\b")
# Words of descriptions that name a kind of layer, and the field of a config that such layers need.
_KINDS = {"dsa": "index_topk", "mla": "kv_lora_rank", "gdn": "linear_num_value_heads", "moe": "num_experts_per_tok"}
# What is said about a run or a machine, after the name of the model.
_ASIDE = re.compile(
    r"\s*[(,;].*$|\s\+\s.*$|\s+(?:with|on|at)\s.*$|\s+(?:model|models|family|hybrid|dense|class)\b.*$|\s{3,}.*$"
)
_TAG = re.compile(r":latest$|^hf\.co/")
_NEAR = math.log(1.06)  # a "9B" may have 9.4; what an entry's own name says is compared too
_EXPERTS_NEAR = math.log(1.35)  # cards round them more: "A3B" has 3.3
_RELATED = math.log(1.2)  # beyond that the shape of another release says less than the usual one
_LEAST_BRAND = 3  # letters
_ALIKE = 1.02  # of two sizes: one size


def likely_models(text: str) -> Likely | None:
    """The first rule that finds something; None where nothing is known but perhaps a size."""
    name = _Text.of(text)
    for rule in (
        _known,
        _contained,
        _of_class,
        _of_family_and_size,
        _of_relatives,
        _of_both_sizes,
        _of_family,
        _of_kind,
    ):
        found = rule(name)
        if found is not None:
            return found
    return None


def slip_of(text: str) -> str | None:
    """The name that a slip of one or two letters in its first word makes unknown: Qwne3-8B means Qwen3 8B."""
    words = words_of_name(text)
    brands = _brands()
    if "/" in text or not words or words[0] in brands:
        return None
    for brand in difflib.get_close_matches(words[0], brands, n=3, cutoff=0.75):
        try:
            entry = known_model_entry(text.lower().replace(words[0], brand, 1))
        except AmbiguousNameError:
            continue
        if entry is not None:
            return entry.name
    return None


class _Text(NamedTuple):
    """`words` are those of the name alone; size and class may stand in what is said beside it."""

    whole: str
    name: str
    words: tuple[str, ...]
    said: tuple[str, ...]  # the words of all of it
    size: Size | None

    @classmethod
    def of(cls, text: str) -> "_Text":
        whole = re.sub(r"(?i)\bqwen3([56])(?=\W|moe|$)", r"qwen3.\1", _TAG.sub("", text.strip()))
        name = _ASIDE.sub("", whole)
        flat = name.replace("/", " ") if " " in name else name
        said = words_of_name(re.sub(r"[()/,;]", " ", whole))
        return cls(whole, name, words_of_name(flat), said, size_in(re.sub(r"\.gguf$", "", whole)))


def _known(text: _Text) -> Likely | None:
    for name in (text.whole, text.name):
        try:
            entry = known_model_entry(name)
        except AmbiguousNameError:
            continue
        if entry is not None:
            return Likely((entry,), "the catalogue has that name", same=True)
    return None


def _contained(text: _Text) -> Likely | None:
    """A fine-tune or a copy names what it was made of, and adds numbers and words of its own."""
    found: list[tuple[bool, int, ModelEntry, bool]] = []
    for entry, words in _spellings():
        rest = _without(text.words, words)
        if rest is None or not _of_size(entry, text.size):
            continue
        sized, telling = _has_size(words), any(word in TELLING for word in _without_release(rest))
        if sized or not telling:
            found.append((sized, len(words), entry, not telling))
    if not found:
        return None
    _, _, entry, same = max(found, key=lambda one: one[:2])
    return Likely((entry,), "its name holds that one", same=same)


def _of_class(text: _Text) -> Likely | None:
    """Entries of an architecture's class: the nearest in size, else all of the family that the class is named for."""
    match = _CLASS.search(text.whole)
    if match is None:
        return None
    some = [one for one in models() if match[0] in one.config.get("architectures", ())]
    named = [one for one in some if match[1].lower().startswith(re.sub(r"\W", "", one.family.lower()))]
    return _sized(named or some, text.size, f"of class {match[0]}")


def _of_family_and_size(text: _Text) -> Likely | None:
    """Qwen3-Omni-30B-A3B: all words of a known name but its size stand in it, and the size agrees."""
    if text.size is None:
        return None
    found = []
    for entry, words in _spellings():
        base = words_of_name(entry.family) if _base(words) == words else _base(words)
        if base and _without(text.said, base) is not None and _of_size(entry, text.size):
            found.append((len(base), _is_sparse(entry) == bool(text.size.active), -_distance(entry, text.size), entry))
    if not found:
        return None
    entry = max(found, key=lambda one: one[:3])[3]
    return Likely((entry,), "of its family and its size")


def _of_relatives(text: _Text) -> Likely | None:
    """Of the same makers and about the same size: the release whose number is the nearest."""
    brand = next((word for word in text.words if len(word) >= _LEAST_BRAND and word in _brands()), None)
    size = text.size
    if size is None or brand is None:
        return None
    some = [one for one in models() if words_of_name(one.name)[0] == brand and _distance(one, size) < _RELATED]
    alike = [one for one in some if _is_sparse(one) == bool(size.active)] or ([] if size.active else some)
    if not alike:
        return None
    asked = _version(text.words)

    def unlike(one: ModelEntry) -> tuple[int, float, float]:
        """Without a number in the name: the nearest in size, and of these the newest."""
        words = words_of_name(one.name)
        other = (TELLING & {*words}) ^ (TELLING & {*text.words})
        if asked is None:
            return len(other), round(_distance(one, size), 2), -(_version(words) or 0)
        return len(other), abs((_version(words) or 0) - asked), _distance(one, size)

    entry = min(alike, key=unlike)
    return Likely((entry,), "of the same makers and about the same size")


def _of_both_sizes(text: _Text) -> Likely | None:
    """35B-A3B: fine-tunes keep both numbers of what they were made of, and one maker alone has that pair."""
    if text.size is None or text.size.active is None:
        return None
    some = [one for one in models() if size_in(one.name) == text.size]
    makers = {words_of_name(one.name)[0] for one in some}
    if len(makers) != 1:
        return None
    newest = max(some, key=lambda one: _version(words_of_name(one.name)) or 0)
    return Likely((newest,), "it alone, with older releases, has that size with so many weights for a token")


def _of_family(text: _Text) -> Likely | None:
    """All members, where the name says no more than the family."""
    if text.size is not None:
        return None
    families = {one.family: words_of_name(one.family) for one in models()}
    asked = [text.words, tuple(word for word in text.words if word != "v")]  # LLaMA v2
    whole = [(len(words), family) for family, words in families.items() if any(_is_whole(words, one) for one in asked)]
    if not whole:
        return None
    family = max(whole)[1]
    members = [one for one in models() if one.family == family]
    said = {word for one in members for word in words_of_name(one.name)}
    is_numbered = any(word[0].isdigit() for word in families[family])
    # Another kind of theirs, such as Nemotron Ultra; beside a number such a word is said of the run: V4 with a draft.
    if not is_numbered and any(word in TELLING and word not in said for word in text.words):
        makers = [one for one in models() if words_of_name(one.name)[0] in text.words]
        return _sized(makers, None, "of the same makers") if len(makers) > 1 else None
    return _sized(members, None, f"of the family {family}")


def _of_kind(text: _Text) -> Likely | None:
    """A description in words names a kind of layer, and perhaps makers: all that have it."""
    if " " not in text.whole:
        return None
    kind = next((word for word in text.said if word in _KINDS), None)
    if kind is None:
        return None
    some = [one for one in models() if _KINDS[kind] in {*one.config, *one.config.get("text_config", ())}]
    named = [one for one in some if words_of_name(one.name)[0] in text.said]
    return _sized(named or some, text.size, f"with {kind.upper()} layers")


def _is_whole(words: Sequence[str], asked: Sequence[str]) -> bool:
    rest = _without(tuple(asked), tuple(words))
    return bool(words) and rest is not None and not any(word[0].isdigit() for word in rest)


def _sized(some: Sequence[ModelEntry], size: Size | None, what: str) -> Likely | None:
    if not some:
        return None
    if size is not None:
        nearest = min(some, key=lambda one: _distance(one, size))
        if _distance(nearest, size) < _RELATED:
            return Likely((nearest,), f"{what}, the nearest in size")
        return None
    ordered = tuple(sorted(some, key=lambda one: one.parameters))
    if ordered[-1].parameters < ordered[0].parameters * _ALIKE:
        return Likely(ordered[:1], f"what the catalogue has {what}")
    ends = f"{ordered[0].name} to {ordered[-1].name}"
    return Likely(ordered, f"its size is not said, those {what} go from {ends}, and the intervals with them")


def _without(asked: tuple[str, ...], words: tuple[str, ...]) -> tuple[str, ...] | None:
    """What is left of `asked` around `words`; None where they don't stand in it as they are."""
    for start in range(len(asked) - len(words) + 1):
        if words and asked[start : start + len(words)] == words:
            return asked[:start] + asked[start + len(words) :]
    return None


def _without_release(words: tuple[str, ...]) -> tuple[str, ...]:
    """v4 of a copy is its own release, and no other model."""
    return tuple(
        word
        for at, word in enumerate(words)
        if word != "v" or not any(one[0].isdigit() for one in words[at + 1 : at + 2])
    )


def _has_size(words: Sequence[str]) -> bool:
    return any(one[0].isdigit() and unit in ("b", "m") for one, unit in itertools.pairwise(words))


def _base(words: tuple[str, ...]) -> tuple[str, ...]:
    """Without the size: qwen 3 of qwen 3 30 b a 3 b."""
    for at, (one, unit) in enumerate(itertools.pairwise(words)):
        if one[0].isdigit() and unit in ("b", "m"):
            return words[:at]
    return words


def _of_size(entry: ModelEntry, size: Size | None) -> bool:
    """Whether it may have that many weights. Where a name says nothing of experts it may have some."""
    if size is None:
        return True
    active = _active(entry)
    if size.active and (active is None or abs(math.log(active / size.active)) > _EXPERTS_NEAR):
        return False
    return _distance(entry, size) < _NEAR


def _distance(entry: ModelEntry, size: Size) -> float:
    stated = size_in(entry.name)
    sizes = {entry.parameters, *([stated.params] if stated else [])}
    return min(abs(math.log(one / size.params)) for one in sizes)


def _active(entry: ModelEntry) -> int | None:
    stated = size_in(entry.name)
    return entry.active_parameters or (stated.active if stated else None)


def _is_sparse(entry: ModelEntry) -> bool:
    return _active(entry) is not None or "num_experts_per_tok" in {*entry.config, *entry.config.get("text_config", ())}


def _version(words: Sequence[str]) -> float | None:
    """The first number of a name that is no size."""
    pairs = itertools.zip_longest(words, words[1:], fillvalue="")
    numbers = (one for one, behind in pairs if one[0].isdigit() and behind not in ("b", "m", "x"))
    return next((float(".".join(one.split(".")[:2])) for one in numbers), None)


def _spellings() -> Sequence[tuple[ModelEntry, tuple[str, ...]]]:
    return _read(stamp("models"))


def _brands() -> Sequence[str]:
    return _first_words(stamp("models"))


@lru_cache(maxsize=2)
def _first_words(stamp: tuple[Path, int | None]) -> tuple[str, ...]:
    return tuple(sorted({word for _, words in _read(stamp) for word in words[:1] if word.isalpha()}))


@lru_cache(maxsize=2)
def _read(stamp: tuple[Path, int | None]) -> tuple[tuple[ModelEntry, tuple[str, ...]], ...]:
    found = []
    for entry in models():
        for spelling in (entry.name, entry.hub_id, *entry.aliases):
            words = words_of_name(spelling)
            if any(word[0].isdigit() for word in words) and any(len(word) > 1 and word.isalpha() for word in words):
                found.append((entry, words))
    return tuple(found)
