"""Ollama's messages and prompts, in OpenAI's shape."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from servolt.errors import ServoltError
from servolt.serve.events import Delta, Event
from servolt.serve.generation import Generation
from servolt.serve.ollama.wire import GenerateBody, LineWriter
from servolt.serve.refusal import RefusedError
from servolt.serve.upstream import Upstream

__all__ = ["ContextWriter", "chat_messages", "generate_messages", "next_context", "tokens_with_context"]

ROLES = frozenset({"system", "user", "assistant", "tool"})


def chat_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Raises RefusedError naming the message that can't be read."""
    return [_message(message, f"messages[{number}]") for number, message in enumerate(messages)]


def generate_messages(body: GenerateBody) -> list[dict[str, Any]]:
    """A prompt as one turn of a conversation."""
    system = [{"role": "system", "content": body.system}] if body.system else []
    return [*system, {"role": "user", "content": body.prompt or ""}]


async def tokens_with_context(upstream: Upstream, body: GenerateBody) -> list[int]:
    """The deprecated way to go on with a conversation: the tokens so far, then the new turn."""
    templated = await upstream.call("/apply-template", {"messages": generate_messages(body)})
    return [*(body.context or ()), *await _tokens(upstream, templated["prompt"], add_special=not body.context)]


async def next_context(upstream: Upstream, body: GenerateBody, said: str) -> list[int] | None:
    """The tokens of prompt and answer, for clients that send them back. None where the engine can't tell."""
    try:
        before = await tokens_with_context(upstream, body)
        return before + await _tokens(upstream, said, add_special=False)
    except ServoltError:  # an extra that old clients read; the answer itself is whole
        return None


async def _tokens(upstream: Upstream, text: str, *, add_special: bool) -> list[int]:
    asked = {"content": text, "add_special": add_special, "parse_special": True}
    return [int(token) for token in (await upstream.call("/tokenize", asked))["tokens"]]


class ContextWriter(LineWriter):
    """/api/generate's lines, with the conversation's tokens in the last one."""

    def __init__(self, model: str, body: GenerateBody, *, started: float) -> None:
        super().__init__(model, is_chat=False, started=started)
        self._body = body
        self._said: list[str] = []

    def batch(self, events: Sequence[Event], index: int = 0) -> bytes:
        self._said += _texts(events)
        return super().batch(events, index)

    async def before_last(self, generation: Generation, events: Sequence[Event]) -> None:
        await super().before_last(generation, events)
        said = "".join([*self._said, *_texts(events)])
        self.context = await next_context(await generation.resident.upstream(), self._body, said)


def _texts(events: Sequence[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Delta) and event.text]


def _message(message: Mapping[str, Any], place: str) -> dict[str, Any]:
    role = message.get("role")
    if not isinstance(role, str) or role.lower() not in ROLES:
        raise RefusedError(
            "invalid", f"{place}.role must be one of {', '.join(sorted(ROLES))}.", "Correct it.", param=place
        )
    content = message.get("content")
    if content is not None and not isinstance(content, str):
        raise RefusedError("invalid", f"{place}.content must be text.", "Send a string.", param=place)
    if message.get("images"):
        raise RefusedError(
            "unsupported", f"{place}: this model does not support images.", "Leave them out.", param=place
        )
    plain: dict[str, Any] = {"role": role.lower(), "content": content or ""}
    if message.get("tool_calls"):
        plain["tool_calls"] = _calls(message["tool_calls"], place)
    if plain["role"] == "tool":
        plain["tool_call_id"] = str(message.get("tool_call_id") or "")
        if message.get("tool_name"):
            plain["name"] = str(message["tool_name"])
    return plain


def _calls(calls: Any, place: str) -> list[dict[str, Any]]:
    if not isinstance(calls, list):
        raise RefusedError("invalid", f"{place}.tool_calls must be a list.", "Correct it.", param=place)
    return [_call(call, f"{place}.tool_calls[{number}]") for number, call in enumerate(calls)]


def _call(call: Any, place: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RefusedError(
            "invalid",
            f"{place} needs a function with a name.",
            'Write {"function": {"name": ..., "arguments": {}}}.',
            param=place,
        )
    arguments = function.get("arguments")
    if arguments is not None and not isinstance(arguments, dict):
        raise RefusedError(
            "invalid", f"{place}.function.arguments must be an object.", "Send an object, not text.", param=place
        )
    return {
        "id": str(call.get("id") or ""),
        "type": "function",
        "function": {"name": function["name"], "arguments": orjson.dumps(arguments or {}).decode()},
    }
