"""The flags of a model that is given by its figures alone."""

import functools
from collections.abc import Callable
from typing import Any

import click

from servolt.errors import InvalidInputError

__all__ = ["figure_options"]


class _Number(click.ParamType[int]):
    """70B, 500M, or digits."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from servolt.sources.figures import parse_weights

        return value if isinstance(value, int) else parse_weights(value)


_OPTIONS = (
    click.option("--params", type=_Number(), help="In place of MODEL: so many weights, 70B; what isn't said is usual."),
    click.option("--active-params", type=_Number(), help="With --params: weights that one token passes."),
    click.option("--layers", type=_Number(), help="With --params."),
    click.option("--hidden-size", "--hidden", type=_Number(), help="With --params."),
    click.option("--heads", type=_Number(), help="With --params: of queries."),
    click.option("--kv-heads", type=_Number(), help="With --params: of keys and values."),
    click.option("--head-dim", type=_Number(), help="With --params."),
    click.option("--intermediate-size", type=_Number(), help="With --params: width of an MLP."),
    click.option("--vocab-size", "--vocab", type=_Number(), help="With --params."),
    click.option("--experts", type=_Number(), help="With --params: of one layer."),
    click.option("--experts-per-token", type=_Number(), help="With --params."),
    click.option("--context", type=_Number(), help="With --params: tokens that the model was trained for."),
)
_NAMES = (
    *("params", "active_params", "layers", "hidden_size", "heads", "kv_heads", "head_dim", "intermediate_size"),
    *("vocab_size", "experts", "experts_per_token", "context"),
)


def figure_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the flags; where they are given they make the command's `model`."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        given = {name: value for name in _NAMES if (value := kwargs.pop(name)) is not None}
        if given:
            kwargs["model"] = _named(given, kwargs.get("model"))
        return function(*args, **kwargs)

    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


def _named(given: dict[str, int], model: str | None) -> str:
    from servolt.sources.figures import name_of

    if "params" not in given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InvalidInputError(f"{flags} without --params.", "State how many weights there are: --params 70B.")
    if model is not None:
        raise InvalidInputError("the model is named twice.", "Give MODEL or --params, not both.")
    return name_of(given)
