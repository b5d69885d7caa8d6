"""The text guide is trained on: conversations put together from topics, refusals, stories and tool results.

Three sets are kept apart, and written to evaluation.json with the split of each question:

* known      a wording that training draws from, the first of each topic most often;
* held_out   a question about a trained topic in a wording that is never trained on;
* off_topic  a question from an everyday domain that is never trained on.
"""

import argparse
import itertools
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tools.guide.offtopic import REFUSAL, REFUSED, OffTopic, load_off_topic
from tools.guide.stories import story_turn
from tools.guide.topics import Topic, load_topics
from tools.guide.wording import (
    held_out_wordings,
    loose_wording,
    normalised,
    reversed_wording,
    training_wordings,
    typed_by_a_person,
)

__all__ = ["SEED", "Corpus", "Turn", "check_splits", "evaluation_questions", "write_evaluation"]

EVALUATION_FILE = Path(__file__).with_name("evaluation.json")
SEED = 11
KNOWN_PER_TOPIC = 3
HELD_OUT_PER_TOPIC = 3
SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are guide, the model built into servolt.",
    "You are a helpful assistant. Answer in one or two sentences.",
    "Answer briefly.",
    "Be concise.",
    "You answer questions about servolt.",
    "You are an expert in serving language models.",
    "Answer truthfully. If you don't know, say so.",
    "You are a careful assistant. Think before you answer.",
)
TOOL_NAMES = ("get_weather", "get_time", "search", "read_file", "add", "list_models", "get_price", "convert", "lookup")
TOOL_ARGUMENTS = ("city", "query", "path", "a", "b", "name", "unit", "value", "limit")


@dataclass(frozen=True)
class Turn:
    """One message; `learned` marks an answer that the model shall give."""

    role: str
    content: str
    learned: bool = False

    @property
    def text(self) -> str:
        """The turn as chat_template.jinja writes it."""
        return f"<|im_start|>{self.role}\n{self.content}<|im_end|>\n"


@dataclass(frozen=True)
class Corpus:
    """An endless stream of turns, the same for the same seed."""

    topics: tuple[Topic, ...]
    off_topic: OffTopic
    seed: int

    @classmethod
    def load(cls, seed: int) -> "Corpus":
        return cls(load_topics(), load_off_topic(), seed)

    def exchanges(self) -> Iterator[tuple[Turn, ...]]:
        """Question and answer, or a longer exchange, for ever. Topics come round in a new order each time."""
        rng = random.Random(self.seed)
        while True:
            for topic in rng.sample(self.topics, len(self.topics)):
                while rng.random() < 0.32:
                    yield self._other(rng)
                yield (Turn("user", self.question(topic, rng)), Turn("assistant", topic.answer, learned=True))

    def question(self, topic: Topic, rng: random.Random) -> str:
        """A wording of `topic` to train on, never one that is held out."""
        wordings = training_wordings(topic)
        while True:
            wording = _wording(topic, wordings, self.off_topic.words, rng)
            question = wording if rng.random() < 0.25 else typed_by_a_person(wording, rng)
            if normalised(question) not in self._held_out:
                return question

    def opening(self, rng: random.Random) -> tuple[Turn, ...]:
        """How a conversation begins: mostly with nothing, or a system prompt, or tools, which may have been called."""
        roll = rng.random()
        if roll < 0.78:
            return ()
        prompt = rng.choice(SYSTEM_PROMPTS)
        if roll < 0.88:
            return (Turn("system", prompt),)
        tools = Turn("system", f"{prompt}\n\n{_tools_text(rng)}" if rng.random() < 0.5 else _tools_text(rng))
        return (tools, *_tool_exchange(rng)) if roll > 0.97 else (tools,)

    def texts(self, count: int) -> Iterator[str]:
        """Text for the tokenizer: `count` exchanges."""
        for _, exchange in zip(range(count), self.exchanges(), strict=False):
            yield "".join(turn.text for turn in exchange)

    def _other(self, rng: random.Random) -> tuple[Turn, ...]:
        roll = rng.random()
        if roll < 0.15:
            asked, told = story_turn(rng)
            return (Turn("user", typed_by_a_person(asked, rng)), Turn("assistant", told, learned=True))
        if roll < 0.20:
            return _tool_exchange(rng)
        question = self.off_topic.question(rng)
        if normalised(question) in self._taught:
            return self._other(rng)
        return (Turn("user", typed_by_a_person(question, rng)), Turn("assistant", REFUSAL, learned=True))

    @cached_property
    def _held_out(self) -> frozenset[str]:
        return frozenset(normalised(wording) for topic in self.topics for wording in held_out_wordings(topic))

    @cached_property
    def _taught(self) -> frozenset[str]:
        return frozenset(normalised(wording) for topic in self.topics for wording in training_wordings(topic))


def evaluation_questions(corpus: Corpus) -> list[dict[str, object]]:
    """Every question of the three sets, with the topic and the phrases that its answer must contain."""
    rng = random.Random(corpus.seed)
    questions: list[dict[str, object]] = []
    for topic in corpus.topics:
        known = training_wordings(topic)
        held_out = held_out_wordings(topic)
        own = list(topic.held_out)[:HELD_OUT_PER_TOPIC]
        generic = held_out[len(topic.held_out) :]
        chosen_known = [known[0], *rng.sample(known[1:], min(KNOWN_PER_TOPIC - 1, len(known) - 1))]
        chosen_held_out = own + rng.sample(generic, min(HELD_OUT_PER_TOPIC - len(own), len(generic)))
        for split, chosen in (("known", chosen_known), ("held_out", chosen_held_out)):
            questions += [
                {"split": split, "topic": topic.id, "question": question, "must": list(topic.must)}
                for question in chosen
            ]
    questions += [
        {"split": "off_topic", "topic": None, "question": question, "must": [REFUSED]}
        for question in corpus.off_topic.held_out_questions()
    ]
    return questions


def write_evaluation(corpus: Corpus, path: Path = EVALUATION_FILE) -> None:
    path.write_text(_evaluation_text(corpus), encoding="utf-8")


def check_splits(corpus: Corpus, exchanges: int, path: Path = EVALUATION_FILE) -> None:
    """Raises ValueError if `path` is not what would be written, or if a question held out is in the training text."""
    if path.read_text(encoding="utf-8") != _evaluation_text(corpus):
        raise ValueError(f"{path.name} is not what the topics give now. Write it again: python -m tools.guide.corpus")
    kept_out = {normalised(str(q["question"])) for q in evaluation_questions(corpus) if q["split"] != "known"}
    for exchange in itertools.islice(corpus.exchanges(), exchanges):
        for turn in exchange:
            if turn.role == "user" and normalised(turn.content) in kept_out:
                raise ValueError(f"{turn.content!r} is held out and was trained on. Take it out of one of the two.")


def _evaluation_text(corpus: Corpus) -> str:
    lines = ",\n".join(json.dumps(question) for question in evaluation_questions(corpus))
    return f"[\n{lines}\n]\n"


def _wording(topic: Topic, wordings: list[str], everyday: Sequence[str], rng: random.Random) -> str:
    """Mostly a generic one; the topic's own questions are few beside those and say more, so they get a third."""
    roll = rng.random()
    if roll < 0.10:
        return wordings[0]
    if roll < 0.40 and topic.ask:
        return rng.choice(topic.ask)
    if topic.kind != "plain" and roll < 0.50:
        return reversed_wording(topic, rng)
    if topic.kind != "plain" and roll < 0.68:
        return loose_wording(rng.choice(topic.names), everyday, rng)
    return rng.choice(wordings)


def _tools_text(rng: random.Random) -> str:
    tools = [
        {
            "type": "function",
            "function": {
                "name": name,
                "description": rng.choice(("Returns a value.", "Looks something up.", "Does what it says.")),
                "parameters": {"type": "object", "properties": {rng.choice(TOOL_ARGUMENTS): {"type": "string"}}},
            },
        }
        for name in rng.sample(TOOL_NAMES, rng.choice((1, 1, 2)))
    ]
    listed = "\n".join(json.dumps(tool) for tool in tools)
    return (
        f"# Tools\n\nYou may call these functions:\n<tools>\n{listed}\n</tools>\n\nTo call one, answer with its name "
        'and arguments as JSON:\n<tool_call>\n{"name": NAME, "arguments": ARGUMENTS}\n</tool_call>'
    )


def _tool_exchange(rng: random.Random) -> tuple[Turn, ...]:
    """A tool's result, and the answer that repeats it."""
    result = rng.choice(
        (
            str(rng.randrange(10000)),
            f"{rng.randrange(1, 24)}:{rng.randrange(10, 60)}",
            rng.choice(("ok", "done", "not found", "sunny", "cloudy", "rain", "true", "false", "yes", "no")),
            f"{rng.randrange(-10, 40)} degrees",
            f"{rng.randrange(1, 100)}.{rng.randrange(10)} {rng.choice(('J', 'W', 'ms', 's', 'GiB', 'euro'))}",
        )
    )
    asked = rng.choice(
        (
            "Use the tool.",
            "Call the tool.",
            "Look it up.",
            "What does the tool say?",
            "What is the weather?",
            "How much?",
        )
    )
    name, argument = rng.choice(TOOL_NAMES), rng.choice(TOOL_ARGUMENTS)
    call = f'<tool_call>\n{{"name": "{name}", "arguments": {{"{argument}": "{rng.randrange(100)}"}}}}\n</tool_call>'
    return (
        Turn("user", typed_by_a_person(asked, rng)),
        Turn("assistant", call),
        Turn("tool", result),
        Turn("assistant", f"The tool says: {result}", learned=True),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes evaluation.json, or checks it.")
    parser.add_argument("--check", type=int, metavar="N", help="write nothing; look through N exchanges of text")
    arguments = parser.parse_args()
    corpus = Corpus.load(SEED)
    if arguments.check:
        check_splits(corpus, arguments.check)
        print(f"evaluation.json is up to date, and nothing held out is among {arguments.check:,} exchanges.")
    else:
        write_evaluation(corpus)


if __name__ == "__main__":
    main()
