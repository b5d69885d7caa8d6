"""What the commands share: which deployment is meant, and the flags that change it."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from servolt import settings
from servolt.errors import InvalidInputError
from servolt.units import parse_count

if TYPE_CHECKING:
    from servolt.deployment import Deployment
    from servolt.document import Document

__all__ = ["Count", "deployment_options", "read_deployment", "read_file"]

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


_OPTIONS = (
    click.option("--engine", help="llamacpp, or replay: a fake with a stated service law, for tests."),
    click.option("--engine-executable", metavar="PATH", help="An engine of your own, such as a llama-server."),
    click.option("--quantization", help="Which weights of the model: f16, q8_0."),
    click.option("--max-model-len", type=Count(), help="Context of one sequence, tokens."),
    click.option("--max-num-seqs", type=Count(), help="Sequences that run at the same time."),
    click.option("--max-num-batched-tokens", type=Count(), help="Tokens of one step."),
    click.option("--kv-cache-dtype", help="Data type of the KV cache: f16, q8_0."),
    click.option("--enable-prefix-caching/--no-enable-prefix-caching", default=None, help="Reuse known prefixes."),
    click.option("--threads", type=Count(), help="Threads of the engine; default: physical cores less one."),
)
_NAMES = (
    "engine",
    "engine_executable",
    "quantization",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "kv_cache_dtype",
    "enable_prefix_caching",
    "threads",
)


def deployment_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the flags of a deployment; the command gets those that were given as `flags`."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        given = {name: kwargs.pop(name) for name in _NAMES}
        return function(*args, flags={name: value for name, value in given.items() if value is not None}, **kwargs)

    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


def read_deployment(name: str | None, flags: Mapping[str, Any]) -> "Deployment":
    """From NAME, NAME:QUANTIZATION, a GGUF path or a YAML or JSON file; flags and settings fill in the rest.

    Raises InvalidInputError.
    """
    from servolt.deployment import Deployment
    from servolt.sources import resolved

    wanted = name or settings.resolve("model").value
    path = Path(wanted).expanduser()
    if path.suffix in (".yaml", ".yml", ".json"):
        written = read_file(Deployment, path)
        return resolved(Deployment.from_plain({**written.model_dump(exclude_none=True), **flags}))
    chosen = dict(flags)
    for setting in ("engine", "max_num_seqs", "max_model_len"):
        if setting not in chosen and (found := settings.resolve(setting)).origin != "default":
            chosen[setting] = found.value
    return resolved(Deployment.of(wanted, **chosen))


def read_file(kind: type[Kind], path: Path) -> Kind:
    """A document as YAML or JSON. Raises InvalidInputError, which names the file."""
    try:
        return kind.from_yaml(path.read_bytes())
    except OSError as error:
        raise InvalidInputError(f"{path} can't be read: {error.strerror}.", "Name a file that exists.") from error
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: {error.cause}", error.remedy) from error
