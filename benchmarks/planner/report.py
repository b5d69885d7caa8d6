"""What one run found: printed as tables, or as JSON."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.planner.goals import Goal
from benchmarks.planner.peers import PeerRow
from benchmarks.planner.score import Error, Row
from benchmarks.planner.verdicts import Verdicts

__all__ = ["Report"]

REASONS = 12  # of refusals are printed
IDS = 8


@dataclass
class Report:
    tables: dict[str, list[Row]] = field(default_factory=dict)
    verdicts: dict[str, Verdicts] = field(default_factory=dict)
    peers: list[PeerRow] = field(default_factory=list)
    peer_refusals: dict[str, dict[str, int]] = field(default_factory=dict)
    traps: dict[str, int] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    ranks: dict[str, float | None] = field(default_factory=dict)
    goals: list[Goal] = field(default_factory=list)
    errors: list[Error] = field(default_factory=list)
    seconds: float = 0.0
    plans: int = 0

    def show(self, *, worst: int = 0) -> None:
        for title, lines in self.tables.items():
            _table(title, lines)
        if worst:
            _worst(self.errors, worst)
        for name, value in self.ranks.items():
            print(f"{name}: {_number(value, '.3f')}")
        self._verdicts()
        self._peers()
        if self.traps:
            print("\nrows that count for no score: " + ", ".join(f"{name} {n}" for name, n in self.traps.items()))
        for reason, count in list(self.refusals.items())[:REASONS]:
            print(f"refused {count}: {reason}")
        each = self.seconds / self.plans * 1e3 if self.plans else 0.0
        print(f"\n{self.plans} plans in {self.seconds:.1f} s of a processor: {each:.1f} ms each")
        _goals(self.goals)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(self.plain(), indent=1) + "\n", encoding="utf-8")

    def plain(self) -> dict[str, Any]:
        return {
            "schema": "servolt.benchmark.planner/1",
            "tables": {title: [line._asdict() for line in lines] for title, lines in self.tables.items()},
            "ranks": self.ranks,
            "verdicts": {name: one.plain() for name, one in self.verdicts.items()},
            "peers": [row._asdict() for row in self.peers],
            "peer_refusals": self.peer_refusals,
            "traps": self.traps,
            "refusals": self.refusals,
            "plans": self.plans,
            "seconds": self.seconds,
            "goals": [goal._asdict() for goal in self.goals],
            "errors": [_plain(error) for error in self.errors],
        }

    def _verdicts(self) -> None:
        for name, one in self.verdicts.items():
            said = ", ".join(f"{verdict} {count}" for verdict, count in sorted(one.said.items()))
            print(f"\nverdicts on {name}: {one.ran} ran ({said}); {one.ran_out} ran out of memory")
            _ids("false no", one.false_no)
            _ids("false fits", one.false_fits)

    def _peers(self) -> None:
        if not (self.peers or self.peer_refusals):
            return
        print(f"\n{'peer':18}{'figure':22}{'asked':>7}{'refused':>9}{'median':>9}{'p90':>9}{'ours':>9}{'p90':>9}")
        for row in self.peers:
            shares = "".join(f"{_number(one, '.1%'):>9}" for one in row[4:])
            print(f"{row.peer:18}{row.figure:22}{row.asked:>7}{row.refused:>9}{shares}")
        for peer, reasons in self.peer_refusals.items():
            for reason, count in reasons.items():
                print(f"{peer} refused {count}: {reason}")


def _table(title: str, lines: Sequence[Row]) -> None:
    if not lines:
        return
    print(f"\n{title}")
    print(f"{'figure':26}{'class':18}{'cases':>6}{'none':>6}{'median':>9}{'mean':>9}{'p90':>9}{'bias':>9}{'inside':>8}")
    for line in lines:
        shares = "".join(f"{_number(one, '.1%'):>9}" for one in (line.median, line.mean, line.p90, line.bias))
        inside = _number(line.inside, ".0%")
        print(f"{line.figure:26}{line.name[:17]:18}{line.cases:>6}{line.refused:>6}{shares}{inside:>8}")


def _worst(errors: Iterable[Error], most: int) -> None:
    by: dict[str, list[Error]] = defaultdict(list)
    for error in errors:
        if not error.case.trap:
            by[f"{error.case.kind}: {error.figure}"].append(error)
    for name, some in sorted(by.items()):
        print(f"\nworst of {name}")
        for error in sorted(some, key=lambda one: -one.size)[:most]:
            value = _number(error.value, ".6g")
            print(f"  {error.case.id[:60]:62}seen {error.seen:<12.6g}planned {value:<12}{error.case.group}")


def _goals(goals: Iterable[Goal]) -> None:
    marks: Mapping[bool | None, str] = {True: "reached", False: "MISSED", None: "-"}
    print(f"\n{'goal':28}{'wanted':34}{'cases':>7}  {'found':34}")
    for goal in goals:
        print(f"{goal.quantity:28}{goal.goal[:33]:34}{goal.cases:>7}  {goal.found[:33]:34}{marks[goal.reached]}")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _ids(name: str, ids: Sequence[str]) -> None:
    if ids:
        more = f" and {len(ids) - IDS} more" if len(ids) > IDS else ""
        print(f"  {name} {len(ids)}: {', '.join(ids[:IDS])}{more}")


def _plain(error: Error) -> dict[str, Any]:
    case = error.case
    return {
        "id": case.id,
        "kind": case.kind,
        "figure": error.figure,
        "seen": error.seen,
        "value": error.value,
        "low": error.low,
        "high": error.high,
        "group": case.group,
        "classes": case.classes,
        "trap": case.trap,
    }
