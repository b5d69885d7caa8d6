"""From a row to the value that it stands for."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from servolt.catalogue.rows import Entry
from servolt.document import Value
from servolt.errors import InvalidInputError

__all__ = ["value_of"]

V = TypeVar("V", bound=Value)


def value_of(kind: type[V], entry: Entry, changes: Mapping[str, Any]) -> V:
    """Of the row's filled cells with `changes`; `verified` is yes or no in files.

    Raises InvalidInputError naming the row and what is wrong.
    """
    said = entry.row.get("verified")
    if said not in ("yes", "no"):
        raise InvalidInputError(f"{entry.where}: verified is {said!r}, neither yes nor no.", "Correct that row.")
    filled = {key: value for key, value in entry.row.items() if value not in ("", None)}
    try:
        return kind.model_validate({**filled, **changes, "verified": said == "yes"})
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise InvalidInputError(f"{entry.where}: {faults}.", "Correct that row.") from error
