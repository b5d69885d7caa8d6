"""`servolt demo`."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from servolt import settings
from servolt.cli.output import Output, output_options, say
from servolt.cli.writable import check_writable
from servolt.deployment import Deployment
from servolt.errors import EngineError, NotValidError
from servolt.measurement import Measurement
from servolt.metrics import Estimate
from servolt.workload import Workload

__all__ = ["command"]

# One difference: the weights. f16 is the baseline, since it is what the model was trained to.
NAMES = ("guide:f16", "guide:q8_0")
# Ten blocks can decide eight changes at 5 %; with windows of 1.2 s all of it takes little more than a minute.
WORKLOAD = Workload(concurrency=(1, 4), input_len=64, output_len=64, duration_s=1.2, repetitions=10)
QUESTION = "What is TTFT?"
ANSWER_S = 30.0  # generous: an answer takes some 30 ms


@click.command()
@output_options
def command(out: Output) -> None:
    """Plan, serve, measure and compare two deployments of the built-in model on this machine, in about 90 s."""
    from servolt.cli.compared import comparison_rows, comparison_shown
    from servolt.compare import compare

    check_writable(out.file)
    deployments = [Deployment.of(name) for name in NAMES]
    _calibrate()
    before = _plan(deployments, "[2/5] plan      what the machine's speed says, before anything was measured")
    _serve()
    measurements = _measure(deployments)
    invalid = [one for one in measurements if one.validity.verdict == "invalid"]
    if invalid:
        flags = "; ".join(f"{flag.message} {flag.remedy}" for flag in invalid[0].validity.flags)
        raise NotValidError(f"measured, but not valid: {flags}", "Run the demo again on a quieter machine.")
    comparison = compare(measurements)
    say("[5/5] compare   what differs, by how much, and what was predicted\n")
    out.document(
        comparison,
        rows=comparison_rows(comparison),
        ids=[one.id[:12] for one in measurements],
        human=lambda: comparison_shown(comparison),
    )
    _next_plan(deployments[-1], before[-1])
    _next_commands(measurements)


def _calibrate() -> None:
    """Once for each machine: a second demo starts at once."""
    from servolt.study.doctor import calibrate
    from servolt.study.keep import read_accelerator

    folders = settings.folders()
    if read_accelerator(folders).bandwidth_bytes_per_s is None:
        say("[1/5] doctor    measures this machine with the engine itself, 5 to 8 s, once")
        calibrate(folders)
    machine = read_accelerator(folders)
    speeds = [f"{rate / 1e9:.0f} GFLOP/s {dtype}" for dtype, rate in sorted(machine.flops_per_s.items())]
    if machine.bandwidth_bytes_per_s is not None:
        speeds.insert(0, f"{machine.bandwidth_bytes_per_s / 1e9:.1f} GB/s")
    say(f"[1/5] doctor    {machine.name}, {machine.count} cores: {', '.join(speeds)}")


def _plan(deployments: Sequence[Deployment], title: str) -> list[dict[str, Estimate]]:
    from servolt.cli.tables import spread
    from servolt.study.plan import plan_here
    from servolt.units import format_bytes

    say(title)
    plans = [plan_here(deployment, WORKLOAD, settings.folders()) for deployment in deployments]
    shown = []
    for plan in plans:
        load = WORKLOAD.points[0]
        at = {one.metric: one for one in plan.estimates if one.concurrency == load.concurrency}
        decode = at["decode_throughput"]
        say(
            f"                {plan.deployment.label:10} {plan.verdict}: {format_bytes(plan.memory.total_bytes)}; "
            f"decode at {load}: {spread(decode.value, decode.low, decode.high, decode.unit)}, {decode.basis}"
        )
        shown.append(at)
    return shown


def _serve() -> None:
    """A gateway of its own, asked as any client would ask it."""
    import httpx2

    command = [sys.executable, "-m", "servolt", "serve", NAMES[-1], "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            if not line:
                _, words = server.communicate(timeout=ANSWER_S)
                raise EngineError(f"the gateway did not start: {words.strip()}", f"Try: servolt serve {NAMES[-1]}")
            url = json.loads(line)["url"]
            say(f"[3/5] serve     {NAMES[-1]} behind the Ollama and OpenAI APIs at {url}")
            body = {"model": NAMES[-1], "messages": [{"role": "user", "content": QUESTION}], "stream": False}
            answer = httpx2.post(f"{url}/api/chat", json=body, timeout=ANSWER_S).raise_for_status().json()
            say(f"                >>> {QUESTION}\n                {answer['message']['content']}")
        except httpx2.HTTPError as error:
            raise EngineError(f"the gateway did not answer: {error}.", f"Try: servolt serve {NAMES[-1]}") from error
        finally:
            server.terminate()


def _measure(deployments: Sequence[Deployment]) -> list[Measurement]:
    from servolt.cli.progress import shown_progress
    from servolt.study.side_by_side import measure_side_by_side

    load = WORKLOAD
    say(
        f"[4/5] measure   both side by side: {load.repetitions} blocks, windows of {load.duration_s:g} s "
        f"at 1 and 4 streams, {load.input_len} tokens in, {load.output_len} out"
    )
    with shown_progress("      measuring") as progress:
        stored = asyncio.run(measure_side_by_side(deployments, load, settings.folders(), on_step=progress))
    for one in stored:
        validity = one.measurement.validity
        flags = f" ({', '.join(flag.code for flag in validity.flags)})" if validity.flags else ""
        say(f"                {one.measurement.deployment.label:10} {validity.verdict}{flags}")
        say(f"                kept in {_from_home(one.path)}")
    return [one.measurement for one in stored]


def _from_home(path: Path) -> str:
    return f"~/{path.relative_to(Path.home())}" if path.is_relative_to(Path.home()) else str(path)


def _next_plan(deployment: Deployment, before: dict[str, Estimate]) -> None:
    say("")
    (after,) = _plan([deployment], "The next plan knows what was measured:")
    old, new = before["decode_throughput"], after["decode_throughput"]
    if old.low and old.high and new.low and new.high:
        widths = f"a factor of {old.high / old.low:.1f} wide and is {new.high / new.low:.1f} now"
        say(f"                its interval was {widths}")


def _next_commands(measurements: Sequence[Measurement]) -> None:
    path = Path(sys.argv[0])
    on_path = shutil.which("servolt")
    program = "servolt" if on_path and Path(on_path).samefile(path) else os.path.relpath(path)
    say("\nTry next:")
    for arguments, meaning in (
        ("run", "chat with guide"),
        ("serve", "the Ollama and OpenAI APIs on port 11434"),
        ("plan PATH.gguf", "does a model of yours fit here, and how fast"),
        ("measure PATH.gguf", "and what it really does"),
        (f"show {measurements[0].id[:8]} --recompute", "the same bytes again from the raw samples"),
    ):
        say(f"  {f'{program} {arguments}':46} {meaning}")
