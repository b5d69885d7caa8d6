"""Other planners on the same rows: how far off they are, how many they refuse, and how this one does on the rest."""

import hashlib
import json
import subprocess
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from benchmarks.planner.cases import Case
from benchmarks.planner.score import Error, quantile
from servolt.catalogue import find_accelerator
from servolt.errors import ServoltError

__all__ = ["PeerRow", "Peers"]

WORKER = Path(__file__).with_name("peer_worker.py")
# Engines and loads that one of them claims to know.
ENGINES = ("vllm", "sglang", "tensorrt_llm")
KINDS = ("memory", "agg")


class PeerRow(NamedTuple):
    """One figure of one peer. `own_*` are of this planner, on the rows that the peer answered."""

    peer: str
    figure: str
    asked: int
    refused: int
    median: float | None
    p90: float | None
    own_median: float | None
    own_p90: float | None


class Peers:
    """A process of the other interpreter, which works while this one plans."""

    def __init__(self, python: str, cases: Iterable[Case], most: int) -> None:
        """`most` bounds the rows that are asked about speed, evenly drawn: one takes about a second."""
        self._cases = _drawn([case for case in cases if _is_theirs(case)], most)
        self._answers: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - lives until read
        self._process = subprocess.Popen(
            [python, str(WORKER)], stdin=subprocess.PIPE, stdout=self._answers, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdin is not None
        json.dump([_question(case) for case in self._cases], self._process.stdin)
        self._process.stdin.close()

    def rows(self, errors: Iterable[Error]) -> tuple[list[PeerRow], dict[str, dict[str, int]]]:
        """Waits for the answers; `errors` are this planner's own. The second is each peer's refusals by reason."""
        self._process.wait()
        self._answers.seek(0)
        with self._answers:
            answers = [json.loads(line) for line in self._answers]
        own = {(error.case.id, error.figure): error.size for error in errors}
        return _rows(answers, {case.id: case for case in self._cases}, own), _refusals(answers)


def _rows(
    answers: Sequence[Mapping[str, Any]], cases: Mapping[str, Case], own: Mapping[tuple[str, str], float]
) -> list[PeerRow]:
    by: dict[tuple[str, str], list[tuple[str, float | None]]] = defaultdict(list)
    for answer in answers:
        for figure in answer.get("wanted", ()):
            value = answer.get("figures", {}).get(figure)
            by[answer["peer"], figure].append((answer["id"], value))
    found: list[PeerRow] = []
    for (peer, figure), some in by.items():
        sizes = {name: abs(value / cases[name].seen[figure] - 1) for name, value in some if value is not None}
        mine = [own[name, figure] for name in sizes if (name, figure) in own]
        theirs = list(sizes.values())
        ends = (quantile(theirs, 0.5), quantile(theirs, 0.9), quantile(mine, 0.5), quantile(mine, 0.9))
        found.append(PeerRow(peer, figure, len(some), len(some) - len(sizes), *ends))
    return sorted(found)


def _refusals(answers: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    by: dict[str, Counter[str]] = defaultdict(Counter)
    for answer in answers:
        if reason := answer.get("refused"):
            by[answer["peer"]][reason[:100]] += 1
        elif absent := answer.get("absent"):
            by[answer["peer"]][f"not installed: {absent}"] += 1
    return {peer: dict(reasons.most_common(8)) for peer, reasons in by.items()}


def _is_theirs(case: Case) -> bool:
    return case.kind in KINDS and case.deployment["engine"] in ENGINES and not case.trap


def _drawn(cases: Sequence[Case], most: int) -> list[Case]:
    """All about memory; of speed the first by a hash of their ids, which favours none."""
    speed = sorted((case for case in cases if case.kind != "memory"), key=lambda case: _place(case.id))
    return [case for case in cases if case.kind == "memory"] + speed[:most]


def _place(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _question(case: Case) -> dict[str, Any]:
    asked = case.deployment
    hardware = asked.get("hardware") or {}
    return {
        "id": case.id,
        "label": case.label.split(" (")[0],
        "stem": case.config.stem.replace("__", "/") if case.config else None,
        "config": str(case.config) if case.config else None,
        "engine": asked["engine"],
        "accelerator": _catalogue_name(hardware.get("accelerator")),
        "visible_bytes": hardware.get("memory_bytes"),
        "share": asked.get("gpu_memory_utilization") or asked.get("mem_fraction_static"),
        "tokens": asked.get("max_num_batched_tokens"),
        "requests": asked.get("max_num_seqs"),
        "tp": asked.get("tensor_parallel_size") or 1,
        "pp": asked.get("pipeline_parallel_size") or 1,
        "dp": asked.get("data_parallel_size") or 1,
        "ep": asked.get("expert_parallel_size") or 1,
        "quantization": asked.get("quantization"),
        "dtype": asked.get("dtype"),
        "kv_cache_dtype": asked.get("kv_cache_dtype"),
        "workload": case.workload,
        "seen": sorted(case.seen),
    }


def _catalogue_name(name: str | None) -> str | None:
    try:
        return find_accelerator(name).name if name else None
    except ServoltError:
        return None
