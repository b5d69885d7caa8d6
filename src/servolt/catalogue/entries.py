"""Models by name: the facts of a published config.json, enough to plan a model that is not here."""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import Field

from servolt.catalogue.names import Index, Language, Spelling
from servolt.catalogue.rows import Entry, Row, entries, stamp
from servolt.catalogue.values import value_of
from servolt.catalogue.words import Name
from servolt.document import Value
from servolt.model import Model, model_from_config

__all__ = [
    "TELLING",
    "ModelEntry",
    "find_model_entry",
    "known_model_entry",
    "model_entry_of",
    "models",
    "words_of_name",
]


class ModelEntry(Value):
    """What is known of a model without its files. What the card does not say is None."""

    name: str
    aliases: tuple[str, ...] = ()
    hub_id: str = Field(description="organisation/name on Hugging Face")
    family: str
    parameters: int = Field(gt=0, description="as the card or the name states it")
    active_parameters: int | None = Field(None, gt=0, description="of one token, as the card states it")
    total: int | None = Field(None, gt=0, description="the exact count that is published, where one is")
    context: int = Field(gt=0, description="tokens the model is made for, as the card states it")
    licence: str
    config: Mapping[str, Any] = Field(description="of config.json, in its spelling: what a plan needs")
    source: str
    date: str
    verified: bool
    notes: str | None = None

    def model(self, *, quantization: str | None = None, dtype: str | None = None) -> Model:
        """With every size computed from `config`. Raises ModelFileError for a config that can't be used."""
        return model_from_config(self.config, name=self.hub_id, quantization=quantization, dtype=dtype)


def find_model_entry(name: str) -> ModelEntry:
    """By its name, its hub id, a file name, or a fine-tune's or quantised copy's name that contains it.

    Raises UnknownNameError with the nearest names, and AmbiguousNameError with the candidates.
    """
    return _found(name, stamp("models"))


def known_model_entry(name: str) -> ModelEntry | None:
    """The same; None for an unknown name, at once. Raises AmbiguousNameError."""
    own = stamp("models")
    row = _as_written(own).get(name.strip().casefold())
    if row is None:
        row = _index(own).match(name, _read_model_name(name))
    return None if row is None else model_entry_of(entries("models")[row])


def models() -> tuple[ModelEntry, ...]:
    """All, the user's own first. Raises InvalidInputError for a row that can't be used."""
    return _all(stamp("models"))


@lru_cache(maxsize=2)
def _all(stamp: tuple[Path, int | None]) -> tuple[ModelEntry, ...]:
    return tuple(model_entry_of(entry) for entry in entries("models"))


def model_entry_of(entry: Entry) -> ModelEntry:
    """Raises InvalidInputError naming the row and what is wrong."""
    return value_of(ModelEntry, entry, {})


@lru_cache(maxsize=256)
def _found(text: str, stamp: tuple[Path, int | None]) -> ModelEntry:
    rows = entries("models")
    as_written = _as_written(stamp).get(text.strip().casefold())
    if as_written is None:
        as_written = _index(stamp).find(text, _read_model_name(text))
    return model_entry_of(rows[as_written])


@lru_cache(maxsize=2)
def _as_written(stamp: tuple[Path, int | None]) -> dict[str, int]:
    found: dict[str, int] = {}
    for at, entry in enumerate(entries("models")):
        for spelling in _spellings(entry.row):
            found.setdefault(spelling.casefold(), at)
    return found


@lru_cache(maxsize=2)
def _index(stamp: tuple[Path, int | None]) -> Index:
    rows = [entry.row for entry in entries("models")]
    spellings = [Spelling(text, at) for at, row in enumerate(rows) for text in _spellings(row)]
    return Index(_LANGUAGE, [row["name"] for row in rows], spellings)


def _spellings(row: Row) -> Iterator[str]:
    yield row["name"]
    yield row["hub_id"]
    yield row["hub_id"].rpartition("/")[2]
    yield from row.get("aliases", ())


# What a copy's name says of its storage, its date or its context, and nothing of the model's shape.
_STORED = re.compile(
    r"\.gguf$|\([^)]*\)|\b(?:ud-)?i?q\d+(?:[_-][0-9a-z]+)*|\bw\d+a\d+(?:kv\d+)?\b|\b(?:nv|mx)?fp\d+(?:[_-]e\dm\d)?\b"
    r"|\bb?f(?:16|32)\b|\bint\d+\b|\b\d+(?:\.\d+)?-?bits?\b|\b\d+k\b|\bi1\b"
    r"|\b2[3-6](?:0[1-9]|1[0-2])\b|\b(?:0[1-9]|1[0-2])(?:[0-2]\d|3[01])\b"
)
_WORD = re.compile(r"\d+(?:\.\d+)*|[a-z]+")
_SAID_OF_COPIES = """
    meta nvidia google microsoft ibm huggingfacetb unsloth instruct chat it hf safetensors gguf mlx awq gptq bnb exl2
    exl3 hqq marlin imatrix qat mtp dwq autoround quantized dynamic block static xl quark checkpoint deduped latest
    mistralai tiiuae
"""
_SAID_OF_MODELS = """
    vl omni coder mini small medium large tiny nano micro next flash air lite turbo max plus pro ultra super embedding
    reranker vision math moe draft eagle guard audio code distill distilled pruned merged h a e v r m z linear scout
    maverick nemo big dflash dspark medusa
"""
_COPIES = frozenset(_SAID_OF_COPIES.split())
TELLING = frozenset(_SAID_OF_MODELS.split())


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _read_model_name(text: str) -> Name:
    """
    >>> _read_model_name("unsloth/Qwen3-30B-A3B-Instruct-2507-UD-Q4_K_XL.gguf").words
    ('qwen', '3', '30', 'b', 'a', '3', 'b')
    """
    name = unicodedata.normalize("NFKC", text).strip().lower().rpartition("/")[2]
    return Name(tuple(word for word in _words(_STORED.sub(" ", name)) if word not in _COPIES))


def words_of_name(text: str) -> tuple[str, ...]:
    """What tells models apart in a name: without formats, dates and what copies are called."""
    return _read_model_name(text).words


_LANGUAGE = Language("model", _read_model_name, _words, TELLING)
