"""A call that has to be made, on a real engine with a model that would not make it by itself."""

import json
from typing import Any

import httpx2
import pytest

USER = {"role": "user", "content": "What is the weather in Oslo?"}


def tool(name: str, kind: dict[str, Any]) -> dict[str, Any]:
    """Both tools have a definition of the same name, with another meaning."""
    parameters = {
        "type": "object",
        "properties": {"value": {"$ref": "#/$defs/Value"}},
        "required": ["value"],
        "additionalProperties": False,
        "$defs": {"Value": kind},
    }
    return {"type": "function", "function": {"name": name, "description": "made up", "parameters": parameters}}


TOOLS = [tool("weather", {"type": "string", "enum": ["Oslo", "Rome"]}), tool("count", {"type": "boolean"})]
VALUES: dict[str, tuple[object, ...]] = {"weather": ("Oslo", "Rome"), "count": (True, False)}


@pytest.mark.parametrize("name", ["weather", "count", None])
@pytest.mark.parametrize("stream", [True, False])
def test_openai_clients_get_a_call_that_fits_the_tools_own_schema(served: Any, name: str | None, stream: bool) -> None:
    choice = "required" if name is None else {"type": "function", "function": {"name": name}}
    body = {"model": "guide", "messages": [USER], "tools": TOOLS, "tool_choice": choice, "stream": stream}
    reply = httpx2.post(f"{served.url}/v1/chat/completions", json=body, timeout=30)
    assert reply.status_code == 200, reply.text
    if stream:
        chunks = [json.loads(line[6:]) for line in reply.text.split("\n\n")[:-2]]
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
        (call,) = [call for delta in deltas for call in delta.get("tool_calls", [])]
        reason = chunks[-1]["choices"][0]["finish_reason"]
    else:
        (told,) = reply.json()["choices"]
        (call,), reason = told["message"]["tool_calls"], told["finish_reason"]
    assert reason == "tool_calls"
    assert call["function"]["name"] in ([name] if name else VALUES)
    assert json.loads(call["function"]["arguments"])["value"] in VALUES[call["function"]["name"]]


def test_ollama_clients_get_one_too(served: Any) -> None:
    body = {"model": "guide", "messages": [USER], "tools": TOOLS, "tool_choice": "required", "stream": False}
    reply = httpx2.post(f"{served.url}/api/chat", json=body, timeout=30)
    assert reply.status_code == 200, reply.text
    (call,) = reply.json()["message"]["tool_calls"]
    assert call["function"]["arguments"]["value"] in VALUES[call["function"]["name"]]


def test_a_schema_that_the_engine_can_not_hold_to_is_a_refusal(served: Any) -> None:
    body = {"model": "guide", "messages": [USER], "tools": [tool("a", {"type": "blub"})], "tool_choice": "required"}
    reply = httpx2.post(f"{served.url}/v1/chat/completions", json=body, timeout=30)
    assert reply.status_code == 400, reply.text
    assert "blub" in reply.json()["error"]["message"]
