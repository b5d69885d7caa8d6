"""Whether "fits" and "no" were right: rows that ran where the plan said no, rows that ran out where it said it fits."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from benchmarks.planner.cases import Case
from servolt.plan import Plan

# Rows of this fork leave out which tensors were kept on the host, without which nothing of theirs fits.
WITHOUT_PLACEMENT = "ik_llamacpp"

__all__ = ["Verdicts", "verdicts_of"]


class Verdicts(NamedTuple):
    """Of cases whose hardware is named: `said` counts the verdicts on those that ran."""

    ran: int
    said: dict[str, int]
    false_no: tuple[str, ...]
    ran_out: int
    false_fits: tuple[str, ...]

    @property
    def false_no_share(self) -> float | None:
        return len(self.false_no) / self.ran if self.ran else None

    def plain(self) -> dict[str, Any]:
        return self._asdict() | {"false_no_share": self.false_no_share}


def verdicts_of(cases: Iterable[Case], plans: Mapping[str, Plan]) -> Verdicts:
    known = [case for case in cases if case.id in plans and case.deployment.get("hardware") and not case.trap]
    known = [case for case in known if case.deployment["engine"] != WITHOUT_PLACEMENT]
    ran = [case for case in known if "oom" not in case.status]
    out = [case for case in known if "oom" in case.status]
    verdicts = {case.id: plans[case.id].verdict for case in known}
    return Verdicts(
        len(ran),
        dict(Counter(verdicts[case.id] for case in ran)),
        tuple(case.id for case in ran if verdicts[case.id] == "no"),
        len(out),
        tuple(case.id for case in out if verdicts[case.id] == "fits"),
    )
