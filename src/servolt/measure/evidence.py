"""The figures by which a run is judged, kept whether or not one of them raised a flag: of the worst window each."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from servolt.measure.figures import rounded
from servolt.measure.run import RawRun
from servolt.measure.samples import WindowSamples

__all__ = [
    "cached_share",
    "client_share",
    "evidence_of",
    "first_tokens_late_s",
    "foreign_share",
    "idle_share",
    "read_together",
    "send_lags_s",
]

# A prompt begins with a nonce in hexadecimal digits, and a token holds at least one of them.
NONCE_SYMBOLS = 16
# Systems count processor time in ticks of 10 ms: over less than this two of them are a tenth of the time or more.
SHORTEST_S = 0.2


def evidence_of(run: RawRun, windows: Sequence[WindowSamples]) -> dict[str, float]:
    """Seconds (`_s`) and shares. What could not be seen is absent.

    The kernel's stamps take the receive lag out of every latency, but for events that were read together: those have
    the time of the last of them.
    """
    found = dict(_worst(windows))
    cached = cached_share(run, windows)
    if cached is not None:
        found |= {"prompt_tokens_cached": cached[0], "prefix_tokens_shared": cached[1]}
    return {name: rounded(value) for name, value in found.items()}


def _worst(windows: Sequence[WindowSamples]) -> Iterator[tuple[str, float]]:
    lags = [one.lag_s for one in windows if len(one.lag_s)]
    sent = [late for one in windows if len(late := send_lags_s(one))]
    gaps = [one for one in windows if len(one.gaps_s) and not one.bundled]
    figures: Mapping[str, list[float | None]] = {
        "receive_lag_p50_s": [float(np.percentile(one, 50)) for one in lags],
        "receive_lag_p99_s": [float(np.percentile(one, 99)) for one in lags],
        "events_read_together": [read_together(one) for one in gaps],
        "first_tokens_seen_late_s": [first_tokens_late_s(one) for one in windows],
        "send_lag_p99_s": [float(np.percentile(one, 99)) for one in sent],
        "streams_idle": [idle_share(one) for one in windows],
        "client_core": [client_share(one) for one in windows],
        "foreign_processors": [foreign_share(one) for one in windows],
        "requests_cut": [one.unfinished / one.scheduled if one.scheduled else None for one in windows],
    }
    for name, values in figures.items():
        known = [value for value in values if value is not None]
        if known:
            yield name, max(known)


def send_lags_s(one: WindowSamples) -> NDArray[np.float64]:
    """From when each request was due until it left."""
    lags: NDArray[np.float64] = (
        np.ma.compressed(np.ma.asarray(one.requests["d_ns"]) - np.asarray(one.requests["s_ns"])) / 1e9
    )
    return lags


def idle_share(one: WindowSamples) -> float | None:
    """Of a closed loop's time, in which its streams waited for the client. None for an open loop."""
    streams, lags = one.window.concurrency, send_lags_s(one)
    return float(lags.sum()) / (one.duration_s * streams) if streams and len(lags) else None


def read_together(one: WindowSamples) -> float:
    """Share of the events that reached the client in one read with the next, and so have the next one's time."""
    return float((one.gaps_s == 0).mean()) if len(one.gaps_s) else 0.0


def first_tokens_late_s(one: WindowSamples) -> float | None:
    """By how much, on average, the engine's clock has more time between the first token and the last than was seen.

    The last token is read as soon as it comes or with the stream's end, so it is the first that was late: read together
    with later ones. None where the engine doesn't say. Of an answer that ended itself it also counts the end token.
    """
    rows = one.requests
    ended = np.ma.filled(np.ma.asarray(rows["finish_reason"]), "") == "length"
    by_engine, first, last = (np.ma.asarray(rows[name])[ended] for name in ("decode_ns", "c1_ns", "c_last_ns"))
    late = np.ma.compressed(by_engine - (last - first))
    return float(late.mean()) / 1e9 if len(late) else None


def client_share(one: WindowSamples) -> float | None:
    """Of a core, by the load client's busiest process."""
    seconds = one.window.client_busiest_cpu_s
    return None if seconds is None else seconds / one.duration_s


def foreign_share(one: WindowSamples) -> float | None:
    """Of the usable cores, by what is neither the engine nor the client. None for windows shorter than can tell."""
    seconds, cores = one.window.foreign_cpu_s, one.window.usable_cores
    if one.duration_s < SHORTEST_S:
        return None
    return None if seconds is None or not cores else seconds / (one.duration_s * cores)


def cached_share(run: RawRun, windows: Sequence[WindowSamples]) -> tuple[float, float] | None:
    """The share of the prompt tokens that a cache held though no two prompts share them, and what all of them share.

    All prompts begin with the chat template's tokens: as many as are usually found in the cache, and no more than the
    shortest prompt has beside its words, which are drawn anew for each and have a token at least. By chance the first
    digits of a nonce are those of another: of log16(n) of them among n prompts.
    """
    pairs = [_cached_and_asked(one) for one in windows]
    cached, prompts = np.concatenate([*pairs, np.zeros((2, 0))], axis=1)
    if not prompts.sum():
        return None
    shared = max(0.0, min(float(np.median(cached)), float(prompts.min()) - run.workload.input_len))
    by_chance = np.log(len(prompts)) / np.log(NONCE_SYMBOLS)
    return float(np.maximum(cached - shared - by_chance, 0.0).sum() / prompts.sum()), shared


def _cached_and_asked(one: WindowSamples) -> NDArray[np.float64]:
    """Two rows, prompt tokens that a cache held and prompt tokens, of the requests of which both are known."""
    columns = [np.ma.asarray(one.requests[name]) for name in ("cached", "n_in")]
    known = ~(np.ma.getmaskarray(columns[0]) | np.ma.getmaskarray(columns[1]))
    return np.stack([np.ma.getdata(column)[known].astype(float) for column in columns])
