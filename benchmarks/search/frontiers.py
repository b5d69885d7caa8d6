"""Measured configurations of one model on one kind of device: what a search has to choose among."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from benchmarks.planner.traps import impossible
from servolt.plan.search_space import Candidate, Layout
from tools.planner.cases import Case

__all__ = ["Configuration", "Frontier", "Run", "at_bound", "frontiers_of"]

LEAST_RUNS = 8  # of a frontier
# Flags that say what was put right in a row. Any other says that it is not what it seems.
CORRECTED = frozenset({"", "precision_from_gemm_mode", "gpus_corrected:tp_ep_squared", "gpus_corrected:tp_equals_dp"})
# The same configuration at the same load, measured twice: repeats lie within 5 % in nine of ten cases. What differs by
# more than this factor was not the same (unlabelled speculation), and nobody can say which of both it is.
CONFLICT = 1.25
SPARE_TOKENS = 256  # of the context, beside what is asked for: benchmarks set it so


class Run(NamedTuple):
    concurrency: int
    tpot: float
    e2el: float
    throughput: float  # output tokens/s of one device


Key = tuple[str, str, int, Layout, str | None]


class Configuration(NamedTuple):
    """Curves are those of the engine's versions: who takes it takes the best of them."""

    engine: str
    precision: str
    devices: int
    layout: Layout
    kv_cache_dtype: str | None
    curves: Mapping[str, Sequence[Run]]  # by version
    candidates: Sequence[Candidate]  # one for each version

    @property
    def runs(self) -> list[Run]:
        return [run for curve in self.curves.values() for run in curve]

    @property
    def label(self) -> str:
        sizes = "".join(f" {name}{size}" for name, size in zip(("tp", "pp", "dp"), self.layout[:3], strict=True))
        return f"{self.engine} {self.precision} {self.devices}x{sizes}{' ep' if self.layout.ep else ''}"


class Frontier(NamedTuple):
    source: str
    family: str
    accelerator: str
    input_len: int
    output_len: int
    configurations: Sequence[Configuration]

    @property
    def group(self) -> tuple[str, str]:
        return self.family, self.accelerator

    @property
    def runs(self) -> list[Run]:
        return [run for one in self.configurations for run in one.runs]


def frontiers_of(cases: Iterable[Case]) -> Iterator[Frontier]:
    """Those with two configurations and more. Disaggregated, multi-node and speculating runs are none of them."""
    grouped: dict[tuple[str, str, str, int, int], list[Case]] = defaultdict(list)
    for case in cases:
        if case.kind in ("closed", "steady") and case.flags in CORRECTED and _can_be(case):
            name = (case.source, case.family, case.accelerator.name, round(case.input_len), round(case.output_len))
            grouped[name].append(case)
    for name, found in sorted(grouped.items()):
        configurations = _configurations(found)
        if len(found) >= LEAST_RUNS and len(configurations) > 1:
            yield Frontier(*name, configurations)


def at_bound(bound: float, curve: Sequence[tuple[float, float]]) -> float:
    """Throughput at this time per token, between two loads in a straight line; 0 where even the least takes longer."""
    points = sorted(curve)
    if points[0][0] > bound:
        return 0.0
    best = max(throughput for tpot, throughput in points if tpot <= bound)
    for (tpot, throughput), (later, more) in pairwise(points):
        if tpot <= bound < later:
            best = max(best, throughput + (more - throughput) * (bound - tpot) / (later - tpot))
    return best


def _configurations(cases: Sequence[Case]) -> list[Configuration]:
    found: dict[Key, dict[str, list[Case]]] = defaultdict(lambda: defaultdict(list))
    for case in cases:
        key = (case.deployment.engine, case.precision, case.devices, _layout(case), case.deployment.kv_cache_dtype)
        found[key][case.version].append(case)
    configurations = []
    for key, versions in sorted(found.items(), key=lambda one: str(one[0])):
        kept = {version: one for version, one in versions.items() if not _conflicts(one)}
        if kept:
            curves = {version: [_run(case) for case in one] for version, one in kept.items()}
            candidates = [_candidate(one[0]) for one in kept.values()]
            configurations.append(Configuration(*key, curves, candidates))
    return configurations


def _can_be(case: Case) -> bool:
    """Not one that needs more memory or more arithmetic than its devices have."""
    if not case.tpot or not case.ttft or case.model.weights_bytes > case.devices * case.accelerator.memory_bytes:
        return False
    load = {"concurrency": case.concurrency, "input_tokens": case.input_len, "output_tokens": case.output_len}
    seen = {"ttft": case.ttft, "tpot": case.tpot}
    return impossible(case.deployment.model_dump(), load, seen, case.model, case.accelerator) is None


def _conflicts(cases: Sequence[Case]) -> bool:
    times: dict[float, list[float]] = defaultdict(list)
    for case in cases:
        times[case.concurrency].append(case.tpot or 0.0)
    return any(max(one) > CONFLICT * min(one) for one in times.values())


def _run(case: Case) -> Run:
    """Little's law gives the rate."""
    assert case.tpot
    assert case.ttft
    e2el = case.ttft + (case.output_len - 1) * case.tpot
    return Run(round(case.concurrency), case.tpot, e2el, case.concurrency * case.output_len / e2el / case.devices)


def _layout(case: Case) -> Layout:
    deployment = case.deployment
    return Layout(
        deployment.tensor_parallel_size or 1,
        deployment.pipeline_parallel_size or 1,
        deployment.data_parallel_size or 1,
        bool(deployment.expert_parallel_size),
    )


def _candidate(case: Case) -> Candidate:
    context = round(case.input_len + case.output_len) + SPARE_TOKENS
    changed = {"quantization": case.model.quantization, "max_model_len": context}
    accelerator = case.accelerator.model_copy(update={"count": case.devices})
    return Candidate(case.deployment.model_copy(update=changed), case.model, accelerator, _layout(case))
