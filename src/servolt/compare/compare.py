"""Measurements of one workload, each held against the first: pure, from the measurements' own figures."""

import math
from collections.abc import Sequence

from servolt import __version__
from servolt.compare.comparison import Change, Comparison, Verdict
from servolt.compare.difference import differences
from servolt.compare.prediction import predicted_beside_measured
from servolt.document import Problem
from servolt.errors import NotComparableError
from servolt.measurement import Measurement, Window
from servolt.metrics import METRICS, Estimate, Metrics
from servolt.statistics import PairedComparison, holm, paired_comparison
from servolt.workload import LoadPoint

__all__ = ["COMPARED", "compare"]

# The family: what a reader decides by. Each further metric makes all of them harder to decide, so there are few.
COMPARED = ("output_throughput", "ttft", "tpot", "cpu_seconds_per_output_token", "energy_per_output_token")
ALPHA = 0.05  # the field's habit


def compare(measurements: Sequence[Measurement], *, margin: float = 0.02) -> Comparison:
    """Each measurement against the first, metric by metric, over blocks taken side by side.

    Raises NotComparableError where the workloads differ or a measurement is not valid.
    """
    _refuse_what_must_not_be_compared(measurements)
    baseline, others = measurements[0], measurements[1:]
    found = [row for other in others for row in _changes(baseline, other)]
    changes = _judged(found, margin)
    differing, same = differences(measurements)
    return Comparison(
        tool_version=__version__,
        measurements=tuple(one.id for one in measurements),
        labels=tuple(one.deployment.label for one in measurements),
        workload_digest=baseline.workload_digest,
        interleaved=_interleaved(measurements),
        margin=margin,
        alpha=ALPHA,
        differs=differing,
        same=same,
        changes=changes,
        predictions=tuple(row for one in measurements for row in predicted_beside_measured(one)),
        warnings=tuple(
            _warnings(measurements, len([one for one in differing if one.field in _settings(measurements)]))
        ),
    )


def _refuse_what_must_not_be_compared(measurements: Sequence[Measurement]) -> None:
    if len(measurements) < 2:
        raise NotComparableError("a comparison needs two measurements.", "Name two.")
    first = measurements[0]
    if len({one.id for one in measurements}) < len(measurements):
        raise NotComparableError("one measurement is named twice.", "`servolt list --runs` lists all.")
    for other in measurements[1:]:
        if other.workload_digest != first.workload_digest:
            raise NotComparableError(
                f"{first.id[:8]} and {other.id[:8]} were measured under different workloads: "
                f"{_workload_difference(first, other)}.",
                "Measure both under one workload: servolt measure A B.",
            )
    for one in measurements:
        if one.validity.verdict == "invalid":
            codes = ", ".join(flag.code for flag in one.validity.flags if flag.severity == "error")
            raise NotComparableError(f"{one.id[:8]} is not valid ({codes}).", "`servolt show` says why; measure again.")


def _workload_difference(first: Measurement, other: Measurement) -> str:
    ours, theirs = first.workload.model_dump(), other.workload.model_dump()
    return ", ".join(f"{name} {ours[name]} and {theirs[name]}" for name in ours if ours[name] != theirs[name])


def _interleaved(measurements: Sequence[Measurement]) -> bool:
    first = measurements[0]
    return first.study is not None and all(one.study == first.study for one in measurements)


def _changes(baseline: Measurement, other: Measurement) -> list[tuple[Change, list[float]]]:
    """Each with the log ratios of its blocks, not yet judged."""
    return [
        _change(baseline, other, metric, point)
        for metric in COMPARED
        for point in baseline.workload.points
        if _shown(baseline, metric, point) is not None or _shown(other, metric, point) is not None
    ]


def _change(baseline: Measurement, other: Measurement, metric: str, point: LoadPoint) -> tuple[Change, list[float]]:
    before, after = _shown(baseline, metric, point), _shown(other, metric, point)
    ratios = _log_ratios(baseline, other, metric, point) if _interleaved([baseline, other]) else []
    either = before or after
    change = Change(
        metric=metric,
        statistic=either.statistic if either else None,
        concurrency=point.concurrency,
        request_rate=point.request_rate,
        unit=METRICS[metric].unit,
        other=other.id,
        baseline_value=before.value if before else None,
        baseline_low=before.low if before else None,
        baseline_high=before.high if before else None,
        value=after.value if after else None,
        low=after.low if after else None,
        high=after.high if after else None,
        change=_plain_change(before, after),
        blocks=len(ratios),
        verdict="undecided",
        reason=_why_unpaired(before, after, baseline, other, len(ratios)),
    )
    return change, ratios


def _shown(measurement: Measurement, metric: str, point: LoadPoint) -> Estimate | None:
    return Metrics(items=measurement.results).get(
        metric, concurrency=point.concurrency, request_rate=point.request_rate
    )


def _plain_change(before: Estimate | None, after: Estimate | None) -> float | None:
    if before is None or after is None or not before.value or after.value is None:
        return None
    return after.value / before.value - 1


def _why_unpaired(
    before: Estimate | None, after: Estimate | None, baseline: Measurement, other: Measurement, blocks: int
) -> str:
    for shown in (before, after):
        if shown is None or shown.value is None:
            return (shown.reason if shown else None) or "not measured"
    if not _interleaved([baseline, other]):
        return "not taken side by side: drift of the machine can't be told from a change"
    return f"{blocks} {'block holds' if blocks == 1 else 'blocks hold'} both: at least 2 are needed to say anything"


def _log_ratios(baseline: Measurement, other: Measurement, metric: str, point: LoadPoint) -> list[float]:
    """log(other / baseline) for each block in which both have a value above 0."""
    before, after = _by_block(baseline.windows, metric, point), _by_block(other.windows, metric, point)
    return [math.log(after[block] / before[block]) for block in sorted(before) if block in after]


def _by_block(windows: Sequence[Window], metric: str, point: LoadPoint) -> dict[int, float]:
    return {
        window.block: value
        for window in windows
        if (window.concurrency, window.request_rate) == (point.concurrency, point.request_rate)
        and (value := window.metrics.get(metric)) is not None
        and value > 0
    }


def _judged(found: Sequence[tuple[Change, list[float]]], margin: float) -> tuple[Change, ...]:
    """All changes that have at least two blocks are one family: the more is looked at, the more each has to show."""
    family = sum(len(ratios) >= 2 for _, ratios in found)
    paired = [
        paired_comparison(ratios, margin=margin, alpha=ALPHA, family=family) if len(ratios) >= 2 else None
        for _, ratios in found
    ]
    adjusted = iter(holm([one.p_value for one in paired if one is not None]))
    return tuple(
        change if one is None else _verdict(change, one, next(adjusted), family)
        for (change, _), one in zip(found, paired, strict=True)
    )


def _verdict(change: Change, paired: PairedComparison, p_value: float, family: int) -> Change:
    verdict: Verdict = "undecided"
    if paired.same:
        verdict, reason = "same", "the 90 % interval lies within the margin"
    elif p_value < ALPHA:
        grows = (paired.estimate > 0) == (METRICS[change.metric].better == "higher")
        verdict, reason = "better" if grows else "worse", f"p {_p(p_value)} (Holm over {family})"
    else:
        reason = _why_undecided(paired, p_value, family)
    estimated = {
        "change": math.expm1(paired.estimate),
        "change_low": math.expm1(paired.low),
        "change_high": math.expm1(paired.high),
    }
    judged = {"verdict": verdict, "reason": reason, "p_value": p_value}
    if verdict == "undecided" and paired.blocks_needed is not None:
        judged["blocks_needed"] = paired.blocks + paired.blocks_needed
    return change.model_copy(update={**estimated, **judged})


def _why_undecided(paired: PairedComparison, p_value: float, family: int) -> str:
    """The exact test of few blocks can't get below alpha, whatever they show. The interval is of one change alone and
    takes the blocks for normally distributed, so it may leave 0 out all the same."""
    least = _least_blocks(family)
    if paired.blocks >= least:
        return f"{paired.blocks} blocks don't decide it (p {_p(p_value)}, Holm over {family})"
    among = f" among {family} changes" if family > 1 else ""
    return f"{paired.blocks} blocks can't decide{among}, even where an interval leaves 0 out: it takes at least {least}"


def _least_blocks(family: int) -> int:
    """So many of one sign have a p below alpha / family: the least p of n blocks is 2 / 2**n."""
    blocks = 2
    while family * 2.0 ** (1 - blocks) >= ALPHA:
        blocks += 1
    return blocks


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _settings(measurements: Sequence[Measurement]) -> set[str]:
    return {name for one in measurements for name, value in one.deployment.model_dump().items() if value is not None}


def _warnings(measurements: Sequence[Measurement], changed_settings: int) -> list[Problem]:
    warnings = []
    if not _interleaved(measurements):
        warnings.append(
            Problem(
                code="not_interleaved",
                severity="warning",
                message="These measurements were not taken side by side.",
                remedy="`servolt measure A B` takes them block by block.",
            )
        )
    if changed_settings > 1:
        warnings.append(
            Problem(
                code="several_changes",
                severity="warning",
                message=f"{changed_settings} settings changed at once, so no change can be put down to one of them.",
                remedy="Measure a deployment for each setting alone.",
            )
        )
    degraded = [one.id[:8] for one in measurements if one.validity.verdict == "degraded"]
    if degraded:
        warnings.append(
            Problem(
                code="degraded",
                severity="warning",
                message=f"{' and '.join(degraded)} {'carries' if len(degraded) == 1 else 'carry'} validity flags.",
                remedy="`servolt show ID` prints them with their remedies.",
            )
        )
    return warnings
