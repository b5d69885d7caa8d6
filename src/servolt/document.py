"""Values that are written down: frozen, JSON and YAML both ways, named by a `schema` field.

A document is a pydantic model with a field `schema_: Literal["servolt.NAME/1"]`, which reads and writes as `schema`.
"""

import difflib
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from servolt.errors import InvalidInputError

__all__ = ["Document", "Problem", "Value", "canonical_json", "digest", "plain_of"]

FAULTS_NAMED = 5  # of a file that does not fit: enough to mend it, or to see that it is another kind of file


class Value(BaseModel):
    """A frozen part of a document. Unknown keys are refused and NaN is no number."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )


class Document(Value):
    """A value that stands in a file of its own."""

    def to_json(self) -> str:
        """Indented JSON with a final line feed; unset fields are null."""
        return self.model_dump_json(indent=2) + "\n"

    def to_yaml(self) -> str:
        """YAML in the order of the fields, without the nulls that are a field's default."""
        return yaml.safe_dump(_spoken(self), sort_keys=False, allow_unicode=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Raises InvalidInputError that names each field that does not fit."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise _refusal(cls, error) from error

    @classmethod
    def from_yaml(cls, text: str | bytes) -> Self:
        """JSON is YAML, so this reads both. Raises InvalidInputError."""
        return cls.from_plain(plain_of(text))

    @classmethod
    def from_plain(cls, plain: Any) -> Self:
        """From what a JSON or YAML parser returned. Raises InvalidInputError."""
        try:
            return cls.model_validate(plain)
        except ValidationError as error:
            raise _refusal(cls, error) from error


class Problem(Value):
    """A warning as a value: what is wrong and what to do about it. Kept in the result that it is about."""

    code: str
    severity: Literal["error", "warning", "note"]
    message: str
    remedy: str


def plain_of(text: str | bytes) -> Any:
    """What YAML or JSON says. Raises InvalidInputError.

    JSON is read as such: its 1e5 is a number, and YAML's is a word.
    """
    try:
        return _json_or_yaml(text)
    except yaml.YAMLError as error:
        raise InvalidInputError(f"not YAML: {' '.join(str(error).split())}.", "Correct the file.") from error
    except RecursionError as error:
        raise InvalidInputError(
            "its parts are nested too deep to be read.", "No document here is nested more than 10 deep."
        ) from error


def _json_or_yaml(text: str | bytes) -> Any:
    if text[:1024].lstrip()[:1] in ("{", "[", b"{", b"["):
        try:
            return json.loads(text)
        except ValueError:
            pass  # flow style of YAML begins so too
    return yaml.safe_load(text)


def canonical_json(plain: Any) -> bytes:
    """One spelling for one value: sorted keys, no spaces, floats to 12 significant digits, 2.0 as 2.

    >>> canonical_json({"b": 2.0, "a": 0.1 + 0.2})
    b'{"a":0.3,"b":2}'
    """
    return json.dumps(_canonical(plain), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(plain: Any) -> str:
    """sha256 of the canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(plain)).hexdigest()


def _spoken(part: Any) -> Any:
    """Plain values of what is set. A null that has to be said, since its field has no default, stays."""
    if isinstance(part, BaseModel):
        fields = type(part).model_fields
        named = {fields[name].alias or name if name in fields else name: (name, value) for name, value in part}
        return {
            key: _spoken(value)
            for key, (name, value) in named.items()
            if value is not None or name not in fields or fields[name].is_required()
        }
    if isinstance(part, Mapping):
        return {str(key): _spoken(value) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return [_spoken(value) for value in part]
    return part


def _canonical(plain: Any) -> Any:
    if isinstance(plain, float):
        rounded = float(f"{plain:.12g}")
        return int(rounded) if rounded.is_integer() else rounded
    if isinstance(plain, dict):
        return {str(key): _canonical(value) for key, value in plain.items()}
    if isinstance(plain, list | tuple):
        return [_canonical(value) for value in plain]
    return plain


def _refusal(cls: type[BaseModel], error: ValidationError) -> InvalidInputError:
    other = _other_schema(error)
    if other is not None:
        return other
    faults = [_in_words(fault, cls) for fault in error.errors(include_url=False)]
    more = f"; and {len(faults) - FAULTS_NAMED} more" if len(faults) > FAULTS_NAMED else ""
    name = cls.__name__.lower()
    return InvalidInputError(
        f"not a valid {name}: {'; '.join(faults[:FAULTS_NAMED])}{more}.",
        f"`servolt schema {name}` prints what a {name} holds.",
    )


def _in_words(fault: ErrorDetails, cls: type[BaseModel]) -> str:
    """Where it is and what it is; of the whole file only what it is."""
    where = ".".join(map(str, fault["loc"]))
    said = {
        "missing": "is missing",
        "extra_forbidden": f"is none of its fields{_nearest(fault, cls)}",
        "model_type": "is empty" if fault["input"] is None else "holds no names with values",
    }.get(fault["type"], fault["msg"].removeprefix("Value error, ").removeprefix("Input "))
    if where:
        return f"{where} {said}" if said.startswith(("is ", "holds ", "should ")) else f"{where}: {said}"
    return f"it {said}" if fault["type"] == "model_type" else said


def _nearest(fault: ErrorDetails, cls: type[BaseModel]) -> str:
    if len(fault["loc"]) != 1:
        return ""
    near = difflib.get_close_matches(str(fault["loc"][0]), cls.model_fields, n=2, cutoff=0.7)
    return f" (the nearest: {', '.join(near)})" if near else ""


def _other_schema(error: ValidationError) -> InvalidInputError | None:
    """Where a file says itself that it is of another kind, or of another number, its fields' faults are no news."""
    fault = next((fault for fault in error.errors() if fault["loc"][-1:] == ("schema",) and "ctx" in fault), None)
    if fault is None or not isinstance(fault["input"], str):
        return None
    given, own = fault["input"], fault["ctx"]["expected"].strip("'")
    kind, _, number = given.rpartition("/")
    own_kind, _, own_number = own.rpartition("/")
    if kind != own_kind or not number.isdecimal():
        return InvalidInputError(f"{given!r} stands where a {own} is needed.", f"Name a file of the kind {own}.")
    if int(number) > int(own_number):
        return InvalidInputError(
            f"a newer servolt wrote it, as {given}; this one reads {own}.", "Update servolt, and read it again."
        )
    return InvalidInputError(
        f"an older servolt wrote it, as {given}; this one reads {own} only.", "Read it with the servolt that wrote it."
    )
