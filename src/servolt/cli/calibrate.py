"""`servolt calibrate`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from servolt import settings
from servolt.cli.completion import complete_model
from servolt.cli.deployment import planned_options, read_file, with_hardware
from servolt.cli.output import Human, Output, hint, output_options
from servolt.errors import InvalidInputError
from servolt.units import format_bytes

if TYPE_CHECKING:
    from servolt.document import Problem
    from servolt.plan.known import KnownDeployments
    from servolt.study.learn import Lesson

__all__ = ["command"]

FILE = click.Path(dir_okay=False, path_type=Path)
Row = dict[str, Any]
GRAPHS = (
    "graph is what this version takes off the pool, its own estimate; graphs_taken is what they took once captured."
)


@click.command()
@click.argument("model", required=False, shell_complete=complete_model)
@click.option("--log", type=FILE, help="Learn from an engine's start-up log: vLLM, SGLang or llama.cpp.")
@click.option(
    "--import",
    "results",
    type=click.Path(path_type=Path),
    help="Learn from results: CSV, JSON, measurements of servolt, what vllm bench, sglang.bench_serving, llama-bench "
    "or GuideLLM wrote, or a folder of them.",
)
@click.option("--list", "listed", is_flag=True, help="List what is known.")
@click.option("--forget", multiple=True, metavar="ID", help="Drop what is known under this id, or all.")
@click.option("--unverified", is_flag=True, help="Of others: may widen intervals, and never narrows one.")
@click.option("--force", is_flag=True, help="Keep a log that contradicts its model or settings, as they are said.")
@click.option("--deployment", "deployment_file", type=FILE, help="The deployment as YAML or JSON, in place of MODEL.")
@planned_options
@output_options
def command(
    model: str | None,
    log: Path | None,
    results: Path | None,
    listed: bool,
    forget: tuple[str, ...],
    unverified: bool,
    force: bool,
    deployment_file: Path | None,
    flags: Mapping[str, Any],
    out: Output,
) -> None:
    """Learn from start-up logs and results, so that plans of deployments like theirs come closer.

    A log tells its deployment as far as it can; MODEL and the flags add what it leaves out. What this very deployment
    logged replaces the formulas' terms; what others logged or measured shifts them.
    """
    asked = {"--log": log is not None, "--import": results is not None, "--list": listed, "--forget": bool(forget)}
    chosen = [name for name, given in asked.items() if given]
    if len(chosen) != 1:
        which = " and ".join(chosen) + " exclude each other" if chosen else "nothing to learn from is named"
        raise InvalidInputError(f"{which}.", f"Give one of {', '.join(asked)}.")
    if log is not None:
        _learn(log, _given(model, deployment_file, flags), not unverified, force, out)
    elif results is not None:
        _import(results, _given(model, deployment_file, flags), not unverified, out)
    elif listed:
        _list(out)
    else:
        _forget(forget, out)


def _given(model: str | None, file: Path | None, flags: Mapping[str, Any]) -> dict[str, Any]:
    """What is said beside the log, and no defaults: the log knows better."""
    from servolt.deployment import Deployment

    if model and file:
        raise InvalidInputError("the deployment is named twice.", "Give MODEL or --deployment, not both.")
    written: dict[str, Any] = {}
    if file is not None:
        written = read_file(Deployment, file).model_dump(exclude_unset=True, exclude={"schema_"})
    elif model is not None:
        written = Deployment.of(model).model_dump(exclude_unset=True, exclude={"schema_"})
    return {**written, **with_hardware(flags)}


def _learn(path: Path, given: Mapping[str, Any], verified: bool, force: bool, out: Output) -> None:
    from servolt.study.learn import learn_log, read_text

    try:
        lesson = learn_log(
            read_text(path), settings.folders(), given=given, provenance=path.name, verified=verified, force=force
        )
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: {error.cause}", error.remedy) from error
    rows = _terms(lesson)

    def human() -> Human:
        from servolt.cli.tables import labelled, table

        cells = [[row["term"], *(_size(row, name) for name in ("predicted", "logged")), _ratio(row)] for row in rows]
        return [
            _headline(lesson),
            table(["term", "predicted>", "logged>", "ratio>"], cells),
            *([GRAPHS] if lesson.row.graphs_taken_bytes is not None and "graph" in lesson.row.terms else []),
            *(labelled(problem.severity, f"{problem.message} {problem.remedy}") for problem in lesson.problems),
        ]

    ids = [lesson.row.id]
    out.items("servolt.lesson/1", rows, ids=ids, human=human, warnings=lesson.problems)
    if not rows and out.for_people:
        hint("The log says how large the pool is and no more; VLLM_LOGGING_LEVEL=DEBUG makes vLLM tell every term.")


def _headline(lesson: "Lesson") -> str:
    where = lesson.row.conditions
    version = f" {where.engine_version}" if where.engine_version else ""
    return f"{lesson.row.id}  {where.model} · {where.engine}{version} · {where.devices} x {where.accelerator}"


def _terms(lesson: "Lesson") -> list[Row]:
    row = lesson.row
    rows = [
        {
            "id": row.id,
            "term": name,
            "predicted": term.predicted,
            "logged": term.bytes,
            "ratio": term.ratio,
            "unit": "bytes",
        }
        for name, term in row.terms.items()
    ]
    if row.graphs_taken_bytes is not None:
        taken = {"predicted": None, "logged": row.graphs_taken_bytes, "ratio": None, "unit": "bytes"}
        rows.append({"id": row.id, "term": "graphs_taken", **taken})
    if row.kv_cache_tokens is not None:
        ratio = row.kv_cache_tokens / row.predicted_tokens if row.predicted_tokens else None
        tokens = {"predicted": row.predicted_tokens, "logged": row.kv_cache_tokens, "ratio": ratio, "unit": "tokens"}
        rows.append({"id": row.id, "term": "kv_cache_tokens", **tokens})
    return rows


def _size(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    if value is None:
        return "not predicted"
    return f"{value:,}" if row["unit"] == "tokens" else format_bytes(value)


def _ratio(row: Mapping[str, Any]) -> str:
    return "" if row["ratio"] is None else f"{row['ratio']:.3f}"


def _import(path: Path, given: Mapping[str, Any], verified: bool, out: Output) -> None:
    from servolt.study.imported import Imported, read_results
    from servolt.study.learn import keep, now, read_text

    found = Imported((), (), ())
    for file in _files(path):
        try:
            one = read_results(read_text(file), date=now(), provenance=file.name, verified=verified, given=given)
        except InvalidInputError as error:
            raise InvalidInputError(f"{file}: {error.cause}", error.remedy) from error
        found = Imported(found.memory + one.memory, found.speeds + one.speeds, found.problems + one.problems)
    known = keep(settings.folders(), *found.memory, *found.speeds)
    _show(known, {*(one.id for one in found.memory), *(one.id for one in found.speeds)}, out, found.problems)


def _files(path: Path) -> "Sequence[Path]":
    """Of a folder all results: the measurements where servolt keeps its own there."""
    if not path.is_dir():
        return [path]
    found = sorted(path.rglob("measurement.json")) or sorted(
        file for file in path.rglob("*") if file.suffix in (".csv", ".json", ".jsonl")
    )
    if not found:
        raise InvalidInputError(f"{path} holds no results.", "Name a folder with CSV, JSON or JSON lines.")
    return found


def _list(out: Output) -> None:
    from servolt.study.learn import read_known

    known = read_known(settings.folders())
    _show(known, set(known.ids), out, ())


def _show(known: "KnownDeployments", ids: set[str], out: Output, problems: "Sequence[Problem]") -> None:
    rows = [row for row in _known_rows(known) if row["id"] in ids]

    def human() -> Human:
        from servolt.cli.tables import labelled, table

        if not rows:
            return "nothing is known yet: servolt calibrate --log FILE"
        columns = ["id", "date", "model", "engine", "accelerator", "what", "source"]
        return [
            table(columns, [[str(row[column]) for column in columns] for row in rows]),
            *(labelled(problem.severity, f"{problem.message} {problem.remedy}") for problem in problems),
        ]

    out.items("servolt.known_rows/1", rows, ids=[row["id"] for row in rows], human=human, warnings=problems)


def _known_rows(known: "KnownDeployments") -> list[Row]:
    rows = []
    for one in known.rows:
        where = one.conditions
        rows.append(
            {
                "id": one.id,
                "date": one.date[:10],
                "model": where.model,
                "engine": " ".join(filter(None, (where.engine, where.engine_version))),
                "accelerator": f"{where.devices} x {where.accelerator}",
                "what": one.said,
                "source": one.source if one.verified else f"{one.source}, unverified",
                "provenance": one.provenance,
            }
        )
    return sorted(rows, key=lambda row: (row["date"], row["id"]))


def _forget(beginnings: Sequence[str], out: Output) -> None:
    from servolt.study.learn import forget

    dropped = forget(settings.folders(), beginnings)
    rows = [{"id": one} for one in dropped]
    out.items("servolt.forgotten/1", rows, ids=dropped, human=lambda: f"forgotten: {' '.join(dropped) or 'nothing'}")
