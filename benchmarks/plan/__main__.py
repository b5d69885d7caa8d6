"""Predicted beside measured on this machine: `python -m benchmarks.plan`.

Resident memory and decode tokens/s of guide (f16, q8_0) and of a Llama with 100 M random weights (f16, q8_0), which is
made in the cache folder. The plans know the machine from a fresh `doctor --calibrate` and have seen no measurement.

All runs decide. Those while other programs used at most 12 % of the processors are counted beside them: on a busier
machine the engine's threads wait for a core, which no plan can know. A second set of plans, which has learnt from the
first round, is held against the other rounds.

The spreads that the model adds to its intervals (FORM_SPREAD, RUN_SPREADS) were set with earlier runs of this benchmark
on one machine. There it shows that nothing has become worse; a test of the intervals it is on another machine only.
"""

import argparse
import asyncio
import contextlib
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servolt import __version__, registry, settings
from servolt.deployment import Deployment
from servolt.gpu import Accelerator
from servolt.host import host_facts
from servolt.measure import LoadClient, Place, RawRun, RawWindow, Target, joined, measure_window, measurement_of
from servolt.measurement import Measurement, Window
from servolt.metrics import Estimate, Metrics
from servolt.model import Model
from servolt.plan import Calibration, Plan, make_plan, update
from servolt.serve.supervisor import Supervisor
from servolt.sources import find_model
from servolt.study.doctor import calibrate
from servolt.study.keep import read_accelerator, read_calibration
from servolt.study.probe import ProbeShape, write_probe
from servolt.workload import Workload

ENGINE = "llamacpp"
LLAMA_100M = ProbeShape(12, 768, 2048, 12, 4, 64, 16384, tied=False)
OUTPUT_LEN = 32  # so that a window of a few seconds holds whole requests of the 100 M model at 4 streams
SHARE_INSIDE = 0.9
MEMORY_ERROR = 0.1
FOREIGN_SHARE = 0.12  # as in `measure`
SHOWN = ("decode_throughput", "prefill_throughput", "ttft", "tpot", "output_throughput", "resident_memory")


@dataclass
class Candidate:
    deployment: Deployment
    model: Model
    supervisor: Supervisor
    target: Target
    plan: Plan
    learnt: Plan | None = None
    measured: list[Metrics] = field(default_factory=list)
    foreign: list[dict[int | None, float | None]] = field(default_factory=list)


def main() -> int:
    options = _options()
    workload = Workload(concurrency=tuple(options.concurrency), output_len=OUTPUT_LEN, duration_s=options.duration)
    home = settings.folders()
    home.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="benchmark-plan-", dir=home.cache) as room:
        folders = settings.folders({"SERVOLT_HOME": room})
        start = time.perf_counter()
        found = calibrate(folders)
        print(f"calibrated in {time.perf_counter() - start:.1f} s, spread {found.constants.spread:.2f}")
        candidates = asyncio.run(_measure(home.cache, folders, workload, options.rounds))
    report = [row for one in candidates for row in _rows(one, workload)]
    _print(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2))
    return 0 if _reached(report) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--duration", type=float, default=4.0, help="seconds of one window")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser.parse_args()


def _deployments(cache: Path) -> list[Deployment]:
    made = []
    for dtype in ("f16", "q8_0"):
        path = cache / f"llama-100m-{dtype}.gguf"
        if not path.is_file():
            part = path.with_suffix(".part")
            write_probe(part, LLAMA_100M, dtype)
            part.replace(path)
        made.append(Deployment(model=str(path), engine=ENGINE))
    return [Deployment.of("guide:f16"), Deployment.of("guide:q8_0"), *made]


async def _measure(cache: Path, folders: settings.Folders, workload: Workload, rounds: int) -> list[Candidate]:
    accelerator, calibration = read_accelerator(folders), read_calibration(folders)
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(LoadClient())
        candidates = [
            await _start(stack, deployment, folders, accelerator, workload, calibration)
            for deployment in _deployments(cache)
        ]
        for number in range(rounds):
            for one in candidates if number % 2 == 0 else candidates[::-1]:
                measurement = await _round(one, client, workload, accelerator, number)
                one.measured.append(Metrics(items=measurement.results))
                one.foreign.append({window.concurrency: _foreign_share(window) for window in measurement.windows})
                if number == 0:
                    calibration = update(calibration, measurement, overhead_bytes=_overhead(one.deployment, one.model))
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
        for one in candidates:
            one.learnt = _plan(one.deployment, one.model, accelerator, workload, calibration)
    return candidates


async def _start(
    stack: contextlib.AsyncExitStack,
    deployment: Deployment,
    folders: settings.Folders,
    accelerator: Accelerator,
    workload: Workload,
    calibration: Calibration,
) -> Candidate:
    model = find_model(deployment)
    engine = registry.engine(ENGINE)
    command = engine.command(deployment, model)
    supervisor = Supervisor(command, registry.launcher("process"), logs=folders.logs)
    stack.push_async_callback(supervisor.stop)
    server = await supervisor.ensure_ready()
    target = Target(
        url=server.url,
        model=deployment.label,
        api_key=supervisor.api_key,
        pid=server.pid,
        vocab_size=model.vocab_size,
        metrics_path=command.metrics_path,
        readings=engine.readings,
    )
    return Candidate(
        deployment, model, supervisor, target, _plan(deployment, model, accelerator, workload, calibration)
    )


def _plan(
    deployment: Deployment, model: Model, accelerator: Accelerator, workload: Workload, calibration: Calibration
) -> Plan:
    return make_plan(
        deployment,
        model,
        accelerator,
        workload,
        calibration,
        overhead=lambda changed: _overhead(changed, model),
        engine_version=registry.engine(ENGINE).version,
    )


def _foreign_share(window: Window) -> float | None:
    if window.foreign_cpu_s is None or window.usable_cores is None:
        return None
    return window.foreign_cpu_s / (window.usable_cores * (window.end_ns - window.start_ns) / 1e9)


def _overhead(deployment: Deployment, model: Model) -> int:
    return registry.engine(ENGINE).overhead(deployment, model)


async def _round(
    one: Candidate, client: LoadClient, workload: Workload, accelerator: Accelerator, number: int
) -> Measurement:
    origin = time.monotonic_ns()
    windows = [
        await measure_window(
            one.target, workload, point, Place(index, number, number, 0), client=client, meter=None, origin_ns=origin
        )
        for index, point in enumerate(workload.points)
    ]
    run = _run(one, workload, accelerator, windows)
    return measurement_of(
        run, joined([raw.requests for raw in windows]), joined([raw.events for raw in windows]), files=()
    )


def _run(one: Candidate, workload: Workload, accelerator: Accelerator, windows: Sequence[RawWindow]) -> RawRun:
    return RawRun(
        tool_version=__version__,
        created="1970-01-01T00:00:00Z",  # nothing of this is kept
        deployment=one.deployment,
        effective=one.supervisor.effective,
        engine=ENGINE,
        engine_version=registry.engine(ENGINE).version,
        model=one.model,
        accelerators=(accelerator,),
        host=host_facts(),
        workload=workload,
        windows=tuple(raw.window for raw in windows),
        meter_note="not asked for",
    )


def _rows(one: Candidate, workload: Workload) -> list[dict[str, Any]]:
    assert one.learnt is not None
    learnt = Metrics(items=one.learnt.estimates)
    return [_row(one, estimate, learnt) for estimate in one.plan.estimates if _is_shown(estimate)]


def _is_shown(estimate: Estimate) -> bool:
    return estimate.metric in SHOWN and estimate.statistic in (None, "p50")


def _row(one: Candidate, predicted: Estimate, learnt: Metrics) -> dict[str, Any]:
    shares = [share[predicted.concurrency] for share in one.foreign]
    runs = [(_value(results, predicted), share) for results, share in zip(one.measured, shares, strict=True)]
    known = [share for share in shares if share is not None]
    values = [value for value, _ in runs if value is not None]
    quiet = [value for value, share in runs if value is not None and share is not None and share <= FOREIGN_SHARE]
    later = learnt.get(predicted.metric, statistic=predicted.statistic, concurrency=predicted.concurrency)
    assert later is not None
    return {
        "model": Path(one.deployment.label).name,
        "metric": predicted.metric,
        "concurrency": predicted.concurrency,
        "predicted": predicted.value,
        "low": predicted.low,
        "high": predicted.high,
        "measured": statistics.median(values) if values else None,
        "runs": len(values),
        "inside": sum(_inside(value, predicted) for value in values),
        "quiet_runs": len(quiet),
        "quiet_inside": sum(_inside(value, predicted) for value in quiet),
        "foreign_share": statistics.median(known) if known else None,
        "learnt": later.value,
        "learnt_low": later.low,
        "learnt_high": later.high,
        "learnt_basis": later.basis,
        "learnt_runs": len(values[1:]),
        "learnt_inside": sum(_inside(value, later) for value in values[1:]),
        "values": values,
    }


def _value(results: Metrics, wanted: Estimate) -> float | None:
    found = results.get(wanted.metric, statistic=wanted.statistic, concurrency=wanted.concurrency)
    return None if found is None else found.value


def _inside(value: float, predicted: Estimate) -> bool:
    return predicted.low is not None and predicted.high is not None and predicted.low <= value <= predicted.high


def _print(report: Sequence[dict[str, Any]]) -> None:
    print(
        f"{'model':22} {'metric':19} {'c':>3} {'predicted':>10} {'low':>10} {'high':>10} {'measured':>10} {'error':>7}"
        f" {'inside':>7} {'quiet':>7} {'others':>6} | {'learnt':>10} {'low':>10} {'high':>10} {'inside':>7}"
    )
    for row in report:
        scale = 1e-6 if row["metric"] == "resident_memory" else 1e3 if row["metric"] in ("ttft", "tpot") else 1.0
        name = row["metric"] + {1e-6: " MB", 1e3: " ms", 1.0: ""}[scale]
        error = f"{row['predicted'] / row['measured'] - 1:+7.0%}" if row["measured"] else f"{'-':>7}"
        figures = " ".join(_shown(row[key], scale) for key in ("predicted", "low", "high", "measured"))
        later = " ".join(_shown(row[key], scale) for key in ("learnt", "learnt_low", "learnt_high"))
        print(
            f"{row['model']:22} {name:19} {row['concurrency']:3} {figures} {error}"
            f" {row['inside']:3}/{row['runs']:<3} {row['quiet_inside']:3}/{row['quiet_runs']:<3}"
            f" {'-' if row['foreign_share'] is None else format(row['foreign_share'], '.0%'):>6}"
            f" | {later} {row['learnt_inside']:3}/{row['learnt_runs']:<3}"
        )


def _shown(value: float | None, scale: float) -> str:
    return f"{'-':>10}" if value is None else f"{value * scale:10.2f}"


def _reached(report: Sequence[dict[str, Any]]) -> bool:
    """All runs of each model and load decide; a row without runs has shown nothing."""
    decode = [row for row in report if row["metric"] == "decode_throughput"]
    memory = [row for row in report if row["metric"] == "resident_memory"]
    inside = _mostly_inside(decode)
    errors = [abs(row["predicted"] / value - 1) for row in memory for value in row["values"]]
    complete = bool(memory) and all(row["values"] for row in memory)
    print(f"decode tokens/s inside the interval: {_counted(decode, 'inside', 'runs')} runs")
    print(f"  of the undisturbed ones: {_counted(decode, 'quiet_inside', 'quiet_runs')}")
    print(f"at least 9 of 10 runs of each model and load: {'yes' if inside else 'no'}")
    print(f"resident memory: largest error {max(errors, default=math.nan):.1%} (at most {MEMORY_ERROR:.0%} wanted)")
    print("the spreads behind the intervals were set with earlier runs of this benchmark on one machine")
    return inside and complete and max(errors) <= MEMORY_ERROR


def _mostly_inside(rows: Sequence[dict[str, Any]]) -> bool:
    return bool(rows) and all(row["runs"] and row["inside"] >= SHARE_INSIDE * row["runs"] for row in rows)


def _counted(rows: Sequence[dict[str, Any]], inside: str, runs: str) -> str:
    return f"{sum(row[inside] for row in rows)} of {sum(row[runs] for row in rows)}"


if __name__ == "__main__":
    sys.exit(main())
