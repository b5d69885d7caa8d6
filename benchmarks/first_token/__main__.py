"""How long `servolt run guide "What is TTFT?"` takes to its first token: `python -m benchmarks.first_token`.

The clock runs from the moment the process is started to the first byte on its stdout; stdout is a pipe.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

TARGET_S = 2.0
QUESTION = "What is TTFT?"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    figures: dict[str, list[float]] = {"servolt run": [], "servolt --help": []}
    for _ in range(options.repeats):  # interleaved, so that a busy moment hits both
        for name, command in (("servolt run", ["run", "guide", QUESTION]), ("servolt --help", ["--help"])):
            figures[name].append(_first_byte_s([sys.executable, "-m", "servolt", *command]))
    print(f"{'command':16} {'n':>3} {'min':>8} {'median':>8} {'max':>8}   target")
    for name, target in (("servolt run", f"<= {TARGET_S:.2f} s"), ("servolt --help", "<= 0.15 s")):
        seconds = figures[name]
        low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
        print(f"{name:16} {len(seconds):3} {low:6.2f} s {middle:6.2f} s {high:6.2f} s   {target}")
    if options.json:
        options.json.write_text(json.dumps({name: {"first_byte_s": values} for name, values in figures.items()}))
    return 0 if statistics.median(figures["servolt run"]) <= TARGET_S else 1


def _first_byte_s(command: list[str]) -> float:
    start = time.perf_counter()
    quiet = subprocess.DEVNULL  # `run` would put what stdin holds before the prompt
    with subprocess.Popen(command, stdin=quiet, stdout=subprocess.PIPE, stderr=quiet) as process:
        assert process.stdout is not None
        first = process.stdout.read(1)
        elapsed = time.perf_counter() - start
        process.stdout.read()
    if not first or process.returncode:
        raise SystemExit(f"{' '.join(command)} printed nothing or failed with {process.returncode}")
    return elapsed


if __name__ == "__main__":
    sys.exit(main())
