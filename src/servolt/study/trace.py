"""A trace of requests, read from its CSV file."""

import csv
import hashlib
import io
import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from servolt.errors import InvalidInputError
from servolt.workload import Trace, TraceRequest, Workload

__all__ = ["read_trace", "with_trace"]

# As traces call their columns: Azure's of 2023 and 2024 (TIMESTAMP, ContextTokens, GeneratedTokens), BurstGPT's,
# Vidur's, and ours. Compared without case, spaces and underscores.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "arrival": (
        "arrivals",
        "timestamp",
        "arrival",
        "arrivedat",
        "arrivalsecond",
        "arrivaltime",
        "time",
        "times",
        "ts",
        "t",
    ),
    "input": (
        *("inputtokens", "contexttokens", "requesttokens", "prompttokens", "numprefilltokens"),
        *("inputlen", "inputlength"),
    ),
    "output": (
        *("outputtokens", "generatedtokens", "responsetokens", "completiontokens", "numdecodetokens"),
        *("outputlen", "outputlength"),
    ),
}
MOST_BYTES = 256 * 2**20
LONGEST = 2**20


def with_trace(workload: Workload) -> Workload:
    """With the requests of its trace's file, their mean lengths and rate. Raises InvalidInputError."""
    trace = workload.trace
    if trace is None or trace.requests:
        return workload
    found = read_trace(Path(trace.source).expanduser())
    if trace.sha256 is not None and trace.sha256 != found.sha256:
        raise InvalidInputError(
            f"{trace.source} is not the trace any more that this workload was made of.",
            "Name the file again: a workload with its path alone takes it as it is.",
        )
    count, requests = len(found.requests), found.requests
    own = (count - 1) / found.span_s if found.span_s else 1.0
    plain = {name: getattr(workload, name) for name in workload.model_fields_set if name != "schema_"}
    plain |= {
        "trace": found.model_copy(update={"source": trace.source}),
        "input_len": max(1, round(math.fsum(one.input_tokens for one in requests) / count)),
        "output_len": max(1, round(math.fsum(one.output_tokens for one in requests) / count)),
        "request_rate": workload.request_rate or (own,),
        "arrival": "trace",
    }
    return Workload.from_plain(plain)


def read_trace(path: Path) -> Trace:
    """Requests in the order of their arrival; those without a token in or out are left out, and counted."""
    try:
        content = path.read_bytes() if path.stat().st_size <= MOST_BYTES else None
        text = None if content is None else content.decode("utf-8-sig")
    except OSError as error:
        raise InvalidInputError(f"{path} can't be read: {error.strerror}.", "Name a file that exists.") from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path} is no CSV file.", "Name a text file with a header.") from error
    if content is None or text is None:
        raise InvalidInputError(f"{path} has over {MOST_BYTES // 2**20} MiB.", "Cut it into parts.")
    rows = csv.reader(io.StringIO(text))
    places = _places(path, next(rows, []))
    found, left_out = [], 0
    for number, row in enumerate(rows, 2):
        if any(row):
            request = _request(path, number, row, places)
            found.append(request)
    kept = sorted(one for one in found if one.input_tokens and one.output_tokens)
    left_out = len(found) - len(kept)
    if not kept:
        raise InvalidInputError(f"{path} has no request with tokens.", "Name a trace that has some.")
    span = kept[-1].arrival_s - kept[0].arrival_s
    return Trace(
        source=str(path),
        sha256=hashlib.sha256(content).hexdigest(),
        count=len(kept),
        left_out=left_out,
        span_s=span or None,
        requests=tuple(kept),
    )


def _places(path: Path, header: list[str]) -> dict[str, int]:
    names = ["".join(letter for letter in name.lower() if letter.isalnum()) for name in header]
    found = {}
    for kind, spellings in COLUMNS.items():
        place = next((names.index(one) for one in spellings if one in names), None)
        if place is None:
            raise InvalidInputError(
                f"{path} has no column for the {kind}: {', '.join(header)[:200] or 'it is empty'}.",
                "Name columns arrival_s, input_tokens, output_tokens; or TIMESTAMP, ContextTokens, GeneratedTokens.",
            )
        found[kind] = place
    return found


def _request(path: Path, number: int, row: list[str], places: Mapping[str, int]) -> TraceRequest:
    try:
        arrival = _seconds(row[places["arrival"]].strip())
        lengths = [float(row[places[kind]]) for kind in ("input", "output")]
        if not math.isfinite(arrival) or not all(0 <= one <= LONGEST and one.is_integer() for one in lengths):
            raise ValueError
    except (ValueError, IndexError, OverflowError) as error:
        raise InvalidInputError(
            f"line {number} of {path} is no request: {','.join(row)[:100]}.",
            "Each has an arrival in seconds or as a date and time, and whole numbers of tokens.",
        ) from error
    return TraceRequest(arrival, int(lengths[0]), int(lengths[1]))


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return datetime.fromisoformat(text).timestamp()
