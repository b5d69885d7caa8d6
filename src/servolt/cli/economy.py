"""The flags of prices, electricity and carbon."""

import functools
from collections.abc import Callable
from typing import Any

import click

__all__ = ["economy_options"]

AT_LEAST_0 = click.FloatRange(min=0)

_OPTIONS = (
    click.option(
        "--usd-per-hour", type=AT_LEAST_0, help="Rent of one device; default: the catalogue's cheapest on demand."
    ),
    click.option("--spot", is_flag=True, default=None, help="Spot prices of the catalogue."),
    click.option(
        "--capital-usd", type=AT_LEAST_0, help="Own hardware: price of one device with its share of a machine."
    ),
    click.option("--lifetime-years", type=click.FloatRange(min=0, min_open=True), help="It is written off over; 4."),
    click.option("--usd-per-kwh", type=AT_LEAST_0, help="Own hardware: electricity."),
    click.option("--pue", type=click.FloatRange(min=1), help="Power of the facility over that of the machines; 1."),
    click.option("--region", metavar="NAME", help="Grid of a country or a cloud region, for CO2: DEU, aws:us-east-1."),
    click.option(
        "--utilisation", type=click.FloatRange(0, 1, min_open=True), help="Share of the paid time under load; 1."
    ),
)
_NAMES = ("usd_per_hour", "spot", "capital_usd", "lifetime_years", "usd_per_kwh", "pue", "region", "utilisation")


def economy_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the flags; the command gets those that were given as `costs`."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        given = {name: kwargs.pop(name) for name in _NAMES}
        return function(*args, costs={name: value for name, value in given.items() if value is not None}, **kwargs)

    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped
