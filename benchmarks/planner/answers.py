"""The planner's answer to each case, the processor time it took, and why there was none."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.planner.cases import Case
from benchmarks.planner.score import Error, errors_of
from servolt.errors import ServoltError
from servolt.plan import Plan

__all__ = ["Answers", "Ask"]

# deployment, workload, measured=points -> Plan: the library's `plan`.
Ask = Callable[..., Plan]
# A planner that stumbles over a case has no answer to it. This must not hide the answers to all others.
STUMBLES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class Answers:
    """Asks, and keeps what one run adds up: refusals by reason, seconds by plan."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self.seconds: list[float] = []  # of a processor: others on the machine count for nothing
        self.refusals: Counter[str] = Counter()
        self.refused: dict[str, str] = {}
        self.plans: dict[str, Plan] = {}

    def plan(self, case: Case, measured: Sequence[Mapping[str, Any]] = ()) -> Plan | None:
        began = time.process_time()
        try:
            made = self._ask(case.deployment, case.workload, measured=measured)
        except ServoltError as error:
            self._refuse(case, f"{error.code}: {error}")
            return None
        except STUMBLES as error:
            self._refuse(case, f"{type(error).__name__}: {error}")
            return None
        self.seconds.append(time.process_time() - began)
        if not measured:
            self.plans[case.id] = made
        return made

    def errors(self, cases: Iterable[Case]) -> list[Error]:
        return [error for case in cases for error in errors_of(case, self.plan(case))]

    def errors_after(self, cases: Iterable[Case], count: int) -> list[Error]:
        """Each deployment's lowest load is handed over, or its lowest and highest; the others are scored."""
        by: dict[str, list[Case]] = defaultdict(list)
        for case in cases:
            if case.key and "tpot" in case.seen and "concurrency" in (case.workload or {}):
                by[case.key].append(case)
        found: list[Error] = []
        for some in by.values():
            ordered = sorted(some, key=_streams)
            if len({_streams(case) for case in ordered}) <= count:
                continue
            known = [ordered[0]] if count == 1 else [ordered[0], ordered[-1]]
            points = [_point(case, name) for case in known for name in ("tpot", "ttft") if name in case.seen]
            for case in ordered:
                if all(case is not one for one in known):
                    found += errors_of(case, self.plan(case, points))
        return found

    def _refuse(self, case: Case, reason: str) -> None:
        self.refused[case.id] = reason
        self.refusals[f"{reason[:120]}"] += 1


def _streams(case: Case) -> int:
    return int((case.workload or {})["concurrency"])


def _point(case: Case, name: str) -> dict[str, Any]:
    return {"metric": name, "workload": case.workload, "value": case.seen[name]}
