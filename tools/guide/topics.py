"""The topics guide is taught: read from knowledge/*.yaml, one answer each, many ways to ask."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

__all__ = ["TOPICS_FOLDER", "Topic", "load_topics"]

TOPICS_FOLDER = Path(__file__).parent / "knowledge"

Kind = Literal["term", "command", "plain"]


@dataclass(frozen=True)
class Topic:
    """One thing guide can be asked about.

    `names` are the topic's names, most usual first; the generic wordings of its `kind` are filled with them. `ask` are
    further questions used in training, `held_out` questions that never are. `must` are the phrases that a right answer
    contains, in lower case; `a|b` means either.
    """

    id: str
    kind: Kind
    names: tuple[str, ...]
    ask: tuple[str, ...]
    held_out: tuple[str, ...]
    answer: str
    must: tuple[str, ...]


def load_topics(folder: Path = TOPICS_FOLDER) -> tuple[Topic, ...]:
    """All topics of all files in `folder`, in the order of the files' names. Raises ValueError for a bad one."""
    topics = tuple(topic for path in sorted(folder.glob("*.yaml")) for topic in _of_file(path))
    seen: set[str] = set()
    for topic in topics:
        if topic.id in seen:
            raise ValueError(f"topic {topic.id!r} is written twice; give one of them another id")
        seen.add(topic.id)
        _check(topic)
    return topics


def _of_file(path: Path) -> Iterator[Topic]:
    entries: list[dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    for entry in entries:
        yield Topic(
            id=entry["id"],
            kind=entry.get("kind", "term"),
            names=tuple(entry.get("names", ())),
            ask=_questions(entry.get("ask", "")),
            held_out=_questions(entry.get("held_out", "")),
            answer=" ".join(entry["answer"].split()),
            must=tuple(entry["must"]),
        )


def _questions(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in str(text).split("|") if part.strip())


def _check(topic: Topic) -> None:
    if not (topic.names if topic.kind != "plain" else topic.ask):
        raise ValueError(f"topic {topic.id!r} can't be asked about; give it names, or ask: for kind plain")
    answer = topic.answer.lower()
    for phrase in topic.must:
        if not any(part in answer for part in phrase.split("|")):
            raise ValueError(f"topic {topic.id!r}: its own answer lacks {phrase!r}; change must: or the answer")
