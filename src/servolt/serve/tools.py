"""Tools that a request offers, what it says about calling them, and earlier calls: checked before an engine reads them.

Shapes are OpenAI's, which Ollama's are a part of.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from servolt.serve.refusal import RefusedError

__all__ = ["Offered", "Tool", "checked_calls", "offered"]

Tool = Mapping[str, Any]

FREE = ("auto", "none")


class Offered(NamedTuple):
    """`tools` are what the model is shown. It has to call one of `forced`, if there are any."""

    tools: list[Tool]
    forced: list[Tool]


def offered(tools: Sequence[Any] | None, choice: Any) -> Offered:
    """Raises RefusedError naming the part that can't be used. With "none" the model is shown no tool at all."""
    checked = [_tool(tool, f"tools[{number}]") for number, tool in enumerate(tools or ())]
    if choice is None or choice == "auto":
        return Offered(checked, [])
    if choice == "none":
        return Offered([], [])
    forced = _forced(checked, choice)
    if not checked:
        raise _invalid("tool_choice", "asks for a call, and there are no tools.", "Send tools, or leave it out.")
    return Offered(checked, forced)


def checked_calls(calls: Any, place: str) -> list[dict[str, Any]]:
    """A message's earlier calls; `arguments` come as JSON text or as an object, and leave as text."""
    if not isinstance(calls, list):
        raise _invalid(place, "must be a list.", "Correct it.")
    return [_call(call, f"{place}[{number}]") for number, call in enumerate(calls)]


def _forced(tools: list[Tool], choice: Any) -> list[Tool]:
    if choice == "required":
        return tools
    if isinstance(choice, str):
        words = ", ".join((*FREE, "required"))
        raise _invalid("tool_choice", f"must be one of {words}, or name a function.", "Correct it, or leave it out.")
    if not choice.get("type"):
        raise _invalid("tool_choice.type", "is missing.", 'Write {"type": "function", "function": {"name": ...}}.')
    if choice["type"] != "function":
        raise RefusedError(
            "unsupported",
            f"tool_choice.type {str(choice['type'])[:40]!r} is not supported.",
            'Write {"type": "function", "function": {"name": ...}}.',
            param="tool_choice",
        )
    name = _name(choice, "tool_choice")
    found = [tool for tool in tools if tool["function"]["name"] == name]
    if tools and not found:
        known = ", ".join(tool["function"]["name"] for tool in tools)[:200]
        raise _invalid("tool_choice", f"names {name[:80]!r}, which is none of the tools.", f"There are {known}.")
    return found[:1]


def _tool(tool: Any, place: str) -> Tool:
    """Fields that are null are left out: the engine takes none."""
    if not isinstance(tool, dict):
        raise _invalid(place, "must be an object.", "Correct it.")
    if tool.get("type", "function") != "function":
        raise RefusedError(
            "unsupported",
            f"{place}.type {str(tool['type'])[:40]!r} is not supported.",
            "Send functions only.",
            param=f"{place}.type",
        )
    name = _name(tool, place)
    function = {key: value for key, value in tool["function"].items() if value is not None}
    for field, kind, word in (("description", str, "text"), ("parameters", dict, "a JSON schema, which is an object")):
        if not isinstance(function.get(field, kind()), kind):
            raise _invalid(f"{place}.function.{field}", f"must be {word}.", "Correct it, or leave it out.")
    return {"type": "function", "function": function | {"name": name}}


def _call(call: Any, place: str) -> dict[str, Any]:
    name = _name(call, place)
    identity = call.get("id")
    if identity is not None and not isinstance(identity, str):
        raise _invalid(f"{place}.id", "must be text.", "Correct it.")
    arguments = _arguments(call["function"].get("arguments"), f"{place}.function.arguments")
    return {"id": identity or "", "type": "function", "function": {"name": name, "arguments": arguments}}


def _name(holder: Any, place: str) -> str:
    """Of the function that a tool, a call or a choice holds."""
    function = holder.get("function") if isinstance(holder, dict) else None
    if not isinstance(function, dict):
        raise _invalid(f"{place}.function", "must be an object.", 'Write {"function": {"name": ...}}.')
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise _invalid(f"{place}.function.name", "must be text.", "Name the function.")
    return name


def _arguments(value: Any, place: str) -> str:
    """Templates read them as an object, and an engine fails where they are none."""
    try:
        read = orjson.loads(value or "{}") if isinstance(value, str) else value or {}
    except orjson.JSONDecodeError as error:
        raise _invalid(place, f"is not JSON: {error}.", "Send the arguments of a call as an object.") from error
    if not isinstance(read, dict):
        raise _invalid(place, "must hold an object.", "Send the arguments of a call as an object.")
    return value if isinstance(value, str) and value else orjson.dumps(read).decode()


def _invalid(place: str, what: str, remedy: str) -> RefusedError:
    return RefusedError("invalid", f"{place} {what}", remedy, param=place)
