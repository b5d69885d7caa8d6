"""The answer of a search, as people and as tables read it."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType

from servolt.cli.tables import labelled, quantity, spread, table
from servolt.deployment import Deployment
from servolt.plan.plan import Figure
from servolt.plan.search import Option, Search
from servolt.plan.search_answers import Answer
from servolt.units import format_bytes

__all__ = ["answer_rows", "answer_shown", "search_rows", "search_shown"]

SHOWN = (
    *("ttft", "tpot", "e2el", "output_throughput", "power", "energy_per_output_token"),
    *("cost_per_hour", "cost_per_million_output_tokens"),
)
FRONT = 12  # rows of the front that people see; documents and tables hold all
PARALLEL = (("tensor_parallel_size", "tp"), ("pipeline_parallel_size", "pp"), ("data_parallel_size", "dp"))


def search_rows(found: Search) -> list[dict[str, Any]]:
    """The choice first, then what was not chosen, the front, the nearest, and what to measure."""
    rows = [_row("choice", found.choice, " ".join(found.reasons))] if found.choice is not None else []
    rows += [_row(other.role, other.option, other.why) for other in found.others]
    rows += [_row("front", one, "") for one in found.front if one != found.choice]
    rows += [_row("nearest", one, "; ".join(one.breaks)) for one in found.nearest]
    return rows + [_row("measure", one.option, f"{one.command} ({one.why})") for one in found.measure]


def _row(kind: str, option: Option, why: str) -> dict[str, Any]:
    deployment = option.deployment
    cells: dict[str, Any] = {
        "row": kind,
        "accelerator": option.accelerator,
        "devices": option.devices,
        "engine": deployment.engine,
        "quantization": deployment.quantization,
        **{short: getattr(deployment, name) for name, short in PARALLEL},
        "expert_parallel": bool(deployment.enable_expert_parallel or deployment.expert_parallel_size),
        "kv_cache_dtype": deployment.kv_cache_dtype,
        "max_num_seqs": deployment.max_num_seqs,
        "speculation": _speculation(deployment),
        "concurrency": option.concurrency,
        "request_rate": option.request_rate,
        "chance": option.chance,
    }
    for name in SHOWN:
        figure = option.figures.get(name)
        cells[name] = figure.value if figure is not None else None
    cells["output_throughput_per_device"] = option.output_throughput_per_device
    return {**cells, "why": why}


def search_shown(found: Search) -> list[RenderableType]:
    return list(_search(found))


def _search(found: Search) -> Iterator[RenderableType]:
    counts = found.considered
    refused = sum(counts.refused.values())
    yield labelled(
        "searched",
        f"{counts.configurations:,} configurations of {found.model}: {refused:,} can't run, {counts.too_large:,} don't "
        f"fit, {counts.broken:,} break a bound, {counts.kept:,} keep all; best by {found.objective}, "
        f"{found.workload.input_len} tokens in, {found.workload.output_len} out",
    )
    if found.choice is not None:
        yield from _choice(found, found.choice)
    else:
        yield labelled("NOTHING", " ".join(found.reasons))
        yield from _options("nearest", found.nearest)
        for one in found.helps:
            yield labelled("help", one)


def _choice(found: Search, choice: Option) -> Iterator[RenderableType]:
    yield labelled("BEST", f"{_label(choice)}, at {_load(choice)}")
    for reason in found.reasons:
        yield labelled("  why", reason)
    rows = [[f"  {name}", _figure(choice.figures[name])] for name in SHOWN if name in choice.figures]
    yield table(["  predicted", "value [80 % interval]>"], rows)
    for other in found.others:
        yield labelled("  not", f"{_label(other.option)}, at {_load(other.option)}: {other.why}")
    for advice in found.measure:
        yield labelled("measure", f"{advice.command}   {advice.why}")
    if not found.measure:
        yield labelled("measure", "nothing: no measurement is expected to change this choice for the better")
    yield from _options("front", found.front[:FRONT])
    if len(found.front) > FRONT:
        yield f"  and {len(found.front) - FRONT} more: --json or --format csv prints all."


def _options(name: str, options: tuple[Option, ...]) -> Iterator[RenderableType]:
    rows = [
        [
            _label(one),
            _load(one),
            *(_value(one.figures, metric) for metric in ("ttft", "tpot", "output_throughput")),
            _value(one.figures, "cost_per_million_output_tokens"),
            _value(one.figures, "energy_per_output_token"),
            "; ".join(one.breaks),
        ]
        for one in options
    ]
    if rows:
        columns = [name, "load", "ttft>", "tpot>", "output>", "per M tokens>", "per token>", "breaks"]
        keep = [place for place in range(len(columns)) if any(row[place] for row in rows)]
        yield table([columns[place] for place in keep], [[row[place] for place in keep] for row in rows])


def _label(option: Option) -> str:
    deployment = option.deployment
    parts = [f"{option.devices} x {option.accelerator}", deployment.engine]
    parts += [deployment.quantization] if deployment.quantization else []
    parts += [f"{short} {size}" for name, short in PARALLEL if (size := getattr(deployment, name))]
    parts += ["ep"] if deployment.enable_expert_parallel or deployment.expert_parallel_size else []
    parts += [f"kv {deployment.kv_cache_dtype}"] if deployment.kv_cache_dtype else []
    parts += [f"max_num_seqs {deployment.max_num_seqs}"] if deployment.max_num_seqs else []
    parts += [said] if (said := _speculation(deployment)) else []
    return ", ".join(parts)


def _speculation(deployment: Deployment) -> str | None:
    """mtp 2 (1.4 accepted)."""
    one = deployment.speculative_config
    return None if one is None else f"{one.method} {one.num_speculative_tokens} ({one.acceptance:g} accepted)"


def _load(option: Option) -> str:
    return f"{option.request_rate:g}/s" if option.request_rate is not None else f"c={option.concurrency:g}"


def _figure(figure: Figure) -> str:
    return spread(figure.value, figure.low, figure.high, figure.unit)


def _value(figures: Mapping[str, Figure], name: str) -> str:
    return quantity(figures[name].value, figures[name].unit) if name in figures else ""


def answer_rows(answer: Answer) -> list[dict[str, Any]]:
    """The answer, and each place or model that it rests on."""
    rows = [_answer("answer", answer.accelerator, answer.devices, answer.value, answer.sentence)]
    rows += [
        _answer("place", one.accelerator, one.devices, one.usd_per_hour, f"{format_bytes(one.total_bytes)} of a device")
        for one in answer.places
    ]
    if answer.together is not None:
        rows += [
            _answer(one.deployment.label, answer.accelerator, answer.devices, one.takes_bytes, one.reason)
            for one in answer.together.residents
        ]
    return rows


def _answer(kind: str, accelerator: str | None, devices: int | None, value: Any, reason: str) -> dict[str, Any]:
    return {"row": kind, "accelerator": accelerator, "devices": devices, "value": value, "reason": reason}


def answer_shown(answer: Answer) -> list[RenderableType]:
    parts: list[RenderableType] = [answer.sentence]
    if answer.places:
        rows = [
            [
                f"{one.devices} x {one.accelerator}",
                "" if one.usd_per_hour is None else f"{one.usd_per_hour:.2f} USD/h",
                format_bytes(one.total_bytes),
                "" if one.available_bytes is None else format_bytes(one.available_bytes),
            ]
            for one in answer.places[:FRONT]
        ]
        parts.append(table(["fits", "price>", "takes>", "of>"], rows))
    if answer.together is not None:
        rows = [
            [one.deployment.label, one.deployment.engine, format_bytes(one.takes_bytes), one.reason]
            for one in answer.together.residents
        ]
        parts.append(table(["model", "engine", "takes>", "how"], rows))
    return parts
