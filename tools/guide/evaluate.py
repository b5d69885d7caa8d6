"""Asks guide every question of evaluation.json through llama.cpp and counts the right answers.

The rule. A question is asked alone, without a system prompt, and answered greedily (temperature 0). The answer is right
if

* it holds every phrase of the question's `must`, compared in lower case (`a|b` means either), and
* it ended by itself: the finish reason is `stop`, not `length` after 96 tokens.

For the split `off_topic` the phrase is "i don't know". Nothing else of an answer is judged: one with the right phrases
and a wrong word between them counts as right, and a good one in other words does not.

Run it as `python -m tools.guide.evaluate`, for the two shipped files, or with other files as arguments.
"""

import argparse
import json
import random
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xllamacpp

__all__ = ["Answer", "Question", "Score", "answers", "questions", "scores"]

SHIPPED = Path(__file__).parents[2] / "src" / "servolt" / "data" / "guide"
EVALUATION_FILE = Path(__file__).with_name("evaluation.json")
MOST_TOKENS = 96  # the longest answer that is taught, stories apart, has 41
STORY_TOKENS = 512
SPLITS = ("known", "held_out", "off_topic")


@dataclass(frozen=True)
class Question:
    split: str
    topic: str | None
    question: str
    must: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    asked: Question
    text: str
    finish_reason: str

    @property
    def right(self) -> bool:
        text = self.text.lower()
        holds_all = all(any(part in text for part in phrase.split("|")) for phrase in self.asked.must)
        return holds_all and self.finish_reason == "stop"


@dataclass(frozen=True)
class Score:
    """How many questions of one split a file answered right."""

    file: str
    split: str
    asked: int
    right: int
    stopped: int

    @property
    def share(self) -> float:
        return self.right / self.asked


def main() -> None:
    arguments = _arguments()
    files = arguments.files or sorted(SHIPPED.glob("*.gguf"))
    if arguments.ask:
        for path in files:
            print(_answer(_server(path), Question("asked", None, arguments.ask, ()), most_tokens=STORY_TOKENS).text)
        return
    chosen = sample(questions(), arguments.sample) if arguments.sample else questions()
    found: list[Score] = []
    for path in files:
        given = answers(path, chosen)
        found += scores(path.name, given)
        if arguments.wrong:
            _print_wrong(given)
    if arguments.json:
        print(json.dumps([asdict(score) | {"share": score.share} for score in found], indent=1))
    else:
        _print_table(found)


def questions(path: Path = EVALUATION_FILE) -> list[Question]:
    entries = json.loads(path.read_text(encoding="utf-8"))
    return [Question(**{**entry, "must": tuple(entry["must"])}) for entry in entries]


def sample(among: Sequence[Question], count: int) -> list[Question]:
    """At most `count` questions of each split, the same ones each time."""
    rng = random.Random(1)
    by_split = [[question for question in among if question.split == split] for split in SPLITS]
    return [question for group in by_split for question in rng.sample(group, min(count, len(group)))]


def answers(path: Path, asked: Iterable[Question]) -> list[Answer]:
    server = _server(path)
    return [_answer(server, question) for question in asked]


def scores(file: str, given: Sequence[Answer]) -> list[Score]:
    return [
        Score(
            file=file,
            split=split,
            asked=len(of_split),
            right=sum(answer.right for answer in of_split),
            stopped=sum(answer.finish_reason == "stop" for answer in of_split),
        )
        for split in SPLITS
        if (of_split := [answer for answer in given if answer.asked.split == split])
    ]


def _server(path: Path) -> Any:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx = 2048
    parameters.cpuparams.n_threads = 1  # faster than two for a model this small, and steady when others use the machine
    parameters.verbosity = 0
    return xllamacpp.Server(parameters)


def _answer(server: Any, question: Question, most_tokens: int = MOST_TOKENS) -> Answer:
    reply = server.handle_chat_completions(
        {
            "messages": [{"role": "user", "content": question.question}],
            "temperature": 0,
            "max_tokens": most_tokens,
            "cache_prompt": False,
        }
    )
    choice = reply["choices"][0]
    return Answer(question, choice["message"]["content"] or "", choice["finish_reason"])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--sample", type=int, help="ask only so many questions of each split, the same each time")
    parser.add_argument("--ask", metavar="QUESTION", help="print each file's answer to this instead")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--wrong", action="store_true", help="also print each wrong answer on standard error")
    return parser.parse_args()


def _print_table(found: Sequence[Score]) -> None:
    print(f"{'file':<18}{'split':<12}{'asked':>6}{'right':>7}{'share':>9}{'stopped':>9}")
    for score in found:
        print(f"{score.file:<18}{score.split:<12}{score.asked:>6}{score.right:>7}{score.share:>9.1%}{score.stopped:>9}")


def _print_wrong(given: Sequence[Answer]) -> None:
    for answer in given:
        if not answer.right:
            asked = answer.asked
            print(f"{asked.split} {asked.topic}: {asked.question}\n    {answer.text}", file=sys.stderr)


if __name__ == "__main__":
    main()
