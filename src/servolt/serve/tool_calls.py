"""Calls of tools, put together from the pieces of a stream."""

from typing import Any

import msgspec

__all__ = ["ToolCalls"]


class ToolCalls:
    """Feed it what stands in `tool_calls` of each piece; the arguments come as text that grows."""

    def __init__(self) -> None:
        self._parts: dict[int, dict[str, str]] = {}

    def __bool__(self) -> bool:
        return bool(self._parts)

    def add(self, raw: msgspec.Raw) -> None:
        for position, piece in enumerate(msgspec.json.decode(raw) or ()):
            call = self._parts.setdefault(piece.get("index", position), {"id": "", "name": "", "arguments": ""})
            function = piece.get("function") or {}
            call["id"] += piece.get("id") or ""
            call["name"] += function.get("name") or ""
            call["arguments"] += function.get("arguments") or ""

    def calls(self) -> list[dict[str, Any]]:
        """In OpenAI's shape, in order."""
        return [
            {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
            for _, call in sorted(self._parts.items())
        ]
