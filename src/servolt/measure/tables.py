"""The raw tables: one row for each request, one for each token-bearing event. Unknown values are masked."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servolt.measure.load.client import LoadRecord
from servolt.measure.load.columns import EVENT_COLUMNS, REQUEST_COLUMNS, UNKNOWN
from servolt.results import Table

__all__ = ["events_table", "joined", "requests_table", "rows"]


def requests_table(records: Sequence[LoadRecord], window: int, origin_ns: int) -> Table:
    """Times are ns from the run's origin; `c1_ns` and `c_last_ns` are the first and the last token-bearing event."""
    return joined([_requests(record, window, origin_ns) for record in records])


def events_table(records: Sequence[LoadRecord], window: int, origin_ns: int) -> Table:
    """`t_ns`: when the event reached this machine; `lag_ns`: from then until the client had it, if the kernel says."""
    return joined([_events(record, window, origin_ns) for record in records])


def joined(tables: Sequence[Table]) -> Table:
    """One below the other. All have the same columns."""
    return {name: _concatenate([table[name] for table in tables]) for name in tables[0]}


def rows(table: Table, chosen: NDArray[np.bool_]) -> Table:
    return {name: column[chosen] for name, column in table.items()}


def _requests(record: LoadRecord, window: int, origin_ns: int) -> Table:
    raw = dict(zip(REQUEST_COLUMNS, record.requests.T, strict=True))
    first, last, events = _first_and_last(record)
    words = np.array([*record.words, None], dtype=object)
    times = {"s_ns": raw["s_ns"], "d_ns": raw["d_ns"], "c1_ns": first, "c_last_ns": last, "e_ns": raw["e_ns"]}
    return {
        "window": np.full(len(first), window, dtype=np.int32),
        "i": raw["i"].astype(np.int64),
        **{name: _known(column) - origin_ns for name, column in times.items()},
        **{name: _known(raw[name]) for name in ("n_in", "n_out", "cached", "prefill_ns", "decode_ns", "http_status")},
        "events": events,
        "running_count": raw["running_count"] == 1,
        "outcome": words[raw["outcome"]],
        "finish_reason": _texts(words, raw["finish_reason"]),
        "worker": np.full(len(first), record.worker, dtype=np.int32),
    }


def _first_and_last(record: LoadRecord) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The times of each request's first and last event, and how many it had. Events stand request by request."""
    counts = _events_of(record)
    times = record.events[:, EVENT_COLUMNS.index("t_ns")]
    ends = np.cumsum(counts)
    first, last = np.full(len(counts), UNKNOWN), np.full(len(counts), UNKNOWN)
    some = counts > 0
    first[some], last[some] = times[(ends - counts)[some]], times[(ends - 1)[some]]
    return first, last, counts


def _events_of(record: LoadRecord) -> NDArray[np.int64]:
    owners = record.events[:, EVENT_COLUMNS.index("i")]
    numbers, counts = np.unique(owners, return_counts=True)
    known = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    return np.array([known.get(index, 0) for index in record.requests[:, 0].tolist()], dtype=np.int64)


def _events(record: LoadRecord, window: int, origin_ns: int) -> Table:
    raw = dict(zip(EVENT_COLUMNS, record.events.T, strict=True))
    return {
        "window": np.full(len(raw["i"]), window, dtype=np.int32),
        "i": raw["i"].astype(np.int64),
        "t_ns": raw["t_ns"] - origin_ns,
        "tokens": raw["tokens"].astype(np.uint16),
        "lag_ns": _known(raw["lag_ns"]),
    }


def _known(column: NDArray[np.int64]) -> Any:
    return np.ma.masked_equal(column, UNKNOWN)


def _texts(words: NDArray[Any], codes: NDArray[np.int64]) -> Any:
    unknown = codes == UNKNOWN
    return np.ma.MaskedArray(words[np.where(unknown, -1, codes)], mask=unknown)


def _concatenate(columns: Sequence[Any]) -> Any:
    if any(isinstance(column, np.ma.MaskedArray) for column in columns):
        return np.ma.concatenate(columns)  # type: ignore[no-untyped-call]
    return np.concatenate(columns)
