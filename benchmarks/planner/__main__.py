"""How far plans are from what was seen: `python -m benchmarks.planner --cases DIR`.

DIR holds memory_cases*.csv, perf_cases*.csv, crowd_cases*.csv and models/*.json; each part may be absent. The tables
show the error by class, worst first. `after 1` and `after 2` hand the planner one or two measured points of the same
deployment (its lowest load, and its highest) and score the others. The planner's constants were fitted on published
measurements: cases that are among them flatter it, and only others show its error.
"""

import argparse
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.planner.after_log import errors_after_log
from benchmarks.planner.answers import Answers
from benchmarks.planner.cases import Case, crowd_cases, memory_cases, speed_cases
from benchmarks.planner.goals import goals_of
from benchmarks.planner.names import Configs, total_errors
from benchmarks.planner.peers import Peers
from benchmarks.planner.report import Report
from benchmarks.planner.score import Error, rank_correlation, rows
from benchmarks.planner.verdicts import verdicts_of
from servolt.library import plan

PEER_ROWS = 200


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, required=True, help="folder with the cases")
    parser.add_argument("--models", type=Path, action="append", default=[], help="further folders with configs")
    parser.add_argument("--classes", action="store_true", help="a line for each class, not for each figure alone")
    parser.add_argument("--peers", metavar="PYTHON", help="also ask the peers that this interpreter has installed")
    parser.add_argument(
        "--peer-rows", type=int, default=PEER_ROWS, help="rows that peers are asked about speed, a second each"
    )
    parser.add_argument("--worst", type=int, default=0, help="cases of each figure to name, worst first")
    parser.add_argument("--json", type=Path, help="also write all of it to this file")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        # What this machine has learnt must not correct the plans, and none of them may wait for the network.
        os.environ |= {"SERVOLT_HOME": home, "HF_HUB_OFFLINE": "1"}
        return _main(parser, asked)


def _main(parser: argparse.ArgumentParser, asked: argparse.Namespace) -> int:
    if not asked.cases.is_dir():
        parser.error(f"{asked.cases} is no folder")
    configs = Configs(*asked.models, asked.cases / "models")
    memory = list(memory_cases(asked.cases, configs))
    speed = list(speed_cases(asked.cases, configs))
    crowd = list(crowd_cases(asked.cases, configs))
    if not memory and not speed and not crowd:
        parser.error(f"{asked.cases} holds no memory_cases*.csv, perf_cases*.csv or crowd_cases*.csv")
    peers = Peers(asked.peers, [*memory, *speed], asked.peer_rows) if asked.peers else None
    report = run(memory, speed, crowd, total_errors(asked.cases / "models"), peers=peers, classes=asked.classes)
    report.show(worst=asked.worst)
    if asked.json:
        report.write(asked.json)
    return 0


def run(
    memory: Sequence[Case],
    speed: Sequence[Case],
    crowd: Sequence[Case],
    totals: Sequence[float],
    *,
    peers: Peers | None,
    classes: bool,
) -> Report:
    answers, report = Answers(plan), Report()
    of_memory, of_speed, of_crowd = (answers.errors(cases) for cases in (memory, speed, crowd))
    report.plans, report.seconds = len(answers.seconds), sum(answers.seconds)
    seconds = list(answers.seconds)
    clean = [case for case in speed if not case.trap]
    logged = errors_after_log([case for case in memory if not case.trap], answers.plans)
    after = [answers.errors_after(clean, count) for count in (1, 2)]
    report.tables = {
        "memory, cold": rows(_clean(of_memory), all_classes=classes),
        "memory, after a start-up log": rows(logged, all_classes=False),
    }
    for kind in dict.fromkeys(case.kind for case in speed):
        some = [error for error in of_speed if error.case.kind == kind]
        scored = _clean(some)
        words = "" if scored else " (counts for no score)"
        report.tables[f"speed, {kind}{words}"] = rows(scored or some, all_classes=classes and bool(scored))
    for count, errors in enumerate(after, start=1):
        report.tables[f"speed, agg, after {count} measured"] = rows(
            [error for error in errors if error.case.kind == "agg"], all_classes=False
        )
    report.tables["crowd (unverified: for robustness and ranking)"] = rows(_clean(of_crowd), all_classes=classes)
    report.ranks = {"rank correlation of time per token, crowd": _ranking(_clean(of_crowd))}
    named = (("memory cases", memory), ("speed cases", clean))
    report.verdicts = {name: verdicts_of(cases, answers.plans) for name, cases in named}
    report.traps = dict(Counter(case.trap for case in (*memory, *speed, *crowd) if case.trap).most_common())
    report.refusals = dict(answers.refusals.most_common())
    report.goals = goals_of(
        of_memory, logged, of_speed, after, of_crowd, totals, list(report.verdicts.values())[:1], seconds
    )
    report.errors = [*of_memory, *of_speed, *of_crowd]
    if peers:
        report.peers, report.peer_refusals = peers.rows([*of_memory, *of_speed])
    return report


def _clean(errors: Sequence[Error]) -> list[Error]:
    return [error for error in errors if not error.case.trap]


def _ranking(errors: Sequence[Error]) -> float | None:
    pairs = [(error.value, error.seen) for error in errors if error.figure == "tpot" and error.value is not None]
    return rank_correlation(pairs)


if __name__ == "__main__":
    sys.exit(main())
