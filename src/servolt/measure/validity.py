"""What could make a measurement mean less than it seems: each doubt with its evidence and a remedy."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from servolt.document import Problem
from servolt.measure.energy import gross_joules
from servolt.measure.estimates import PERCENTILES
from servolt.measure.evidence import (
    cached_share,
    client_share,
    evidence_of,
    first_tokens_late_s,
    foreign_share,
    idle_share,
    read_together,
    send_lags_s,
)
from servolt.measure.run import RawRun
from servolt.measure.samples import WindowSamples
from servolt.measurement import Validity
from servolt.statistics import least_n_for_percentile, mser, trend

__all__ = ["validity_of"]

BUSY_WORKER = 0.8  # of a core: above, the client waits for itself
SEND_LAG_S = 0.001  # open loop: an arrival later than this is another schedule
IDLE_SHARE = 0.02  # closed loop: streams that wait so long for the client lower the concurrency by as much
UNFINISHED = 0.01  # of the scheduled requests
MISCOUNT = 0.005
HIT_RATE = 0.01  # of the prompt tokens: fewer change no figure by more than their own noise
LATE_S, LATE = 0.001, 0.02  # of first tokens: 1 ms, and a share of the ttft that changes no verdict
COALESCED = 0.05  # of the gaps; fewer leave the median and p90 where they are
FOREIGN = 0.12  # of the machine's processor time
CLOCK_STEP_NS = 1_000_000  # slewing moves the wall clock by at most 0.5 ms in a second, mostly far less
ENERGY_WINDOW_S = 30.0
METER_PERIODS = 20  # shorter than this, the counter's own step is over 5 % of the reading
HALVES_DIFFER = 0.1  # MSER alone calls one steady window in twenty unsteady
RATE_BINS = 100
DRIFT = 0.02  # over the run; less changes no verdict
DRIFT_BY_CHANCE = 0.01  # of runs without any drift, over all their series


def validity_of(run: RawRun, windows: Sequence[WindowSamples]) -> Validity:
    """`invalid` with an error, `degraded` with a warning; notes take nothing away."""
    flags = tuple(_flags(run, windows))
    severities = {flag.severity for flag in flags}
    verdict = "invalid" if "error" in severities else "degraded" if "warning" in severities else "valid"
    return Validity.model_validate({"verdict": verdict, "flags": flags, "evidence": evidence_of(run, windows)})


def _flags(run: RawRun, windows: Sequence[WindowSamples]) -> Iterator[Problem]:
    for check in (_failures, _impossible, _client_limited, _send_lag, _rate_missed, _miscounted, _lengths, _bundled):
        yield from check(run, windows)
    for check in (_cached, _foreign, _receive_lag, _clock_step, _short_window, _not_steady, _drift, _lag_unknown):
        yield from check(run, windows)
    yield from _few_for_percentiles(run, windows)


def _failures(run: RawRun, windows: Sequence[WindowSamples]) -> Iterator[Problem]:
    ended = sum(one.scheduled - one.unfinished for one in windows)
    failed = sum(one.failed for one in windows)
    remedy = "Look at the engine's log; ask for less load, or for a shorter context."
    empty = [
        str(at) for at in run.workload.points if not any(one.output_tokens for one in windows if _at(one) == str(at))
    ]
    if empty:
        longer = remedy if failed else "Measure for longer with --duration, or with less load."
        yield _problem(
            "nothing_measured", "error", f"At {', '.join(empty)} no output token arrived in any window.", longer
        )
    if failed:
        seen = sorted({f"{outcome} {status}" for one in windows for outcome, status in _bad_ends(one)})
        message = f"{failed} of {ended} requests failed ({', '.join(seen)})."
        yield _problem("failed_requests", "error" if failed > ended / 2 else "warning", message, remedy)


def _bad_ends(one: WindowSamples) -> set[tuple[str, str]]:
    outcomes = np.asarray(one.requests["outcome"]).tolist()
    statuses = np.ma.asarray(one.requests["http_status"]).tolist()
    return {
        (outcome, "without an answer" if status is None else f"with status {status}")
        for outcome, status in zip(outcomes, statuses, strict=True)
        if outcome in ("failed", "refused")
    }


def _impossible(run: RawRun, windows: Sequence[WindowSamples]) -> Iterator[Problem]:
    """Causes come before effects, on whichever clock."""
    early = sum(int((one.ttft_service_s <= 0).sum()) for one in windows)
    if early:
        message = f"{early} requests had their first token before they were sent."
        yield _problem("impossible_times", "error", message, "A clock was set meanwhile: measure again.")
    beside = np.concatenate([*(_beside_prefill_s(one) for one in windows), np.zeros(0)])
    if not early and len(beside) and float(np.median(beside)) < 0:
        yield _problem(
            "impossible_times",
            "error",
            f"By the engine's clock prefill took {-float(np.median(beside)) * 1e3:.2f} ms longer than its requests "
            "waited for their first token.",
            "Don't believe the engine's own times of this run; report it to the engine.",
        )


def _beside_prefill_s(one: WindowSamples) -> NDArray[np.float64]:
    """Of each request's wait for its first token, what the engine did not need for prefill."""
    rows = one.requests
    waits = np.ma.asarray(rows["c1_ns"]) - np.ma.asarray(rows["d_ns"]) - np.ma.asarray(rows["prefill_ns"])
    seconds: NDArray[np.float64] = np.ma.compressed(waits) / 1e9
    return seconds


def _client_limited(run: RawRun, windows: Sequence[WindowSamples]) -> Iterator[Problem]:
    shares = [share for one in windows if (share := client_share(one)) is not None]
    if shares and max(shares) > BUSY_WORKER:
        yield _problem(
            "client_limited",
            "error",
            f"A process of the load client was busy for {max(shares):.0%} of a window.",
            "Measure from a machine with more free cores, or with less load.",
        )


def _send_lag(run: RawRun, windows: Sequence[WindowSamples]) -> Iterator[Problem]:
    """An open loop is judged by its own schedule, a closed one by how long its streams stood idle."""
    for one in windows:
        lags = send_lags_s(one)
        if not len(lags):
            continue
        late_s, idle = float(np.percentile(lags, 99)), idle_share(one)
        if idle is None and late_s > SEND_LAG_S:
            seen = f"requests left late, by {late_s * 1e3:.1f} ms (p99)"
        elif idle is not None and idle > IDLE_SHARE:
            seen = (
                f"streams stood idle for {idle:.1%} of the time, since requests left late (p99 {late_s * 1e3:.1f} ms)"
            )
        else:
            continue
        remedy = "Free the processors of other work, or measure from another machine."
        yield _problem("send_lag", "warning", f"At {_at(one)} {seen}.", remedy)
        return


def _rate_missed(run: RawRun, windows: Sequence[WindowSamples]) -> Iterator[Problem]:
    for one in windows:
        if one.window.request_rate is not None and one.scheduled and one.unfinished / one.scheduled > UNFINISHED:
            yield _problem(
                "rate_missed",
                "error",
                f"At {_at(one)}, {one.unfinished} of {one.scheduled} requests had not ended long after the window.",
                "The server does not keep up: offer a lower rate.",
            )
            return


def _miscounted(run: RawRun, windows: Sequence[WindowSamples]) -> Iterator[Problem]:
    """The server's total against what its running count said event by event."""
    seen, counted = 0.0, 0.0
    for one in windows:
        rows = one.requests
        complete = _complete(one)
        if np.ma.getmaskarray(np.ma.asarray(rows["n_out"]))[complete].any():
            message = "The server gave no token counts, so events were counted in their place."
            yield _problem("token_count_mismatch", "error", message, "Ask for usage: the server must support it.")
            return
        totals = np.ma.filled(np.ma.asarray(rows["n_out"]), 0)
        ended_itself = np.ma.filled(np.ma.asarray(rows["finish_reason"]), "") == "stop"
        running = complete & np.asarray(rows["running_count"])
        off = np.abs(totals - one.event_tokens) - ended_itself
        seen += float(np.maximum(off, 0)[running].sum())
        counted += float(totals[running].sum())
    if counted and seen / counted > MISCOUNT:
        yield _problem(
            "token_count_mismatch",
            "error",
            f"The server's totals and its running counts differ by {seen:.0f} of {counted:.0f} tokens.",
            "Report it to the engine; its throughput can't be told from this run.",
        )


def _lengths(run: RawRun, windows: Sequence[WindowSamples]) -> Iterator[Problem]:
    if run.workload.length_control != "fixed":
        return
    for column, wanted in (("n_in", run.workload.input_len), ("n_out", run.workload.output_len)):
        values = [np.ma.compressed(np.ma.asarray(one.requests[column])[_complete(one)]) for one in windows]
        lengths = np.concatenate(values) if values else np.zeros(0)
        if len(lengths) and abs(float(lengths.mean()) / wanted - 1) > MISCOUNT:
            what = "prompt" if column == "n_in" else "output"
            yield _problem(
                "lengths_missed",
                "warning",
                f"{wanted} {what} tokens were asked for, the server counted {float(lengths.mean()):.1f} on average.",
                "Compare only with runs of the same lengths; a server that knows ignore_eos and token ids keeps them.",
            )


def _complete(one: WindowSamples) -> NDArray[np.bool_]:
    return np.array([outcome == "completed" for outcome in np.asarray(one.requests["outcome"])], dtype=np.bool_)


def _bundled(run: RawRun, windows: Sequence[WindowSamples]) -> Iterator[Problem]:
    if any(one.bundled for one in windows):
        yield _problem(
            "bundled_tokens",
            "note",
            "Some events bore more than one token, or an unknown number: itl is undefined, icl stands in its place.",
            "Ask the server to send each token at once, where it can.",
        )


def _cached(run: RawRun, windows: Sequence[WindowSamples]) -> Iterator[Problem]:
    found = cached_share(run, windows)
    if found is not None and found[0] > HIT_RATE:
        beyond = f" beyond the {found[1]:.0f} with which every prompt begins" if found[1] else ""
        yield _problem(
            "cache_contaminated",
            "error",
            f"The prefix cache held {found[0]:.1%} of the prompt tokens{beyond}; every prompt was meant to be new.",
            "Restart the server, or measure with another --seed.",
        )


def _foreign(run: RawRun, windows: Sequence[WindowSamples]) -> Iterator[Problem]:
    shares = [share for one in windows if (share := foreign_share(one)) is not None]
    worst = max(shares, default=0.0)
    if worst > FOREIGN:
        many = sum(share > FOREIGN for share in shares)
        yield _problem(
            "foreign_process",
            "error" if run.meter is not None else "warning",
            f"Other programs used up to {worst:.0%} of the processors, more than {FOREIGN:.0%} in {many} of "
            f"{len(windows)} windows.",
            "Close other programs and measure again.",
        )


def _receive_lag(run: RawRun, windows: Sequence[WindowSamples]) -> Iterator[Problem]:
    """The kernel stamps arrivals, so a late client moves no time; but events read together share the newest stamp."""
    for one in windows:
        together, late_s = read_together(one), first_tokens_late_s(one) or 0.0
        ttft_s = float(one.ttft_s.mean()) if len(one.ttft_s) else 0.0
        is_late = late_s > max(LATE_S, LATE * ttft_s)
        if one.bundled or not (together > COALESCED or is_late):
            continue
        harm = "percentiles of itl are blurred"
        if is_late:
            harm = f"by the engine's clock first tokens came {late_s * 1e3:.1f} ms before that, of a ttft of "
            harm += f"{ttft_s * 1e3:.1f} ms, so ttft is too long, tpot too short, and itl blurred"
        yield _problem(
            "receive_lag",
            "warning",
            f"At {_at(one)} {together:.0%} of the tokens reached the client together with the next one: {harm}.",
            "Throughput and e2el are right. Free the processors of other work.",
        )
        return


def _clock_step(run: RawRun, windows: Sequence[WindowSamples]) -> Iterator[Problem]:
    steps = [one.window.clock_step_ns for one in windows if one.window.clock_step_ns is not None]
    worst = max((abs(step) for step in steps), default=0)
    if worst > CLOCK_STEP_NS:
        yield _problem(
            "clock_step",
            "warning",
            f"The wall clock moved by {worst / 1e6:.1f} ms against the steady clock within a window.",
            "Measure again once the clock is synchronised.",
        )


def _short_window(run: RawRun, windows: Sequence[WindowSamples]) -> Iterator[Problem]:
    if run.meter is None or not windows:
        return
    period_s, shortest_s = float(run.meter["period_s"]), min(one.duration_s for one in windows)
    needed_s = max(ENERGY_WINDOW_S, METER_PERIODS * period_s)
    if shortest_s < needed_s * 0.999:  # edges are read, not commanded
        yield _problem(
            "short_window",
            "warning",
            f"The window lasted {shortest_s:.2f} s and the counter moves every {period_s:.3g} s.",
            f"Measure for at least {needed_s:.0f} s: raise --duration.",
        )


def _not_steady(run: RawRun, windows: Sequence[WindowSamples]) -> Iterator[Problem]:
    """Two kinds of evidence: no cut leaves a steady rest, and the halves differ."""
    for one in windows:
        rate, _ = np.histogram(one.token_s, bins=RATE_BINS, range=(0.0, one.duration_s), weights=one.tokens)
        first, second = float(rate[: RATE_BINS // 2].sum()), float(rate[RATE_BINS // 2 :].sum())
        change = abs(second - first) / max(first + second, 1.0) * 2
        if one.window.request_rate is None and change > HALVES_DIFFER and None in (mser(rate), mser(rate[::-1])):
            yield _problem(
                "not_steady",
                "warning",
                f"At {_at(one)} the token rate of a window's halves differs by {change:.0%}.",
                "Measure for longer with --duration, on a machine that does nothing else.",
            )
            return


def _drift(run: RawRun, windows: Sequence[WindowSamples]) -> Iterator[Problem]:
    """From window to window. An open loop's throughput is that of its arrivals, so there its latency is looked at."""
    series = [
        (at, one) for at in run.workload.points for one in _series(run, [w for w in windows if _at(w) == str(at)])
    ]
    for at, (what, times_s, values) in series:
        found = trend(times_s, values)
        if found is not None and found.p_value < DRIFT_BY_CHANCE / len(series) and abs(found.change) > DRIFT:
            yield _problem(
                "drift",
                "warning",
                f"At {at} the {what} changed by {found.change:+.0%} from the first window to the last, steadily "
                f"(p = {found.p_value:.2g}).",
                "Let the machine reach its temperature, keep other programs away, and measure again.",
            )
            return


def _series(run: RawRun, windows: Sequence[WindowSamples]) -> Iterator[tuple[str, list[float], list[float]]]:
    """What it is, when, and how much, of one load point's windows."""
    times_s = [one.window.start_ns / 1e9 for one in windows]
    if any(one.window.request_rate is not None for one in windows):
        means = [float(one.e2el_s.mean()) if len(one.e2el_s) else 0.0 for one in windows]
        yield "latency", times_s, means
    else:
        yield "throughput", times_s, [one.output_tokens / one.duration_s for one in windows]
    joules = [gross_joules(one.window, run.devices) for one in windows]
    if all(one.output_tokens for one in windows) and None not in joules:
        per_token = [(energy or 0.0) / one.output_tokens for energy, one in zip(joules, windows, strict=True)]
        yield "energy of a token", times_s, per_token


def _lag_unknown(run: RawRun, windows: Sequence[WindowSamples]) -> Iterator[Problem]:
    if windows and not any(len(one.lag_s) for one in windows):
        yield _problem(
            "receive_lag_unknown",
            "note",
            "This system does not stamp arrivals, so latencies hold the client's own delay.",
            "On Linux the kernel stamps them.",
        )


def _few_for_percentiles(run: RawRun, windows: Sequence[WindowSamples]) -> Iterator[Problem]:
    for point in run.workload.points:
        ended = sum(len(one.e2el_s) for one in windows if _at(one) == str(point))
        missing = [f"p{percent}" for percent in PERCENTILES if ended < least_n_for_percentile(percent / 100)]
        if missing and ended:
            yield _problem(
                "low_n_percentile",
                "note",
                f"At {point} {ended} requests are too few for {', '.join(missing)} of the latencies.",
                "Measure for longer with --duration, or more often with --repetitions.",
            )
            return


def _at(one: WindowSamples) -> str:
    window = one.window
    return f"c={window.concurrency}" if window.request_rate is None else f"{window.request_rate:g}/s"


def _problem(code: str, severity: str, message: str, remedy: str) -> Problem:
    return Problem.model_validate({"code": code, "severity": severity, "message": message, "remedy": remedy})
