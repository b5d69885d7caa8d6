"""How long a model stays loaded, in the forms that clients send."""

from typing import Any

from servolt.serve.refusal import RefusedError
from servolt.units import parse_duration

__all__ = ["keep_alive_s"]

MAX_KEEP_ALIVE_S = 3650 * 86400.0  # ten years; beyond that is for ever


def keep_alive_s(value: Any) -> float | None:
    """Seconds; negative is for ever, 0 is unload after this request, None is the gateway's own default."""
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        cause = "keep_alive must be a number of seconds or a duration."
        raise RefusedError("invalid", cause, "Write 300 or 5m.", param="keep_alive")
    try:
        seconds = parse_duration(value) if isinstance(value, str) else float(value)
    except (ValueError, OverflowError) as error:
        raise RefusedError("invalid", f"keep_alive: {error}.", "Write 300 or 5m.", param="keep_alive") from error
    if not abs(seconds) <= MAX_KEEP_ALIVE_S:
        return -1.0  # longer than anyone waits is for ever
    return seconds
