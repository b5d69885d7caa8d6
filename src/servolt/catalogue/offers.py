"""What an hour of an accelerator costs, as providers listed it on a date."""

from functools import lru_cache
from pathlib import Path

from pydantic import Field

from servolt.catalogue.hardware import find_accelerator
from servolt.catalogue.rows import Entry, entries, stamp
from servolt.catalogue.values import value_of
from servolt.document import Value
from servolt.errors import InvalidInputError

__all__ = ["Price", "price_of", "prices"]


class Price(Value):
    """One offer: a whole machine for an hour."""

    provider: str = Field(min_length=1)
    instance: str = Field(min_length=1)
    accelerator: str = Field(description="the catalogue's name of it")
    count: int = Field(ge=1)
    usd_per_hour: float = Field(gt=0, description="on demand")
    spot_usd_per_hour: float | None = Field(None, gt=0, description="while the provider can spare it")
    region: str = Field(min_length=1)
    source: str
    date: str
    verified: bool
    notes: str | None = None

    @property
    def usd_per_accelerator_hour(self) -> float:
        return self.usd_per_hour / self.count


def prices(accelerator: str | None = None) -> tuple[Price, ...]:
    """Of one accelerator under any of its names, or all; the cheapest per accelerator first.

    Raises UnknownNameError or AmbiguousNameError for the name, and InvalidInputError for a row that can't be used.
    """
    found = _all(stamp("prices"))
    if accelerator is None:
        return found
    wanted = find_accelerator(accelerator).name
    return tuple(price for price in found if price.accelerator == wanted)


@lru_cache(maxsize=2)
def _all(stamp: tuple[Path, int | None]) -> tuple[Price, ...]:
    return tuple(sorted((price_of(entry) for entry in entries("prices")), key=lambda one: one.usd_per_accelerator_hour))


@lru_cache(maxsize=2)
def _names(stamp: tuple[Path, int | None]) -> frozenset[str]:
    return frozenset(entry.row["name"] for entry in entries("accelerators"))


def _full_name(name: str) -> str:
    """The shipped rows use full names, so that no search is needed."""
    return name if name in _names(stamp("accelerators")) else find_accelerator(name).name


def price_of(entry: Entry) -> Price:
    """With the accelerator under the catalogue's name. Raises InvalidInputError naming the row and what is wrong."""
    try:
        name = _full_name(str(entry.row.get("accelerator") or ""))
    except InvalidInputError as error:
        raise InvalidInputError(f"{entry.where}: {error.cause}", error.remedy) from error
    return value_of(Price, entry, {"accelerator": name})
