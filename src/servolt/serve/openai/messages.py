"""Messages of a chat, as templates and engines take them."""

from collections.abc import Mapping, Sequence
from typing import Any

from servolt.serve.body import text_of
from servolt.serve.refusal import RefusedError
from servolt.serve.tools import checked_calls

__all__ = ["chat_messages"]

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
KNOWN_AS = {"developer": "system", "function": "tool"}  # to templates


def chat_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Text only, under roles that templates know. Raises RefusedError naming the message that can't be read."""
    return [_message(message, f"messages[{number}]") for number, message in enumerate(messages)]


def _message(message: Mapping[str, Any], place: str) -> dict[str, Any]:
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        cause = f"{place}.role must be one of {', '.join(sorted(ROLES))}."
        raise RefusedError("invalid", cause, "Correct it.", param=f"{place}.role")
    plain: dict[str, Any] = {
        "role": KNOWN_AS.get(role, role),
        "content": text_of(message.get("content"), f"{place}.content"),
    }
    if message.get("tool_calls"):
        plain["tool_calls"] = checked_calls(message["tool_calls"], f"{place}.tool_calls")
    for name in ("tool_call_id", "name"):
        value = message.get(name)
        if value is not None and not isinstance(value, str):
            raise RefusedError("invalid", f"{place}.{name} must be text.", "Correct it.", param=f"{place}.{name}")
        if value is not None:
            plain[name] = value
    return plain
