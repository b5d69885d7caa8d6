"""From the bytes of a body to typed fields."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
import orjson

from servolt.serve.refusal import RefusedError
from servolt.serve.request import Row

__all__ = ["dropped_rows", "fields_of", "parse_object", "text_of"]

Fields = TypeVar("Fields", bound=msgspec.Struct)

NOT_HONOURED = "servolt does not know this field"


def parse_object(body: bytes) -> dict[str, Any]:
    """Raises RefusedError for what is no JSON object. Depth is bounded by orjson, at 254."""
    if not body.strip():
        raise RefusedError("invalid", "missing request body.", "Send a JSON object.")
    try:
        plain = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RefusedError("invalid", f"The body is not JSON: {error}.", "Correct it.") from error
    if not isinstance(plain, dict):
        raise RefusedError("invalid", f"The body is a JSON {type(plain).__name__}, not an object.", "Send an object.")
    return plain


def fields_of(plain: Mapping[str, Any], kind: type[Fields]) -> Fields:
    """Raises RefusedError naming the first field whose type does not fit."""
    try:
        return msgspec.convert(plain, kind)
    except (msgspec.ValidationError, OverflowError) as error:
        text, _, place = str(error).partition(" - at ")
        param = place.strip("`").removeprefix("$").lstrip(".") or None
        raise RefusedError("invalid", f"{param or 'The body'}: {text}.", "Correct it.", param=param) from error


def dropped_rows(plain: Mapping[str, Any], known: frozenset[str], reasons: Mapping[str, str]) -> list[Row]:
    """A row for each field that is set and not honoured; `reasons` says why for those that are known but not done."""
    unknown = plain.keys() - known
    return [
        Row(name[:100], "dropped", plain[name], None, reasons.get(name, NOT_HONOURED))
        for name in sorted(unknown)
        if plain[name] is not None
    ]


def text_of(content: Any, place: str) -> str:
    """A message's content: text, or a list of text parts. Raises RefusedError for images, sound and files."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise RefusedError("invalid", f"{place} must be text or a list of parts.", "Send text.", param=place)
    return "".join(_part(part, place) for part in content)


def _part(part: Any, place: str) -> str:
    if not isinstance(part, dict):
        raise RefusedError(
            "invalid", f"{place} holds a part that is no object.", 'Write {"type": "text", "text": ...}.', param=place
        )
    kind = part.get("type")
    text = part.get("refusal") if kind == "refusal" else part.get("text")
    if kind not in ("text", "refusal", "input_text", "output_text") or not isinstance(text, str):
        raise RefusedError(
            "unsupported",
            f"{place}: this model reads text only, not {str(kind)[:40]!r}.",
            "Leave that part out.",
            param=place,
        )
    return text
