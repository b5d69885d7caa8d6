"""The flags of a workload, shared by `plan` and `measure`."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from servolt.cli.deployment import Count, read_file
from servolt.errors import InvalidInputError

if TYPE_CHECKING:
    from servolt.workload import Workload

__all__ = ["workload_options"]


def _levels(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    """1,4,16 as numbers."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no list of numbers such as 1,4,16", context, parameter) from error


_OPTIONS = (
    click.option(
        "--workload",
        "workload_file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="A workload as YAML or JSON.",
    ),
    click.option(
        "--concurrency", callback=_levels, metavar="N,N", help="Closed loop: streams in flight, one window each."
    ),
    click.option(
        "--request-rate", callback=_levels, metavar="R,R", help="Open loop: requests per second, one window each."
    ),
    click.option(
        "--arrival",
        type=click.Choice(["closed", "poisson", "constant", "burst", "gamma"]),
        help="When requests arrive.",
    ),
    click.option("--input-len", type=Count(), help="Prompt tokens of each request."),
    click.option("--output-len", type=Count(), help="Output tokens of each request."),
    click.option("--natural", is_flag=True, help="Let the model end its answers by itself."),
    click.option("--duration", "duration_s", type=float, help="Seconds of each window."),
    click.option("--repetitions", type=click.IntRange(min=1), help="Windows at each level."),
    click.option("--seed", type=click.IntRange(min=0), help="Makes the same requests again."),
)
_NAMES = (
    "workload_file",
    "concurrency",
    "request_rate",
    "arrival",
    "input_len",
    "output_len",
    "natural",
    "duration_s",
    "repetitions",
    "seed",
)


def workload_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the flags of a workload; the command gets a `workload`."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        given = {name: kwargs.pop(name) for name in _NAMES}
        return function(*args, workload=_workload(given), **kwargs)

    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


def _workload(given: dict[str, Any]) -> "Workload":
    from servolt.workload import Workload

    file = given.pop("workload_file")
    fields = {name: value for name, value in given.items() if value is not None and value is not False}
    if fields.pop("natural", False):
        fields["length_control"] = "natural"
    if "concurrency" in fields and "request_rate" in fields:
        raise InvalidInputError("a load is closed or open, not both.", "Leave --concurrency or --request-rate out.")
    if "concurrency" in fields:
        fields["concurrency"] = [_whole(level) for level in fields["concurrency"]]
        fields.setdefault("arrival", "closed")
    elif "request_rate" in fields:
        fields.setdefault("arrival", "poisson")
    base = _beside(read_file(Workload, file), file).model_dump(exclude_unset=True) if file else {}
    said = {**base, **fields}
    if "concurrency" in fields or "request_rate" in fields:  # a flag's kind of load takes the place of the file's
        of_load = ("arrival", "concurrency", "request_rate", "max_concurrency", "burst_size", "arrival_cv", "trace")
        said = {name: value for name, value in said.items() if name not in of_load or name in fields}
    is_open = said.get("request_rate") or said.get("arrival", "closed") != "closed"
    return Workload.from_plain(said if is_open else {"concurrency": (1, 4), **said})


def _beside(workload: "Workload", file: Path) -> "Workload":
    """A trace is looked for beside the file that names it."""
    trace = workload.trace
    if trace is None or Path(trace.source).is_absolute() or not (file.parent / trace.source).exists():
        return workload
    return workload.model_copy(update={"trace": trace.model_copy(update={"source": str(file.parent / trace.source)})})


def _whole(level: float) -> int:
    if not level.is_integer():
        raise InvalidInputError(f"{level:g} streams are no whole number.", "--concurrency takes whole numbers: 1,4,16.")
    return int(level)
