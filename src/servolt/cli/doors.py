"""What `servolt plan` takes beside a name, and prints beside a plan: saved plans, links, tables, a second plan."""

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from servolt.cli.deployment import names_document, read_deployment, read_file, with_hardware
from servolt.errors import InvalidInputError

if TYPE_CHECKING:
    from servolt.deployment import Deployment
    from servolt.workload import Workload

__all__ = ["Doors", "asked", "asked_against", "door_options", "said_load"]

FILE = click.Path(dir_okay=False, path_type=Path)
MAX_PLAN_BYTES = 16 * 2**20  # a plan with many load points has some 200 KB
SCHEMA = "servolt.plan/1"
LINK = "servolt://"

_OPTIONS = (
    click.option("--from", "from_file", type=FILE, help="Plan again what a saved plan (-o plan.json) was for."),
    click.option("--explain", is_flag=True, help="Print each figure's formula with its values."),
    click.option("--link", is_flag=True, help="Print the deployment and the workload as a link, which MODEL can be."),
    click.option("--against", metavar="MODEL", help="Compare with this one: a name, a file, a saved plan or a link."),
    click.option("--batch", type=FILE, help="Plan each row of a CSV file; columns are fields. -o names the answer."),
)


class Doors(NamedTuple):
    from_file: Path | None
    explain: bool
    link: bool
    against: str | None
    batch: Path | None


def door_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the flags; the command gets them as `doors`."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        doors = Doors(*(kwargs.pop(name) for name in Doors._fields))
        export = "--export" if kwargs.get("export") else None
        forms = {"--explain": doors.explain, "--link": doors.link, "--against": doors.against, "--batch": doors.batch}
        given = [name for name, value in forms.items() if value] + ([export] if export else [])
        if len(given) > 1:
            raise InvalidInputError(f"{' and '.join(given)} exclude each other.", "Leave all but one of them out.")
        return function(*args, doors=doors, **kwargs)

    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


def asked(
    name: str | None, flags: Mapping[str, Any], workload: "Workload", doors: Doors | None = None
) -> "tuple[Deployment, Workload]":
    """What is to be planned: by name or file, by a saved plan, or by a link. Flags win over what those hold."""
    if doors is not None and doors.from_file is not None:
        if name is not None:
            raise InvalidInputError("the deployment is named twice.", "Give MODEL or --from, not both.")
        return _changed(*_saved(doors.from_file), flags, workload)
    if name is not None and name.startswith(LINK):
        from servolt.plan.link import read_link

        return _changed(*read_link(name), flags, workload)
    if name is not None and name.endswith(".json") and (plain := _plan_in(Path(name).expanduser())) is not None:
        return _changed(*_parts(plain), flags, workload)
    return read_deployment(name, flags), workload


# What holds for a second deployment on another engine too; all else is one engine's own.
OF_ANY_ENGINE = frozenset(
    {
        *("quantization", "dtype", "kv_cache_dtype", "hardware", "max_model_len", "max_num_seqs"),
        *("max_num_batched_tokens", "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"),
        *("enable_prefix_caching", "enforce_eager", "enable_lora", "max_loras", "max_lora_rank"),
        *("limit_mm_per_prompt", "trust_remote_code"),
    }
)
OF_ONE_MODEL = frozenset({"speculative_config", "served_model_name", "tensor_split", "override_tensor"})


def asked_against(
    name: str, flags: Mapping[str, Any], workload: "Workload", first: "Deployment"
) -> "tuple[Deployment, Workload]":
    """The second deployment: what it doesn't say is as in the first, engine and hardware included.

    A saved plan and a link say all there is.
    """
    from servolt.deployment import Deployment
    from servolt.sources import resolved

    if name.startswith(LINK) or (name.endswith(".json") and _plan_in(Path(name).expanduser()) is not None):
        return asked(name, flags, workload)
    other = read_file(Deployment, Path(name).expanduser()) if names_document(name) else Deployment.of(name)
    said = other.model_dump(exclude_unset=True, exclude_none=True)
    said |= {key: value for key, value in with_hardware(flags).items() if key != "hardware"}
    held = {
        key: value
        for key, value in first.model_dump(exclude_unset=True, exclude_none=True).items()
        if (said.get("engine", first.engine) == first.engine or key in OF_ANY_ENGINE)
        and (said["model"] == first.model or key not in OF_ONE_MODEL)
    }
    hardware = _held_hardware(held.get("hardware", {}), said.get("hardware", {}))
    hardware |= with_hardware(flags).get("hardware", {})
    merged = {**held, **said, **({"hardware": hardware} if hardware else {})}
    return resolved(Deployment.from_plain(merged)), workload


def _held_hardware(first: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """Another device has another memory."""
    is_other = said.get("accelerator", first.get("accelerator")) != first.get("accelerator")
    return {key: value for key, value in first.items() if not is_other or not key.endswith("memory_bytes")} | dict(said)


def _saved(path: Path) -> "tuple[Deployment, Workload]":
    try:
        plain = _plan_in(path)
    except OSError as error:
        raise InvalidInputError(f"{path} can't be read: {error.strerror}.", "Name a file that exists.") from error
    if plain is None:
        raise InvalidInputError(
            f"{path} {'holds no plan' if path.exists() else 'is not there'}.",
            "`servolt plan MODEL -o plan.json` writes one.",
        )
    try:
        return _parts(plain)
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: {error.cause}", error.remedy) from error


def _plan_in(path: Path) -> dict[str, Any] | None:
    """None for a file that is not there, and for one that holds something else."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_PLAN_BYTES + 1)
        plain = json.loads(text) if len(text) <= MAX_PLAN_BYTES and SCHEMA.encode() in text[:4096] else None
    except (OSError, ValueError, RecursionError):
        return None
    return plain if isinstance(plain, dict) and plain.get("schema") == SCHEMA else None


def _parts(plain: Mapping[str, Any]) -> "tuple[Deployment, Workload]":
    """Only what was asked is read, so that a plan of another version can be planned again."""
    from servolt.deployment import Deployment
    from servolt.workload import Workload

    deployment = dict(plain.get("deployment") or {})
    hardware = deployment.get("hardware")
    planned = (plain.get("accelerator") or {}).get("count")
    if isinstance(hardware, dict) and hardware.get("count") != planned:
        # Nobody said the count: it followed the parallelism, and stands in the file as its default.
        deployment["hardware"] = {key: value for key, value in hardware.items() if key != "count"}
    return Deployment.from_plain(deployment), Workload.from_plain(plain.get("workload"))


def _changed(
    deployment: "Deployment", workload: "Workload", flags: Mapping[str, Any], given: "Workload"
) -> "tuple[Deployment, Workload]":
    from servolt.deployment import Deployment

    changes = with_hardware(flags)
    if changes:
        plain = deployment.model_dump(exclude_unset=True, exclude_none=True)
        if "hardware" in changes:
            changes["hardware"] = {**plain.get("hardware", {}), **changes["hardware"]}
        deployment = Deployment.from_plain({**plain, **changes})
    return deployment, _other_load(workload, given)


def _other_load(workload: "Workload", given: "Workload") -> "Workload":
    """Those of its fields that were said on the command line replace the saved ones."""
    from servolt.workload import Workload

    said = said_load(given)
    return Workload.from_plain({**workload.model_dump(exclude={"schema_"}), **said}) if said else workload


def said_load(given: "Workload") -> dict[str, Any]:
    """The fields of a workload that the command line names, by flags or in a file."""
    from servolt.workload import Workload

    context = click.get_current_context()
    said = {
        name for name in context.params if context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE
    }
    names = {"length_control" if name == "natural" else name for name in said} & set(Workload.model_fields)
    if "workload_file" in said:
        names = set(Workload.model_fields) - {"schema_"}
    if names & {"concurrency", "request_rate", "arrival"}:
        names |= {"concurrency", "request_rate", "arrival"}
    return {name: getattr(given, name) for name in names}
