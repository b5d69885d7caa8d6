"""What one window's rows say, by the definitions of the metrics: arrays in seconds, in the order of time."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servolt.measure.tables import rows
from servolt.measurement import Window
from servolt.results import Table

__all__ = ["Judged", "WindowSamples", "by_window", "window_samples"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """ttft, tpot and e2el, a row for each request.

    `at_least` and `at_most` are those of the requests scheduled inside the window: equal for one that ended well,
    infinite for one that failed, and between them for one that the end of the window cut. `finished` are those that
    count for the goodput.
    """

    at_least: Floats
    at_most: Floats
    finished: Floats


@dataclass(frozen=True)
class WindowSamples:
    """Latencies are those of requests scheduled inside the window, throughput is of all that arrived inside it.

    `gaps_s` are between events of one request, in the order of requests. `bundled`: an event bore more than one token,
    or it is not known how many. `token_s` and `tokens` are each event's time from the window's start and its tokens.
    `judged` are the latencies that an SLO judges. `lag_s` is how long events lay in the kernel before the client had
    them, empty where the kernel doesn't say. `requests` are those scheduled inside the window, and `event_tokens` what
    their events bore together.
    """

    window: Window
    duration_s: float
    ttft_s: Floats
    ttft_service_s: Floats
    tpot_s: Floats
    e2el_s: Floats
    gaps_s: Floats
    bundled: bool
    token_s: Floats
    tokens: Floats
    input_tokens: float
    completed: int
    scheduled: int
    failed: int
    unfinished: int
    prefill_tokens: float
    prefill_s: float
    decode_throughput: float | None
    judged: Judged
    lag_s: Floats
    requests: Table
    event_tokens: Floats

    @property
    def output_tokens(self) -> float:
        return float(self.tokens.sum())


def by_window(windows: tuple[Window, ...], requests: Table, events: Table) -> Iterator[WindowSamples]:
    """In the order of the windows."""
    for window in windows:
        yield window_samples(
            window,
            rows(requests, np.asarray(requests["window"] == window.index)),
            rows(events, np.asarray(events["window"] == window.index)),
        )


def window_samples(window: Window, requests: Table, events: Table) -> WindowSamples:
    """From this window's rows alone."""
    times = {name: _floats(requests[name]) for name in ("s_ns", "d_ns", "c1_ns", "c_last_ns", "e_ns")}
    outcome = np.asarray(requests["outcome"])
    scheduled = (times["s_ns"] >= window.start_ns) & (times["s_ns"] < window.end_ns)
    # A closed loop is cut at the end of the window; an open loop's requests run on, or overload would not show.
    limit_ns = window.end_ns if window.request_rate is None else np.inf
    begun, complete = scheduled & (times["c1_ns"] < limit_ns), outcome == "completed"
    whole = scheduled & complete & (times["c_last_ns"] < limit_ns)
    tokens, owner = _tokens(requests, events)
    first_tokens = _first_tokens(tokens, owner, len(outcome))
    total_tokens = np.bincount(owner, weights=tokens, minlength=len(outcome))
    after_first = total_tokens - first_tokens
    paced = whole & (after_first > 0)
    inside = _inside(events["t_ns"], window)
    arrived_first = _inside(times["c1_ns"], window)
    prefill = arrived_first & ~np.isnan(_floats(requests["prefill_ns"])) & ~np.isnan(_floats(requests["n_in"]))
    return WindowSamples(
        window=window,
        duration_s=(window.end_ns - window.start_ns) / 1e9,
        ttft_s=_seconds(times["c1_ns"] - times["s_ns"], begun),
        ttft_service_s=_seconds(times["c1_ns"] - times["d_ns"], begun),
        tpot_s=_seconds(times["c_last_ns"] - times["c1_ns"], paced) / after_first[paced],
        e2el_s=_seconds(times["c_last_ns"] - times["s_ns"], whole),
        gaps_s=_gaps(events, owner, inside),
        bundled=_is_bundled(requests, events, complete),
        token_s=(np.asarray(events["t_ns"])[inside] - window.start_ns) / 1e9,
        tokens=tokens[inside],
        input_tokens=float(np.nansum(_floats(requests["n_in"])[arrived_first])),
        completed=int((complete & _inside(times["e_ns"], window)).sum()),
        scheduled=int(scheduled.sum()),
        failed=int((scheduled & ((outcome == "failed") | (outcome == "refused"))).sum()),
        unfinished=int((scheduled & (outcome == "cancelled")).sum()),
        prefill_tokens=float((_floats(requests["n_in"]) - _or_zero(requests["cached"]))[prefill].sum()),
        prefill_s=float(_floats(requests["prefill_ns"])[prefill].sum()) / 1e9,
        decode_throughput=_decode_throughput(requests, events, owner, window),
        judged=_judged(times, after_first, scheduled, outcome, window),
        lag_s=np.ma.compressed(np.ma.asarray(events["lag_ns"])) / 1e9,
        requests=rows(requests, scheduled),
        event_tokens=_borne(events, owner, len(outcome))[scheduled],
    )


def _tokens(requests: Table, events: Table) -> tuple[Floats, NDArray[np.int64]]:
    """Tokens of each event, and the row of its request. A completed request's events add up to the server's count."""
    numbers = np.asarray(requests["i"])
    order = np.argsort(numbers, kind="stable")
    owner = order[np.searchsorted(numbers[order], np.asarray(events["i"]))] if len(order) else np.zeros(0, np.int64)
    borne = np.asarray(events["tokens"]).astype(float)
    seen = _borne(events, owner, len(numbers))
    counted = _floats(requests["n_out"])
    known = (seen > 0) & ~np.isnan(counted) & (np.asarray(requests["outcome"]) == "completed")
    scale = np.ones(len(numbers))
    scale[known] = counted[known] / seen[known]
    return borne * scale[owner], owner


def _borne(events: Table, owner: NDArray[np.int64], requests: int) -> Floats:
    """Tokens of each request as its events bore them, before any count of the server's is believed."""
    weights = np.asarray(events["tokens"]).astype(float)
    return np.bincount(owner, weights=weights, minlength=requests).astype(float)


def _first_tokens(tokens: Floats, owner: NDArray[np.int64], count: int) -> Floats:
    """Tokens of each request's first event."""
    first = np.zeros(count)
    starts, places = np.unique(owner, return_index=True)
    first[starts] = tokens[places]
    return first


def _gaps(events: Table, owner: NDArray[np.int64], inside: NDArray[np.bool_]) -> Floats:
    times = np.asarray(events["t_ns"])
    follows = (owner[1:] == owner[:-1]) & inside[1:] & inside[:-1]
    gaps: Floats = np.diff(times)[follows] / 1e9
    return gaps


def _is_bundled(requests: Table, events: Table, complete: NDArray[np.bool_]) -> bool:
    """The end token of an answer that stopped by itself is counted by the server and has no event of its own."""
    if len(events["tokens"]) == 0:
        return False
    if int(np.asarray(events["tokens"]).max()) > 1:
        return True
    unexplained = _floats(requests["n_out"]) - np.asarray(requests["events"])
    ended_itself = np.ma.filled(np.ma.asarray(requests["finish_reason"]), "") == "stop"
    counted = complete & ~np.asarray(requests["running_count"])
    return bool(np.any(unexplained[counted] > np.where(ended_itself, 1, 0)[counted]))


def _decode_throughput(requests: Table, events: Table, owner: NDArray[np.int64], window: Window) -> float | None:
    """Tokens per second of the time in which a stream decodes and none is in prefill, by the engine's own clock.

    None where the engine doesn't say how long prefill took, or where no such time is left.
    """
    first, last = _floats(requests["c1_ns"]), _floats(requests["c_last_ns"])
    took = _floats(requests["prefill_ns"])
    touched = (first < window.end_ns) & (last > window.start_ns)
    if not touched.any() or np.isnan(took[touched]).any():
        return None
    prefill = _merged(first[touched] - took[touched], first[touched], window)
    decode = _merged(first[touched], last[touched], window)
    both = _merged(np.r_[prefill[0], decode[0]], np.r_[prefill[1], decode[1]], window)
    decode_ns = float((both[1] - both[0]).sum() - (prefill[1] - prefill[0]).sum())
    times = _floats(events["t_ns"])
    in_prefill = np.searchsorted(prefill[0], times) > np.searchsorted(prefill[1], times)  # in (start, end]
    counts = _inside(times, window) & (times > first[owner]) & ~in_prefill
    tokens = float(np.asarray(events["tokens"])[counts].sum())
    return tokens / decode_ns * 1e9 if decode_ns > 0 and tokens else None


def _merged(starts: Floats, ends: Floats, window: Window) -> tuple[Floats, Floats]:
    """The union of intervals, cut to the window: starts and ends of its pieces, in order."""
    starts, ends = np.maximum(starts, window.start_ns), np.minimum(ends, window.end_ns)
    kept = starts < ends
    order = np.argsort(starts[kept], kind="stable")
    starts, ends = starts[kept][order], np.maximum.accumulate(ends[kept][order])
    if not len(starts):
        return starts, ends
    is_new = np.r_[True, starts[1:] > ends[:-1]]
    return starts[is_new], ends[np.r_[is_new[1:], True]]


def _judged(
    times: dict[str, Floats], after_first: Floats, scheduled: NDArray[np.bool_], outcome: Any, window: Window
) -> Judged:
    complete, cut = outcome == "completed", outcome == "cancelled"
    ttft, e2el = (times["c1_ns"] - times["s_ns"]) / 1e9, (times["c_last_ns"] - times["s_ns"]) / 1e9
    decode = (times["c_last_ns"] - times["c1_ns"]) / 1e9
    tpot = np.where(after_first > 0, decode / np.maximum(after_first, 1), 0.0)
    never, begun = np.full(len(ttft), np.inf), ~np.isnan(ttft)
    so_far = np.nan_to_num((times["e_ns"] - times["s_ns"]) / 1e9)
    known = np.stack([ttft, tpot, e2el], axis=1)
    least = np.stack([np.where(begun, ttft, so_far), np.zeros(len(ttft)), so_far], axis=1)
    most = np.stack([np.where(begun, ttft, never), never, never], axis=1)
    # A closed loop's streams are cut at both ends: what ends inside the window makes its rate, whenever it began.
    finished = complete & (scheduled if window.request_rate is not None else _inside(times["e_ns"], window))
    at_least, at_most = (
        np.where(complete[:, None], known, np.where(cut[:, None], bound, np.inf))[scheduled] for bound in (least, most)
    )
    return Judged(at_least, at_most, known[finished])


def _inside(times_ns: Any, window: Window) -> NDArray[np.bool_]:
    times = _floats(times_ns)
    return (times >= window.start_ns) & (times < window.end_ns)


def _seconds(nanoseconds: Floats, chosen: NDArray[np.bool_]) -> Floats:
    return nanoseconds[chosen] / 1e9


def _floats(column: Any) -> Floats:
    """Unknown is NaN, inside this module only. ns of a run stay exact up to 104 days."""
    return np.ma.filled(np.ma.asarray(column).astype(float), np.nan)


def _or_zero(column: Any) -> Floats:
    return np.nan_to_num(_floats(column))
