"""Questions guide has no answer to: everyday domains from offtopic.yaml, and words that do not exist."""

import random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from tools.guide.wording import COMMAND, REVERSED, TERM, loose_wording

__all__ = ["REFUSAL", "REFUSED", "Domain", "OffTopic", "load_off_topic"]

REFUSAL = "I don't know that. I only know servolt and the terms of its field."
REFUSED = "i don't know"  # what a refusal contains, in lower case
OFF_TOPIC_FILE = Path(__file__).with_name("offtopic.yaml")
ONSETS = (
    "b", "br", "c", "ch", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "kl", "l", "m", "n", "p", "pl", "pr", "qu",
    "r", "s", "sh", "sk", "st", "t", "tr", "v", "w", "z",
)  # fmt: skip
VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "oo", "ou", "y")
CODAS = (
    "", "", "", "b", "ck", "d", "ft", "g", "l", "ll", "m", "n", "nd", "ng", "p", "r", "rt", "s", "st", "t", "x",
)  # fmt: skip


@dataclass(frozen=True)
class Domain:
    """Words and whole questions of one everyday field; `held_out` domains are never trained on."""

    name: str
    held_out: bool
    words: tuple[str, ...]
    wordings: tuple[str, ...]


@dataclass(frozen=True)
class OffTopic:
    domains: tuple[Domain, ...]

    @cached_property
    def words(self) -> tuple[str, ...]:
        """All words of the domains that are trained on."""
        return tuple(word for domain in self.domains if not domain.held_out for word in domain.words)

    def question(self, rng: random.Random) -> str:
        """A question to train on: half about real words, a third about words made up on the spot, the rest digits."""
        domain = rng.choice([domain for domain in self.domains if not domain.held_out])
        roll = rng.random()
        if roll < 0.45:
            return filled(rng.choice(domain.wordings), domain, rng)
        if roll < 0.70:
            return rng.choice(rng.choice((TERM, TERM, TERM, REVERSED, COMMAND))).format(x=rng.choice(domain.words))
        if roll < 0.74:
            return sum_question(rng)
        if roll < 0.82:
            name = rng.choice(domain.words) if rng.random() < 0.5 else made_up_name(rng)
            return loose_wording(name, domain.words, rng)
        wordings = rng.choice((TERM, TERM, TERM, COMMAND, REVERSED))
        return rng.choice(wordings).format(x=made_up_name(rng))

    def held_out_questions(self) -> list[str]:
        """Every question of the held-out domains, each wording with as many words as it has room for."""
        rng = random.Random(7)
        questions: list[str] = []
        for domain in self.domains:
            if domain.held_out:
                questions += [filled(wording, domain, rng) for wording in domain.wordings]
                questions += [rng.choice(TERM).format(x=word) for word in domain.words]
        return list(dict.fromkeys(questions))


def load_off_topic(path: Path = OFF_TOPIC_FILE) -> OffTopic:
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    return OffTopic(
        tuple(
            Domain(
                name=entry["name"],
                held_out=entry.get("held_out", False),
                words=_parts(entry["words"]),
                wordings=_parts(entry["wordings"]),
            )
            for entry in entries
        )
    )


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split("|"))


def filled(wording: str, domain: Domain, rng: random.Random) -> str:
    first, second = rng.sample(domain.words, 2)
    return wording.format(x=first, y=second, n=rng.randrange(2, 100), m=rng.randrange(2, 100))


def sum_question(rng: random.Random) -> str:
    a, b, sign = rng.randrange(100), rng.randrange(100), rng.choice(("plus", "minus", "times", "+", "-", "*", "/"))
    return rng.choice(("What is {a} {s} {b}?", "{a} {s} {b}", "{a} {s} {b} = ?", "Compute {a} {s} {b}.")).format(
        a=a, b=b, s=sign
    )


def made_up_name(rng: random.Random) -> str:
    """One or two words of made-up syllables, or capitals like an abbreviation."""
    if rng.random() < 0.2:
        return "".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(rng.randrange(2, 6)))
    return " ".join(_made_up_word(rng) for _ in range(rng.choice((1, 1, 1, 2))))


def _made_up_word(rng: random.Random) -> str:
    syllables = rng.choice((1, 2, 2, 3))
    return "".join(rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS) for _ in range(syllables))
