"""A plan, as people read it."""

import shlex
from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType

from servolt.cli.tables import point, spread, table
from servolt.metrics import Estimate
from servolt.plan import Plan
from servolt.units import format_bytes

__all__ = ["plan_rows", "plan_shown"]

# What a reader decides by; the document holds the rest.
SHOWN = ("prefill_throughput", "decode_throughput", "output_throughput", "ttft", "tpot")
BAR = 44  # characters for the whole of the memory


def plan_rows(plan: Plan) -> list[dict[str, Any]]:
    return [estimate.model_dump(mode="json") for estimate in plan.estimates]


def plan_shown(plan: Plan) -> list[RenderableType]:
    parts: list[RenderableType] = [_head(plan), *_memory(plan), "", *_speed(plan)]
    parts += ["energy      not predicted: no power of this machine was measured"]
    parts += [f"bottleneck  {plan.bottleneck} at the first load   ({_shares(plan)})", f"basis       {plan.calibration}"]
    parts += [f"{problem.severity:11} {problem.message} {problem.remedy}" for problem in plan.warnings]
    if plan.command is not None and plan.verdict != "no":
        parts += ["", f"Run it:     servolt serve {_arguments(plan)}"]
    if plan.command is not None:
        parts += [f"Export:     servolt plan {_arguments(plan)} --export shell"]
    return parts


def _arguments(plan: Plan) -> str:
    """The deployment as this command line takes it, quoted for a shell."""
    deployment = plan.deployment
    words = [deployment.label]
    for name, value in deployment.model_dump(exclude={"schema_", "model", "quantization"}, exclude_none=True).items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        elif (name, value) != ("engine", "llamacpp"):
            words += [flag, str(value)]
    return shlex.join(words)


def _head(plan: Plan) -> str:
    version = f" {plan.engine_version}" if plan.engine_version else ""
    machine = plan.accelerator
    return (
        f"{plan.deployment.label} · {plan.model.quantization} · {plan.deployment.engine}{version} · "
        f"{machine.name}, {machine.count} cores, {plan.threads} threads"
    )


def _memory(plan: Plan) -> Iterator[RenderableType]:
    yield f"{plan.verdict.upper():11} " + " ".join(plan.reasons)
    memory = plan.memory
    rows = [
        [part.name, format_bytes(part.bytes), "█" * round(BAR * part.bytes / memory.total_bytes), part.formula]
        for part in memory.parts
    ]
    yield table(["  part", "size>", "", "from"], [[f"  {row[0]}", *row[1:]] for row in rows])
    yield (
        f"  KV cache: {memory.kv_bytes_per_token:,} B for each token; {memory.max_num_seqs} sequences of "
        f"{memory.max_model_len:,} tokens"
    )
    for fix in plan.fixes:
        yield f"  fix: {fix.text}"


def _speed(plan: Plan) -> Iterator[RenderableType]:
    lengths = f"{plan.workload.input_len} tokens in, {plan.workload.output_len} out"
    rows = []
    for load in plan.workload.points:
        here = [one for one in plan.estimates if (one.concurrency, one.request_rate) == tuple(load)]
        for metric in SHOWN:
            found = _chosen(here, metric)
            if found is not None:
                shown = spread(found.value, found.low, found.high, found.unit)
                rows.append([metric, point(*load), shown, found.basis])
    yield table([f"speed at {lengths}", "load", "predicted [90 % interval]>", "basis"], rows)


def _chosen(here: list[Estimate], metric: str) -> Estimate | None:
    """The median of latencies, where there is one."""
    named = [one for one in here if one.metric == metric]
    return next((one for one in named if one.statistic == "p50"), named[0] if named else None)


def _shares(plan: Plan) -> str:
    largest = sorted(plan.step, key=lambda term: -term.seconds)[:3]
    return ", ".join(f"{term.name} {term.share * 100:.0f} %" for term in largest)
