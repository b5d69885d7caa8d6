"""Does the search choose what was measured to be best: `python -m benchmarks.search --cases DIR [--models DIR]`.

Runs of one model on one kind of device with the same lengths are a frontier: engines, formats, numbers of devices, ways
to divide the model, and loads. The search is asked which configuration is best, and its regret is what that one was
measured to give less than the best one. Beside it stand those who would do without a planner, and those who know the
truth but for an error of each configuration's times: what such an error lets anyone reach.

A bound on the time per token is asked at four quantiles of what was measured. A configuration whose runs end below it
is no answer, since what it gives at the bound was not measured; one that was never measured to keep it breaks it.
Configurations whose repeats contradict each other are left out, and versions of an engine count as one.

The time of a search over 10,000 configurations is printed beside it, as processor seconds of one core.
"""

import argparse
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.search.choosing import MEASUREMENTS, Chosen, by_devices, by_noise, by_search
from benchmarks.search.frontiers import Configuration, frontiers_of
from benchmarks.search.questions import QUESTIONS, Question, questions_of
from servolt.catalogue import accelerators, find_model_entry, prices
from servolt.deployment import Deployment
from servolt.plan.cost import Economy
from servolt.plan.search import search
from servolt.plan.search_space import Space
from servolt.workload import Workload
from tools.planner.cases import read_cases

GOAL = 0.05
NOISES = (0.05, 0.1, 0.15)
REPEATS = 8  # of a choice by noise
LINE = "{:<44} {:>9} {:>7} {:>7} {:>8} {:>8} {:>8}"
Regrets = Sequence[tuple[tuple[str, str], float | None]]  # with the model and the device


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, required=True, help="folder of reference cases")
    parser.add_argument("--models", type=Path, help="folder of config files; default: models inside the cases")
    asked = parser.parse_args()
    frontiers = list(frontiers_of(read_cases(asked.cases, asked.models or asked.cases / "models")))
    groups = {one.group for one in frontiers}
    runs = sum(len(one.runs) for one in frontiers)
    print(f"{len(frontiers)} frontiers of {len(groups)} models on devices, {runs} runs")
    for kind, words in QUESTIONS.items():
        questions = [one for frontier in frontiers for one in questions_of(frontier) if one.kind == kind]
        if questions:
            measurements = MEASUREMENTS if kind == "bound" else 0
            answers = [(one, by_search(one, measurements)) for one in questions]
            _print(f"{kind}: {words}", answers, measurements)
    number, seconds = timed()
    print(f"\n{number:,} configurations in {seconds:.1f} s: {10_000 / number * seconds:.1f} s for 10,000")


def _print(title: str, answers: Sequence[tuple[Question, Chosen]], most: int) -> None:
    print(f"\n{title}")
    print(LINE.format("", "questions", "in 5 %", "broken", "by group", "median", "P90"))
    questions = [question for question, _ in answers]
    for measurements in range(most + 1):
        name = f"the search, after {measurements} of its measurements" if measurements else "the search"
        _line(name, [(one.frontier.group, one.regret(chosen.after(measurements))) for one, chosen in answers])
    _line("fewest devices (latency: most), fewest bits", _chosen(questions, by_devices))
    _line("any configuration", [(one.frontier.group, one.regret(place)) for one in questions for place in _all(one)])
    for noise in NOISES:
        source = random.Random(1)
        found = _chosen(questions * REPEATS, lambda one, noise=noise, source=source: by_noise(one, noise, source))  # type: ignore[misc]
        _line(f"who knows the truth but for {noise:.0%}", found)
    _print_faults(answers)
    _print_groups(answers)


def _all(question: Question) -> range:
    return range(len(question.worth))


def _chosen(questions: Sequence[Question], choose: Callable[[Question], int]) -> Regrets:
    return [(one.frontier.group, one.regret(choose(one))) for one in questions]


def _line(name: str, regrets: Regrets) -> None:
    """`by group` is the mean over models on devices of their share: else those with many lengths would rule."""
    found = [one for _, one in regrets]
    known = sorted(one for one in found if one is not None)
    groups: dict[tuple[str, str], list[float | None]] = defaultdict(list)
    for group, one in regrets:
        groups[group].append(one)
    by_group = sum(_share(one) for one in groups.values()) / len(groups)
    broken = sum(one is None for one in found) / len(found)
    middle, high = (f"{known[len(known) * tenths // 10]:.1%}" if known else "-" for tenths in (5, 9))
    print(LINE.format(name, len(found), f"{_share(found):.0%}", f"{broken:.0%}", f"{by_group:.0%}", middle, high))


def _share(regrets: Sequence[float | None]) -> float:
    return sum(one is not None and one <= GOAL for one in regrets) / len(regrets)


def _print_faults(answers: Sequence[tuple[Question, Chosen]]) -> None:
    """What kind of wrong choice is made: what the chosen one has, and what the best one has in its place."""
    kinds: Counter[str] = Counter()
    pairs: Counter[str] = Counter()
    wrong = 0
    for question, chosen in answers:
        place = chosen.after(0)
        regret = question.regret(place)
        if place is None or (regret is not None and regret <= GOAL):
            continue
        wrong += 1
        differing = _differences(question.configurations[place], question.configurations[question.best])
        kinds.update([" and ".join(differing) or "its own bound"])
        pairs.update(f"{name} {text}" for name, text in differing.items() if name != "layout")
    if wrong:
        print(f"  wrong {wrong}: " + ", ".join(f"{name} {number}" for name, number in kinds.most_common()))
        print("  chosen for the best: " + ", ".join(f"{name} ({number})" for name, number in pairs.most_common(12)))


def _differences(one: Configuration, best: Configuration) -> Mapping[str, str]:
    fields = ("engine", "precision", "devices")
    found = {
        name: f"{getattr(one, name) or 'own'} for {getattr(best, name) or 'own'}"
        for name in fields
        if getattr(one, name) != getattr(best, name)
    }
    if "devices" not in found and one.layout != best.layout:
        found["layout"] = "another"
    return found


def _print_groups(answers: Sequence[tuple[Question, Chosen]]) -> None:
    groups: dict[tuple[str, str], list[float | None]] = defaultdict(list)
    for question, chosen in answers:
        groups[question.frontier.group].append(question.regret(chosen.after(0)))
    for (family, accelerator), found in sorted(groups.items(), key=lambda one: _share(one[1])):
        broken = sum(one is None for one in found) / len(found)
        print(
            LINE.format(f"  {family} on {accelerator}", len(found), f"{_share(found):.0%}", f"{broken:.0%}", "", "", "")
        )


def timed() -> tuple[int, float]:
    """Every accelerator with a price, both ways of the cache, and three numbers of requests."""
    machines = [one for one in accelerators() if prices(one.name)]
    economies: Mapping[str, Economy] = {
        one.name: Economy(usd_per_device_hour=prices(one.name)[0].usd_per_accelerator_hour, source="catalogue")
        for one in machines
    }
    model = find_model_entry("Qwen3 32B").model()
    asked = Deployment(model="Qwen3 32B", max_model_len=8192)
    space = Space(asked, model, machines, max_num_seqs=(None, 64, 256))
    start = time.process_time()
    found = search(space, Workload(input_len=1024, output_len=512, concurrency=(32,)), None, economies)
    return found.considered.configurations, time.process_time() - start


if __name__ == "__main__":
    main()
