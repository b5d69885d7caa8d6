"""How much a kilowatt-hour of a country's or a cloud region's grid emits."""

from functools import lru_cache
from pathlib import Path

from pydantic import Field

from servolt.catalogue.names import AmbiguousNameError, UnknownNameError
from servolt.catalogue.rows import Entry, entries, stamp
from servolt.catalogue.values import value_of
from servolt.document import Value

__all__ = ["GridIntensity", "grid_intensities", "grid_intensity", "grid_of"]


class GridIntensity(Value):
    """A year's mean."""

    region: str = Field(min_length=1, description="a country's ISO 3166-1 alpha-3 code, PROVIDER:REGION, or world")
    name: str
    aliases: tuple[str, ...] = ()
    gco2e_per_kwh: float = Field(ge=0)
    year: int | None = Field(None, description="of the measurement")
    source: str
    date: str
    verified: bool
    notes: str | None = None


def grid_intensity(region: str) -> GridIntensity:
    """By country (`DEU`, `de`, `Germany`) or cloud region (`aws:us-east-1`, `us-central1`).

    A country wins over a cloud region of the same name. Raises UnknownNameError and AmbiguousNameError.
    """
    index = _index(stamp("grid"))
    found = index.get(region.strip().casefold(), ())
    countries = [one for one in found if ":" not in one.region]
    chosen = countries or list(found)
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        raise AmbiguousNameError("grid", region, [one.region for one in chosen])
    import difflib

    near = difflib.get_close_matches(region.strip().casefold(), index, n=6, cutoff=0.6)
    names = list(dict.fromkeys(index[one][0].region for one in near))
    raise UnknownNameError("grid", region, names, "`servolt catalog list grid` prints them all.")


def grid_intensities() -> tuple[GridIntensity, ...]:
    """All, the user's own first. Raises InvalidInputError for a row that can't be used."""
    return _all(stamp("grid"))


@lru_cache(maxsize=2)
def _all(stamp: tuple[Path, int | None]) -> tuple[GridIntensity, ...]:
    return tuple(grid_of(entry) for entry in entries("grid"))


@lru_cache(maxsize=2)
def _index(stamp: tuple[Path, int | None]) -> dict[str, tuple[GridIntensity, ...]]:
    found: dict[str, tuple[GridIntensity, ...]] = {}
    for grid in _all(stamp):
        for spelling in dict.fromkeys(text.casefold() for text in (grid.region, grid.name, *grid.aliases)):
            found[spelling] = (*found.get(spelling, ()), grid)
    return found


def grid_of(entry: Entry) -> GridIntensity:
    """Raises InvalidInputError naming the row and what is wrong."""
    aliases = tuple(alias for alias in str(entry.row.get("aliases") or "").split(";") if alias)
    return value_of(GridIntensity, entry, {"aliases": aliases})
