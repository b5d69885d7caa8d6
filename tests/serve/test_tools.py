"""What a request says about tools: read by the book, or refused before an engine sees it."""

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

import pytest

from servolt.serve.refusal import RefusedError
from servolt.serve.tools import checked_calls, offered

TEMPLATE = "{% if tools %}{{ tools }}{% endif %}"
USER = {"role": "user", "content": "Rain?"}
OSLO = {"type": "object", "properties": {"city": {"$ref": "#/$defs/City"}}, "$defs": {"City": {"enum": ["Oslo"]}}}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": OSLO}}
TIME = {"type": "function", "function": {"name": "time"}}
TOOLS = [WEATHER, TIME]
NAMED = {"type": "function", "function": {"name": "weather"}}
PATHS = ["/api/chat", "/v1/chat/completions"]


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 20))


def function(**fields: Any) -> list[Any]:
    return [{"type": "function", "function": fields}]


@pytest.mark.parametrize(
    ("tools", "param"),
    [
        ([{}], "tools[0].function"),
        ([None], "tools[0]"),
        (["weather"], "tools[0]"),
        ([{"type": "function"}], "tools[0].function"),
        ([{"type": "function", "function": "weather"}], "tools[0].function"),
        (function(), "tools[0].function.name"),
        (function(name=5), "tools[0].function.name"),
        (function(name=""), "tools[0].function.name"),
        (function(name="a", description=5), "tools[0].function.description"),
        (function(name="a", parameters=[]), "tools[0].function.parameters"),
        (function(name="a", parameters="{}"), "tools[0].function.parameters"),
        ([WEATHER, {"type": "custom", "custom": {"name": "a"}}], "tools[1].type"),
        ({"a": 1}, "tools"),
    ],
)
@pytest.mark.parametrize("path", PATHS)
def test_tools_that_are_none_are_refused_in_the_dialects_own_shape(rig: Any, path: str, tools: Any, param: str) -> None:
    async def scenario() -> None:
        async with rig(template=TEMPLATE) as one:
            reply = await one.ask(path, {"model": "m", "messages": [USER], "tools": tools})
            error = reply.json()["error"]
            assert reply.status == 400
            assert param in (error if path == "/api/chat" else error["message"])
            assert path == "/api/chat" or (error["param"], error["type"]) == (param, "invalid_request_error")
            assert one.works == []

    run(scenario())


@pytest.mark.parametrize(
    ("choice", "param"),
    [
        ("any", "tool_choice"),
        ("", "tool_choice"),
        (5, "tool_choice"),
        ({}, "tool_choice.type"),
        ({"type": "allowed_tools"}, "tool_choice"),
        ({"type": "function"}, "tool_choice.function"),
        ({"type": "function", "function": {"name": "nope"}}, "tool_choice"),
    ],
)
@pytest.mark.parametrize("path", PATHS)
def test_a_choice_that_is_none_is_refused(rig: Any, path: str, choice: Any, param: str) -> None:
    async def scenario() -> None:
        async with rig(template=TEMPLATE) as one:
            body = {"model": "m", "messages": [USER], "tools": TOOLS, "tool_choice": choice}
            reply = await one.ask(path, body)
            assert reply.status == 400
            error = reply.json()["error"]
            assert param in (error if path == "/api/chat" else error["message"])
            assert path == "/api/chat" or error["param"] == param
            assert one.works == []

    run(scenario())


@pytest.mark.parametrize("choice", ["required", NAMED])
def test_a_call_without_tools_is_refused(choice: Any) -> None:
    with pytest.raises(RefusedError, match="there are no tools"):
        offered([], choice)
    with pytest.raises(RefusedError, match="there are no tools"):
        offered(None, choice)


def test_fields_that_are_null_do_not_reach_the_engine() -> None:
    (tool,) = offered(function(name="a", description=None, parameters=None, strict=None), None).tools
    assert tool == {"type": "function", "function": {"name": "a"}}


@pytest.mark.parametrize("choice", [None, "auto"])
@pytest.mark.parametrize("path", PATHS)
def test_a_free_choice_is_the_models(rig: Any, path: str, choice: Any) -> None:
    async def scenario() -> None:
        async with rig(template=TEMPLATE) as one:
            await one.ask(path, {"model": "m", "messages": [USER], "tools": TOOLS, "tool_choice": choice})
            assert one.works[0].body["tools"] == TOOLS
            assert "tool_choice" not in one.works[0].body
            assert "response_format" not in one.works[0].body

    run(scenario())


@pytest.mark.parametrize("path", PATHS)
def test_a_model_that_must_not_call_sees_no_tool(rig: Any, path: str) -> None:
    async def scenario() -> None:
        async with rig(template=TEMPLATE) as one:
            await one.ask(path, {"model": "m", "messages": [USER], "tools": TOOLS, "tool_choice": "none"})
            assert "tools" not in one.works[0].body

    run(scenario())


@pytest.fixture
def calling(rig: Any) -> Any:
    """An engine that writes a call as it is held to, in pieces."""

    async def script(work: Any) -> None:
        await work.say('{"name": "weath', 'er", "arguments":\n { "city" : "Os', 'lo"}}')
        await work.finish()

    return lambda: rig(script, template=TEMPLATE)


CALL = {"name": "weather", "arguments": '{"city":"Oslo"}'}


@pytest.mark.parametrize(("choice", "count"), [("required", 2), (NAMED, 1)])
@pytest.mark.parametrize("path", PATHS)
def test_the_engine_is_held_to_a_call_of_one_of_the_tools(calling: Any, path: str, choice: Any, count: int) -> None:
    async def scenario() -> None:
        async with calling() as one:
            body = {"model": "m", "messages": [USER], "tools": TOOLS, "tool_choice": choice}
            reply = await one.ask(path, body | {"stop": ["x"], "options": {"stop": ["x"]}})
            asked = one.works[0].body
            assert asked["chat_template_kwargs"]["tools"] == TOOLS
            assert "tools" not in asked
            assert "stop" not in asked
            schema = asked["response_format"]["json_schema"]["schema"]
            calls = schema.get("anyOf", [schema])
            assert [call["properties"]["name"]["const"] for call in calls] == ["weather", "time"][:count]
            assert schema["$defs"]["0"]["properties"]["city"]["$ref"] == "#/$defs/0/$defs/City"
            report = json.loads(reply.headers["x-servolt-report"])
            assert {"tool_choice": "emulated", "stop": "dropped"}.items() <= {
                row["parameter"]: row["action"] for row in report
            }.items()

    run(scenario())


def test_the_call_comes_back_whole(calling: Any) -> None:
    body = {"model": "m", "messages": [USER], "tools": TOOLS, "tool_choice": "required", "stream": False}

    async def scenario() -> None:
        async with calling() as one:
            choice = (await one.ask("/v1/chat/completions", body)).json()["choices"][0]
            assert choice["finish_reason"] == "tool_calls"
            assert choice["message"]["content"] is None
            assert [call["function"] for call in choice["message"]["tool_calls"]] == [CALL]
            message = (await one.ask("/api/chat", body)).json()["message"]
            assert message["content"] == ""
            assert message["tool_calls"][0]["function"] == {
                "index": 0,
                "name": "weather",
                "arguments": {"city": "Oslo"},
            }

    run(scenario())


def test_in_a_stream_the_call_comes_in_one_piece_before_the_end(calling: Any) -> None:
    body = {"model": "m", "messages": [USER], "tools": TOOLS, "tool_choice": "required", "stream": True}

    async def scenario() -> None:
        async with calling() as one:
            reply = await one.ask("/v1/chat/completions", body)
            chunks = [json.loads(event[6:]) for event in reply.body.decode().split("\n\n")[:-2]]
            deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
            (calls,) = [delta["tool_calls"] for delta in deltas if "tool_calls" in delta]
            assert (calls[0]["index"], calls[0]["function"]) == (0, CALL)
            assert not any(delta.get("content") for delta in deltas)
            assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
            lines = (await one.ask("/api/chat", body)).lines()
            assert [len(line["message"].get("tool_calls", [])) for line in lines] == [1, 0]
            assert lines[-1]["done"] is True

    run(scenario())


@pytest.mark.parametrize("stream", [True, False])
def test_a_call_that_is_cut_is_no_call(rig: Any, stream: bool) -> None:
    async def script(work: Any) -> None:
        await work.say('{"name": "wea')
        await work.finish(reason="length")

    async def scenario() -> None:
        async with rig(script, template=TEMPLATE) as one:
            body = {"model": "m", "messages": [USER], "tools": TOOLS, "tool_choice": "required", "stream": stream}
            lines = (await one.ask("/api/chat", body)).lines()
            assert "".join(line["message"]["content"] for line in lines) == '{"name": "wea'
            assert lines[-1]["done_reason"] == "length"
            assert not any("tool_calls" in line["message"] for line in lines)

    run(scenario())


def test_an_engine_that_makes_no_call_all_the_same_is_an_error(rig: Any) -> None:
    async def scenario() -> None:
        async with rig(template=TEMPLATE) as one:
            body = {"model": "m", "messages": [USER], "tools": TOOLS, "tool_choice": "required"}
            reply = await one.ask("/v1/chat/completions", body)
            assert reply.status == 500
            assert "was held to a call of a tool and made none" in reply.json()["error"]["message"]

    run(scenario())


def calls(**fields: Any) -> list[Any]:
    return [{"type": "function", "function": {"name": "a", "arguments": "{}"} | fields}]


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"tool_calls": [{}]}, "messages[0].tool_calls[0].function"),
        ({"tool_calls": "x"}, "messages[0].tool_calls"),
        ({"tool_calls": calls(name=5)}, "messages[0].tool_calls[0].function.name"),
        ({"tool_calls": calls(arguments="{")}, "messages[0].tool_calls[0].function.arguments"),
        ({"tool_calls": calls(arguments="[1]")}, "messages[0].tool_calls[0].function.arguments"),
        ({"tool_calls": [calls()[0] | {"id": 5}]}, "messages[0].tool_calls[0].id"),
        ({"tool_call_id": 5}, "messages[0].tool_call_id"),
        ({"name": 5}, "messages[0].name"),
    ],
)
def test_earlier_calls_that_are_none_are_refused(rig: Any, message: dict[str, Any], param: str) -> None:
    async def scenario() -> None:
        async with rig(template=TEMPLATE) as one:
            said = {"role": "assistant", "content": ""} | message
            reply = await one.ask("/v1/chat/completions", {"model": "m", "messages": [said, USER]})
            assert (reply.status, reply.json()["error"]["param"]) == (400, param)
            assert one.works == []

    run(scenario())


@pytest.mark.parametrize(
    ("arguments", "text"),
    [(None, "{}"), ("", "{}"), ({}, "{}"), ({"a": 1}, '{"a":1}'), ('{"b": 1, "a": 2}', '{"b": 1, "a": 2}')],
)
def test_arguments_of_earlier_calls_become_text_that_an_engine_can_read(arguments: Any, text: str) -> None:
    (call,) = checked_calls(calls(arguments=arguments), "calls")
    assert call["function"] == {"name": "a", "arguments": text}


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"name": "x"}},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": 5}},
        {"type": "xml"},
        {},
    ],
)
def test_a_format_without_its_schema_is_refused_where_the_engine_would_ignore_it(rig: Any, wrong: Any) -> None:
    async def scenario() -> None:
        async with rig() as one:
            body = {"model": "m", "messages": [USER], "response_format": wrong}
            reply = await one.ask("/v1/chat/completions", body)
            assert reply.status == 400
            assert reply.json()["error"]["param"].startswith("response_format")
            assert one.works == []

    run(scenario())
