"""What the gateway costs: `python benchmarks/gateway`, or with --quick for a look, --json FILE for the figures.

Every figure of a relay stands beside the same load on the upstream itself, taken right before or after it. CPU time is
that of the relay's own process tree; wall times on a busy machine say little, CPU times more.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.gateway.rig import Rig
from benchmarks.gateway.throughput import throughput

TARGETS = {
    "CPU us per unary request": 250.0,
    "CPU us per relayed SSE event": 40.0,
    "CPU us per translated NDJSON event": 40.0,
    "added TTFT p50, ms": 1.0,
}
THROUGHPUT_TARGET = 0.98  # of the engine asked directly

FOREIGN_CORES = 0.12  # above this, runs minutes apart have differed by more than the gateway can cost

TOKENS = 200  # of one stream
STREAMS = 32
UNARY_TOKENS = 16
CONNECTIONS = 16


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="two repeats, short runs")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    asked = parser.parse_args()
    repeats, scale = (2, 0.25) if asked.quick else (asked.repeats, 1.0)
    with Rig() as rig:
        columns = ["servolt", *(["nginx"] if rig.nginx else [])]
        if not rig.nginx:
            print("nginx is not installed: no column for it (apt install nginx).", file=sys.stderr)
        rows = {
            name: {column: values(rig, column, repeats, scale) for column in columns if column in able}
            for name, (values, able) in MEASURES.items()
        }
    pairs = asyncio.run(throughput(repeats, seconds=4.0 * scale if asked.quick else 4.0))
    print_table(rows, columns, pairs)
    if asked.json:
        asked.json.write_text(json.dumps(report(rows, pairs), indent=2) + "\n")
    return 0 if passed(rows, pairs) else 1


def unary(rig: Rig, column: str, repeats: int, scale: float) -> list[float]:
    """CPU microseconds a request: 16 tokens that the upstream sends in one write."""
    requests = round(4000 * scale)
    return [
        rig.cpu_us(column, "burst", "/v1/chat/completions", requests, max_tokens=UNARY_TOKENS, streams=CONNECTIONS)
        for _ in range(repeats)
    ]


def relayed(rig: Rig, column: str, repeats: int, scale: float) -> list[float]:
    return _events(rig, column, "/v1/chat/completions", repeats, scale)


def translated(rig: Rig, column: str, repeats: int, scale: float) -> list[float]:
    return _events(rig, column, "/api/chat", repeats, scale)


def _events(rig: Rig, column: str, path: str, repeats: int, scale: float) -> list[float]:
    """CPU microseconds an event, with the requests' own cost in it: 32 streams of 200 tokens, 5 ms apart."""
    requests = max(STREAMS, round(4 * STREAMS * scale))
    return [
        rig.cpu_us(column, "paced", path, requests, max_tokens=TOKENS, streams=STREAMS) / TOKENS for _ in range(repeats)
    ]


def added_ttft(rig: Rig, column: str, repeats: int, scale: float) -> list[float]:
    """Milliseconds: medians of the relay's time to first token less those of the upstream, pair by pair."""
    requests = round(80 * scale)

    def p50_ms(name: str) -> float:
        seen = rig.load(name, "paced", "/v1/chat/completions", requests=requests, max_tokens=4, streams=1)
        return float(median(seen["ttft_s"])) * 1e3

    pairs = [(p50_ms(column), p50_ms("direct")) for _ in range(repeats)]
    return [relay - direct for relay, direct in pairs]


Measure = Callable[[Rig, str, int, float], list[float]]
MEASURES: dict[str, tuple[Measure, tuple[str, ...]]] = {
    "CPU us per unary request": (unary, ("servolt", "nginx")),
    "CPU us per relayed SSE event": (relayed, ("servolt", "nginx")),
    "CPU us per translated NDJSON event": (translated, ("servolt",)),
    "added TTFT p50, ms": (added_ttft, ("servolt", "nginx")),
}


def print_table(rows: dict[str, dict[str, list[float]]], columns: list[str], pairs: dict[str, list[float]]) -> None:
    """Median, and the lowest and highest of the repeats."""
    print(f"{'':36}" + "".join(f"{column:>26}" for column in columns) + f"{'target':>12}")
    for name, cells in rows.items():
        line = "".join(f"{_cell(cells[column]) if column in cells else '-':>26}" for column in columns)
        print(f"{name:36}{line}{f'<= {TARGETS[name]:g}':>12}")
    rest = "".join(f"{'-':>26}" for _ in columns[1:])
    print(f"{'tokens/s through / direct':36}{_cell(pairs['ratio'], 3):>26}{rest}{f'>= {THROUGHPUT_TARGET}':>12}")
    direct = median(pairs["direct"])
    print(
        f"Throughput: guide:q8_0, 16 streams, {direct:,.0f} tokens/s direct, {len(pairs['ratio'])} interleaved pairs."
    )


def _cell(values: list[float], digits: int = 2) -> str:
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}..{max(values):.{digits}f})"


def passed(rows: dict[str, dict[str, list[float]]], pairs: dict[str, list[float]]) -> bool:
    below = all(median(rows[name]["servolt"]) <= target for name, target in TARGETS.items())
    return below and median(pairs["ratio"]) >= THROUGHPUT_TARGET


def report(rows: dict[str, dict[str, list[float]]], pairs: dict[str, list[float]]) -> dict[str, Any]:
    names = ("uvicorn", "uvloop", "httptools", "orjson", "msgspec", "xllamacpp")
    return {
        "schema": "servolt.benchmark.gateway/1",
        "machine": {"architecture": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()},
        "versions": {name: version(name) for name in names},
        "load": {"streams": STREAMS, "tokens": TOKENS, "unary_tokens": UNARY_TOKENS, "connections": CONNECTIONS},
        "figures": rows,
        "targets": TARGETS | {"throughput_ratio": THROUGHPUT_TARGET},
        "throughput": pairs,
    }


if __name__ == "__main__":
    sys.exit(main())
