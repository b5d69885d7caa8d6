"""For commands whose result is one text or one document, and no table."""

from servolt.cli.output import Output
from servolt.errors import InvalidInputError

__all__ = ["is_json", "require_text_or_json"]


def is_json(out: Output) -> bool:
    return out.format in ("json", "jsonl")


def require_text_or_json(out: Output, what: str) -> None:
    """Raises InvalidInputError for a format that could only be ignored."""
    if not is_json(out) and out.format not in ("human", "agent"):
        raise InvalidInputError(f"{what} has no form as {out.format}.", "Leave that out, or take --json.")
