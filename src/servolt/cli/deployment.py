"""What the commands share: which deployment is meant, and the flags that change it."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from servolt import settings
from servolt.errors import InvalidInputError
from servolt.units import parse_bytes, parse_count

if TYPE_CHECKING:
    from servolt.deployment import Deployment
    from servolt.document import Document

__all__ = [
    "Count",
    "deployment_options",
    "names_document",
    "planned_options",
    "read_deployment",
    "read_file",
    "with_hardware",
    "yaml_of",
]

Kind = TypeVar("Kind", bound="Document")


class Count(click.ParamType[int]):
    """A whole number with vLLM's suffixes: 8k is 8,000 and 8K is 8,192."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_count(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Length(Count):
    """The same, or auto: as long as fits, where the engine finds that out by itself."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return "auto" if value in ("auto", "-1") else super().convert(value, param, ctx)


_OPTIONS = (
    click.option("--engine", help="llamacpp, or replay: a fake with a stated service law, for tests."),
    click.option("--engine-executable", metavar="PATH", help="An engine of your own, such as a llama-server."),
    click.option("--quantization", help="Which weights of the model: f16, q8_0."),
    click.option("--max-model-len", type=Length(), help="Context of one sequence, tokens; vLLM: auto, what fits."),
    click.option("--max-num-seqs", type=Count(), help="Sequences that run at the same time."),
    click.option("--max-num-batched-tokens", type=Count(), help="Tokens of one step."),
    click.option("--kv-cache-dtype", help="Data type of the KV cache: f16, q8_0."),
    click.option("--enable-prefix-caching/--no-enable-prefix-caching", default=None, help="Reuse known prefixes."),
    click.option("--threads", type=Count(), help="Threads of the engine; default: physical cores less one."),
    click.option("--dtype", help="Data type of weights and arithmetic: bfloat16, float16, float32."),
    click.option("--tensor-parallel-size", "--tp", type=Count(), help="Devices that share each layer."),
    click.option("--pipeline-parallel-size", "--pp", type=Count(), help="Groups of layers, one after the other."),
    click.option("--data-parallel-size", "--dp", type=Count(), help="Copies of the model."),
    click.option("--enable-expert-parallel", is_flag=True, default=None, help="Experts whole on each device."),
    click.option("--gpu-memory-utilization", type=float, help="vLLM: share of a device's memory."),
    click.option("--mem-fraction-static", type=float, help="SGLang: share for weights and KV pool."),
    click.option("--enforce-eager", is_flag=True, default=None, help="No CUDA graphs."),
    click.option("--block-size", type=Count(), help="Tokens of one KV block."),
    click.option("--n-gpu-layers", type=int, help="llama.cpp: layers on devices; -1 is all."),
    click.option("--cpu-offload-gb", type=float, help="GiB of each device's weights that stay on the host."),
)
_HARDWARE_OPTIONS = (
    click.option("--accelerator", metavar="NAME", help="Plan for this device, such as H100, in place of this machine."),
    click.option("--count", type=Count(), help="How many of them; default: as many as the parallelism needs."),
    click.option("--accelerator-memory", metavar="SIZE", help="Memory of one device, where it is known better: 79GiB."),
    click.option("--engine-version", metavar="VERSION", help="Plan for this version of the engine, such as 0.19.0."),
)


def deployment_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the flags of a deployment; the command gets those that were given as `flags`."""

    return _with_flags(function, _OPTIONS)


def planned_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same, and those of hardware that is not here."""
    return _with_flags(function, (*_OPTIONS, *_HARDWARE_OPTIONS))


def _with_flags(
    function: Callable[..., Any], options: tuple[Callable[[Callable[..., Any]], Callable[..., Any]], ...]
) -> Callable[..., Any]:
    before = set(_names(function))

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        given = {name: kwargs.pop(name) for name in names}
        return function(*args, flags={name: value for name, value in given.items() if value is not None}, **kwargs)

    for option in reversed(options):
        wrapped = option(wrapped)
    names = [name for name in _names(wrapped) if name not in before]
    return wrapped


def _names(function: Callable[..., Any]) -> list[str]:
    return [option.name or "" for option in getattr(function, "__click_params__", [])]


def read_deployment(name: str | None, flags: Mapping[str, Any]) -> "Deployment":
    """From NAME, NAME:QUANTIZATION, a GGUF path or a YAML or JSON file; flags and settings fill in the rest.

    Raises InvalidInputError.
    """
    from servolt.deployment import Deployment
    from servolt.sources import resolved

    wanted = name or settings.resolve("model").value
    path = Path(wanted).expanduser()
    chosen = with_hardware(flags)
    if names_document(wanted):
        written = read_file(Deployment, path).model_dump(exclude_none=True)
        if "hardware" in chosen:
            chosen["hardware"] = {**written.get("hardware", {}), **chosen["hardware"]}
        return resolved(Deployment.from_plain({**written, **chosen}))
    for setting in ("engine", "max_num_seqs", "max_model_len"):
        if setting not in chosen and (found := settings.resolve(setting)).origin != "default":
            chosen[setting] = found.value
    return resolved(Deployment.of(wanted, **chosen))


def names_document(name: str) -> bool:
    """Whether a name is that of a file with a deployment."""
    path = Path(name).expanduser()
    return path.suffix in (".yaml", ".yml", ".json") and not _is_config(path)


def with_hardware(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags as a deployment's fields."""
    fields = dict(flags)
    memory = fields.pop("accelerator_memory", None)
    hardware = {
        "accelerator": fields.pop("accelerator", None),
        "count": fields.pop("count", None),
        "memory_bytes": _size(memory) if memory else None,
    }
    if given := {name: value for name, value in hardware.items() if value is not None}:
        fields["hardware"] = given
    return fields


def _is_config(path: Path) -> bool:
    """Whether a JSON file is a model's config and no deployment: those have a model field, these say what they are."""
    try:
        start = path.read_bytes()[: 2**20]
    except OSError:
        return False
    return path.suffix == ".json" and any(word in start for word in (b'"model_type"', b'"architectures"'))


def _size(text: str) -> int:
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise InvalidInputError(f"{text!r} is no size of memory: {error}.", "Write it as 79GiB or 80GB.") from error


def yaml_of(path: Path) -> Any:
    """What a YAML or JSON file holds. Raises InvalidInputError."""
    from servolt.document import plain_of

    try:
        return plain_of(path.read_bytes())
    except OSError as error:
        raise InvalidInputError(f"{path} can't be read: {error.strerror}.", "Name a file that exists.") from error


def read_file(kind: type[Kind], path: Path) -> Kind:
    """A document as YAML or JSON. Raises InvalidInputError, which names the file."""
    try:
        return kind.from_plain(yaml_of(path))
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: {error.cause}", error.remedy) from error
