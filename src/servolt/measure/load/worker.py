"""One process of the load client: `python -m servolt.measure.load.worker`. Jobs come on stdin, answers go to stdout.

A job is a line of JSON. The answers: a line when warm, and after the line that says stop a line with the counts and the
tables' bytes.
"""

import asyncio
import gc
import resource
import socket
import sys
from array import array
from typing import Any

import orjson

from servolt.measure.load.columns import EVENT_COLUMNS, UNKNOWN
from servolt.measure.load.load import Address, Load, Request
from servolt.measure.load.schedule import Schedule
from servolt.workload import LoadPoint, Workload

DESCRIPTORS = 65_536  # a stream is one; the usual soft limit of 1,024 would end at as many streams


async def _jobs() -> None:
    reader = asyncio.StreamReader(limit=2**20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        await _one(orjson.loads(line), reader)


async def _one(job: dict[str, Any], reader: asyncio.StreamReader) -> None:
    load: Load

    def warm() -> None:
        _say({"event": "warm", "failure": load.failure})

    schedule = Schedule(
        Workload.from_plain(job["workload"]),
        LoadPoint(*job["point"]),
        job["repetition"],
        job["model"],
        job["vocab_size"],
    )
    family, _, _, _, resolved = socket.getaddrinfo(job["host"], job["port"], type=socket.SOCK_STREAM)[0]
    address = Address(
        job["host"], job["port"], job["base"] + schedule.path, job["api_key"], family, (str(resolved[0]), job["port"])
    )
    load = Load(schedule, address, (job["worker"], job["workers"]), warm)
    gc.collect()
    gc.freeze()
    gc.disable()
    load.start()
    line = await reader.readline()
    stop: dict[str, Any] = orjson.loads(line) if line else {"end_ns": 0, "drain_s": 0.0}
    await load.stop(stop["end_ns"], stop["drain_s"])
    gc.enable()
    if line:  # else whoever asked is gone
        _hand_over(load.requests)


def _hand_over(requests: list[Request]) -> None:
    requests.sort(key=lambda request: (request.scheduled_ns, request.index))
    words = sorted({word for one in requests for word in (one.outcome, one.response.finish_reason) if word})
    codes = {word: code for code, word in enumerate(words)}
    rows, events = array("q"), array("q")
    for one in requests:
        rows.extend(_row(one, codes))
        response = one.response
        for t_ns, tokens, lag_ns in zip(response.times, response.tokens, one.lags, strict=True):
            events.extend((one.index, t_ns, tokens, UNKNOWN if lag_ns is None else lag_ns))
    _say({"event": "done", "requests": len(requests), "events": len(events) // len(EVENT_COLUMNS), "words": words})
    sys.stdout.buffer.write(rows.tobytes())
    sys.stdout.buffer.write(events.tobytes())
    sys.stdout.buffer.flush()


def _row(one: Request, codes: dict[str, int]) -> tuple[int, ...]:
    response = one.response
    known = (
        one.index, one.scheduled_ns, one.sent_ns, one.end_ns, response.n_in, response.n_out, response.cached,
        _ns(response.prefill_ms), _ns(response.decode_ms), response.status, int(response.cumulative),
        codes[one.outcome or ""], codes.get(response.finish_reason or ""),
    )  # fmt: skip
    return tuple(UNKNOWN if value is None else value for value in known)


def _ns(milliseconds: float | None) -> int | None:
    return None if milliseconds is None else round(milliseconds * 1e6)


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(answer) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if most == resource.RLIM_INFINITY else min(DESCRIPTORS, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    try:
        import uvloop
    except ImportError:  # no wheel for this platform: the standard loop does the same, slower
        asyncio.run(_jobs())
    else:
        uvloop.run(_jobs())


if __name__ == "__main__":
    main()
