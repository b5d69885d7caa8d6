"""All windows at one load point together: each metric's value with its interval, its method and its n."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servolt.measure.energy import gross_joules
from servolt.measure.figures import rounded, verdicts, window_metrics
from servolt.measure.run import RawRun
from servolt.measure.samples import WindowSamples
from servolt.metrics import METRICS, Basis, Estimate
from servolt.statistics import (
    Interval,
    block_bootstrap,
    clopper_pearson,
    least_n_for_percentile,
    mean_over_batches,
    mean_over_runs,
    percentile_interval,
    percentile_over_windows,
    ratio_of_sums,
)
from servolt.workload import LoadPoint

__all__ = ["estimates_at"]

WINDOWS_FOR_RUNS = 3  # from so many windows on, the spread between them makes the interval; t at 2 is ±12.7
PERCENTILES = (50, 90, 99)
BINS = 100  # of a window's token counts, where one window alone must give an interval
SECTIONS = 20  # of one window's gaps, each with a percentile of its own

Series = Callable[[WindowSamples], NDArray[np.float64]]
_LATENCIES: Mapping[str, Series] = {
    "ttft": lambda one: one.ttft_s,
    "ttft_service": lambda one: one.ttft_service_s,
    "tpot": lambda one: one.tpot_s,
    "e2el": lambda one: one.e2el_s,
}
_RATES = ("request_throughput", "output_throughput", "total_throughput", "prefill_throughput", "decode_throughput")
_ENERGIES = ("energy", "energy_net_empty", "energy_net_loaded")


def estimates_at(point: LoadPoint, windows: Sequence[WindowSamples], run: RawRun) -> list[Estimate]:
    """In the order in which people read them. `windows` all stand at `point`."""
    figures = [window_metrics(one, run) for one in windows]
    found: list[Estimate] = []
    for metric, series in _LATENCIES.items():
        found += _latency(metric, point, windows, figures, series, run)
    found += _gaps(point, windows, figures)
    found += [_rate(metric, point, windows, figures) for metric in _RATES]
    found += [_memory(point, windows), _cpu(point, windows), *_energy(point, windows, figures, run)]
    found += [_failed_share(point, windows), *_goodput(point, windows, figures, run)]
    return found


def _estimate(metric: str, point: LoadPoint, found: Interval | str, **more: Any) -> Estimate:
    """A string is the reason why there is no value."""
    basis: Basis = more.pop("basis", "measured")
    fields: dict[str, Any] = {"metric": metric, "unit": METRICS[metric].unit, "basis": basis, **point._asdict(), **more}
    if isinstance(found, str):
        return Estimate(value=None, reason=found, **fields)
    bounded = found.low is not None and found.high is not None
    return Estimate(
        value=rounded(found.value),
        low=None if found.low is None else rounded(found.low),
        high=None if found.high is None else rounded(found.high),
        level=found.level if bounded else None,
        method=found.method if bounded else None,
        n=found.n,
        **fields,
    )


def _plain(value: float, n: int) -> Interval:
    """A value without an interval."""
    return Interval(value, None, None, 0.95, "none", n)


def _over_windows(metric: str, figures: Sequence[Mapping[str, float]]) -> Interval | None:
    """From the windows' own values, where there are enough windows."""
    values = [figure[metric] for figure in figures if metric in figure]
    return mean_over_runs(values) if len(values) >= WINDOWS_FOR_RUNS else None


def _latency(
    metric: str,
    point: LoadPoint,
    windows: Sequence[WindowSamples],
    figures: Sequence[Mapping[str, float]],
    series: Series,
    run: RawRun,
) -> Iterator[Estimate]:
    values = np.concatenate([series(one) for one in windows])
    if not len(values):
        yield _estimate(metric, point, _why_no_latency(metric, run), statistic="mean")
        return
    mean = _over_windows(metric, figures) or block_bootstrap(values, lambda rows: rows.mean(axis=1))
    yield _estimate(metric, point, mean, statistic="mean")
    for percent in PERCENTILES:
        yield _percentile(metric, point, [series(one) for one in windows], percent)


def _why_no_latency(metric: str, run: RawRun) -> str:
    if metric == "tpot" and run.workload.output_len == 1:
        return "an answer of one token has none after the first"
    return "no request began and got that far inside a window: measure for longer, with --duration"


def _percentile(metric: str, point: LoadPoint, parts: Sequence[NDArray[np.float64]], percent: int) -> Estimate:
    """Windows of one load point differ by more than their requests do, so from three on they make the interval."""
    values, parts = np.concatenate(parts), [part for part in parts if len(part)]
    needed = least_n_for_percentile(percent / 100)
    if len(values) < needed:
        reason = f"{len(values)} requests say nothing of p{percent}: {needed} are needed"
        return _estimate(metric, point, reason, statistic=f"p{percent}", n=len(values))
    if len(parts) >= WINDOWS_FOR_RUNS:
        found = percentile_over_windows(parts, percent / 100)
    else:
        found = percentile_interval(values, percent / 100)
    return _estimate(metric, point, found, statistic=f"p{percent}")


def _gaps(
    point: LoadPoint, windows: Sequence[WindowSamples], figures: Sequence[Mapping[str, float]]
) -> Iterator[Estimate]:
    """itl where each event is one token; else icl, and itl says why it is not there."""
    metric, gaps = "itl", np.concatenate([one.gaps_s for one in windows])
    if any(one.bundled for one in windows):
        yield _estimate("itl", point, "an event bore more than one token, or it is not known how many: see icl")
        metric = "icl"
    if not len(gaps):
        yield _estimate(metric, point, "no two events of one request lie inside a window", statistic="mean")
        return
    mean = _over_windows(metric, figures)
    if mean is None:
        mean = mean_over_batches(gaps)
    yield _estimate(metric, point, mean, statistic="mean")
    for percent in PERCENTILES:
        needed = least_n_for_percentile(percent / 100)
        if len(gaps) < needed:
            reason = f"{len(gaps)} gaps say nothing of p{percent}: {needed} are needed"
            yield _estimate(metric, point, reason, statistic=f"p{percent}", n=len(gaps))
        else:
            yield _estimate(metric, point, _gap_percentile(windows, percent), statistic=f"p{percent}")


def _gap_percentile(windows: Sequence[WindowSamples], percent: int) -> Interval:
    """Gaps of one window hang together: the spread between windows makes the interval, or between sections of one."""
    gaps, needed = np.concatenate([one.gaps_s for one in windows]), least_n_for_percentile(percent / 100)
    parts = [one.gaps_s for one in windows if len(one.gaps_s) >= needed]
    if len(parts) >= WINDOWS_FOR_RUNS:
        over = mean_over_runs([float(np.percentile(part, percent)) for part in parts])
    elif len(some := [one.gaps_s for one in windows if len(one.gaps_s)]) >= WINDOWS_FOR_RUNS:
        return percentile_over_windows(some, percent / 100)
    elif len(gaps) >= SECTIONS * needed:
        over = mean_over_batches([float(np.percentile(part, percent)) for part in np.array_split(gaps, SECTIONS)])
    else:
        return block_bootstrap(gaps, lambda rows: np.percentile(rows, percent, axis=1))
    value = float(np.percentile(gaps, percent))
    if over.low is None or over.high is None:
        return _plain(value, len(gaps))
    scale = value / over.value if over.value > 0 else 1.0
    return Interval(value, over.low * scale, over.high * scale, over.level, over.method, over.n)


def _rate(
    metric: str, point: LoadPoint, windows: Sequence[WindowSamples], figures: Sequence[Mapping[str, float]]
) -> Estimate:
    values = [figure[metric] for figure in figures if metric in figure]
    why = _why_no_rate(metric, windows, values)
    if why is not None:
        return _estimate(metric, point, why, statistic="mean")
    over = _over_windows(metric, figures)
    if over is None and metric == "output_throughput":
        over = mean_over_batches(np.concatenate([_token_rate(one) for one in windows]))
    return _estimate(metric, point, over or _plain(float(np.mean(values)), len(values)), statistic="mean")


def _why_no_rate(metric: str, windows: Sequence[WindowSamples], values: Sequence[float]) -> str | None:
    """Nothing came: after failures that is a rate of 0, and where nothing could come it is no rate at all."""
    if any(values) or (values and any(one.failed or one.completed for one in windows)):
        return None
    if values:
        came = "request ended" if metric.startswith("request") else "token arrived"
        return f"no {came} inside a window: measure for longer, with --duration"
    if not any(one.prefill_s for one in windows):
        return "the engine does not say how long prefill took"
    return "there was no time in which a stream decoded and none was in prefill"


def _token_rate(one: WindowSamples) -> NDArray[np.float64]:
    """Tokens per second in each hundredth of the window."""
    counts, _ = np.histogram(one.token_s, bins=BINS, range=(0.0, one.duration_s), weights=one.tokens)
    return counts * BINS / one.duration_s


def _memory(point: LoadPoint, windows: Sequence[WindowSamples]) -> Estimate:
    known = [one.window.resident_bytes for one in windows if one.window.resident_bytes is not None]
    if not known:
        return _estimate("resident_memory", point, "the server's process is not ours to look at")
    return _estimate("resident_memory", point, _plain(max(known), len(known)), statistic="max")


def _cpu(point: LoadPoint, windows: Sequence[WindowSamples]) -> Estimate:
    pairs = [(one.window.engine_cpu_s, one.output_tokens) for one in windows]
    known = [(seconds, tokens) for seconds, tokens in pairs if seconds is not None]
    found: Interval | str = "the server's process is not ours to look at"
    if known:
        found = _ratio(known) or "no output token arrived"
    return _estimate("cpu_seconds_per_output_token", point, found)


def _ratio(pairs: Sequence[tuple[float, float]]) -> Interval | None:
    """A window in which nothing came of the effort counts with its effort. None where nothing came of any."""
    if not any(bottom for _, bottom in pairs):
        return None
    return ratio_of_sums([top for top, _ in pairs], [bottom for _, bottom in pairs])


def _energy(
    point: LoadPoint, windows: Sequence[WindowSamples], figures: Sequence[Mapping[str, float]], run: RawRun
) -> Iterator[Estimate]:
    """Null with a reason where nothing was read; a modelled meter's joules are called estimated."""
    basis = "estimated" if run.meter is not None and run.meter.get("kind") == "model" else "measured"
    for metric in _ENERGIES:
        values = [figure[metric] for figure in figures if metric in figure]
        over = _over_windows(metric, figures) or (_plain(float(np.mean(values)), len(values)) if values else None)
        yield _estimate(metric, point, over or _why_no_energy(metric, run), statistic="mean", basis=basis)
    joules = [gross_joules(one.window, run.devices) for one in windows]
    for metric, counts in (
        ("energy_per_output_token", [one.output_tokens for one in windows]),
        ("energy_per_request", [float(one.completed) for one in windows]),
    ):
        known = [(energy, count) for energy, count in zip(joules, counts, strict=True) if energy is not None]
        found = (_ratio(known) or "nothing was completed in any window") if known else _why_no_energy(metric, run)
        yield _estimate(metric, point, found, basis=basis)


def _why_no_energy(metric: str, run: RawRun) -> str:
    if run.meter is None:
        return run.meter_note
    idle = run.idle_empty if metric == "energy_net_empty" else run.idle_loaded
    if metric in ("energy_net_empty", "energy_net_loaded") and (idle is None or run.devices - set(idle.watts)):
        return "not measured: no reading of the idle machine"
    return "not measured: a counter could not be read at both edges of a window, or was reset meanwhile"


def _failed_share(point: LoadPoint, windows: Sequence[WindowSamples]) -> Estimate:
    """Of the scheduled requests, without those that the end of the window cut off."""
    scheduled = sum(one.scheduled - one.unfinished for one in windows)
    failed = sum(one.failed for one in windows)
    if not scheduled:
        return _estimate("failed_share", point, "no request ended inside a window")
    return _estimate("failed_share", point, clopper_pearson(failed, scheduled))


def _goodput(
    point: LoadPoint, windows: Sequence[WindowSamples], figures: Sequence[Mapping[str, float]], run: RawRun
) -> Iterator[Estimate]:
    """The attainment's interval holds both ways in which requests that the end of a window cut could have ended."""
    if run.slo is None:
        return
    good, unknown, scheduled = (
        sum(counts) for counts in zip(*(verdicts(one, run.slo) for one in windows), strict=True)
    )
    yield _rate("request_goodput", point, windows, figures)
    if scheduled == unknown:
        yield _estimate("slo_attainment", point, "no request ended inside a window")
        return
    low, high = clopper_pearson(good, scheduled), clopper_pearson(good + unknown, scheduled)
    found = replace(low, value=good / (scheduled - unknown), high=high.high)
    reason = (
        f"the end of a window cut {unknown} of {scheduled} requests before it was settled: the interval holds both ways"
    )
    yield _estimate("slo_attainment", point, found, reason=reason if unknown else None)
