"""Calls of tools, from the engine's pieces to each dialect's own shape."""

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

import pytest

TEMPLATE = "{% if tools %}{{ tools }}{% endif %}"
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
ASK = {"model": "m", "messages": [{"role": "user", "content": "Rain?"}], "tools": TOOLS}


def call(index: int, arguments: str, **begun: str) -> dict[str, Any]:
    """One piece as llama.cpp streams it: id, type and name come once, with the first piece of the arguments."""
    function = {"name": begun.pop("name"), "arguments": arguments} if begun else {"arguments": arguments}
    return {"index": index, **begun, **({"type": "function"} if begun else {}), "function": function}


PIECES = [
    [call(0, "", id="call-a", name="weather")],
    [call(0, '{"city":')],
    [call(0, '"Oslo"}'), call(1, '{"ci', id="call-b", name="weather")],
    [call(1, 'ty":"Rome"}')],
]
WHOLE = [
    {"id": "call-a", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}},
    {"id": "call-b", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}},
]
IN_OLLAMAS_SHAPE = [
    {"id": "call-a", "function": {"index": 0, "name": "weather", "arguments": {"city": "Oslo"}}},
    {"id": "call-b", "function": {"index": 1, "name": "weather", "arguments": {"city": "Rome"}}},
]


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 20))


@pytest.fixture
def calling(rig: Any, chunk: Any) -> Any:
    """An engine that says a word and calls two tools."""

    async def script(work: Any) -> None:
        await work.send(chunk(role="assistant", content=None))
        await work.say("Let me look.")
        for piece in PIECES:
            await work.send(chunk(tool_calls=piece))
        await work.finish(reason="tool_calls")

    return lambda: rig(script, template=TEMPLATE)


def test_openai_gets_whole_calls(calling: Any) -> None:
    async def scenario() -> None:
        async with calling() as one:
            choice = (await one.ask("/v1/chat/completions", ASK)).json()["choices"][0]
            assert choice["finish_reason"] == "tool_calls"
            assert choice["message"]["content"] == "Let me look."
            assert choice["message"]["tool_calls"] == WHOLE
            assert one.works[0].body["tools"] == TOOLS

    run(scenario())


def test_openai_gets_the_engines_own_pieces_in_a_stream(calling: Any) -> None:
    async def scenario() -> None:
        async with calling() as one:
            reply = await one.ask("/v1/chat/completions", ASK | {"stream": True})
            chunks = [json.loads(event[6:]) for event in reply.body.decode().split("\n\n")[:-2]]
            deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
            assert [delta["tool_calls"] for delta in deltas if "tool_calls" in delta] == PIECES
            assert "".join(delta.get("content") or "" for delta in deltas) == "Let me look."
            assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"

    run(scenario())


def test_ollama_gets_whole_calls_with_arguments_as_an_object(calling: Any) -> None:
    async def scenario() -> None:
        async with calling() as one:
            reply = (await one.ask("/api/chat", ASK | {"stream": False})).json()
            assert reply["message"]["tool_calls"] == IN_OLLAMAS_SHAPE
            assert (reply["message"]["content"], reply["done_reason"]) == ("Let me look.", "stop")

    run(scenario())


def test_ollama_gets_the_calls_on_a_line_before_the_last(calling: Any) -> None:
    async def scenario() -> None:
        async with calling() as one:
            lines = (await one.ask("/api/chat", ASK)).lines()
            assert [line["message"].get("tool_calls") for line in lines] == [None, IN_OLLAMAS_SHAPE, None]
            assert [line["done"] for line in lines] == [False, False, True]
            assert lines[-1]["done_reason"] == "stop"

    run(scenario())


@pytest.mark.parametrize("stream", [True, False])
def test_arguments_that_are_no_json_are_an_error_for_ollama(rig: Any, chunk: Any, stream: bool) -> None:
    async def script(work: Any) -> None:
        await work.say("x")
        await asyncio.sleep(0.02)  # what comes before the first piece is a status
        await work.send(chunk(tool_calls=[call(0, '{"city":', id="a", name="weather")]))
        await work.finish(reason="tool_calls")

    async def scenario() -> None:
        async with rig(script, template=TEMPLATE) as one:
            reply = await one.ask("/api/chat", ASK | {"stream": stream})
            assert reply.status == (200 if stream else 500)
            assert "arguments that are not JSON" in reply.lines()[-1]["error"]

    run(scenario())


def test_calls_and_their_results_go_back_to_the_engine_in_its_shape(calling: Any) -> None:
    result = {"role": "tool", "content": "wet", "tool_name": "weather", "tool_call_id": "call-a"}
    said = {"role": "assistant", "content": "", "tool_calls": IN_OLLAMAS_SHAPE[:1]}

    async def scenario() -> None:
        async with calling() as one:
            await one.ask("/api/chat", ASK | {"messages": [said, result]})
            assert one.works[0].body["messages"] == [
                {"role": "assistant", "content": "", "tool_calls": WHOLE[:1]},
                {"role": "tool", "content": "wet", "tool_call_id": "call-a", "name": "weather"},
            ]
            theirs = {"role": "tool", "content": "wet", "tool_call_id": "call-a"}
            await one.ask("/v1/chat/completions", ASK | {"messages": [said | {"tool_calls": WHOLE}, theirs]})
            assert one.works[1].body["messages"] == [
                {"role": "assistant", "content": "", "tool_calls": WHOLE},
                theirs,
            ]

    run(scenario())


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_a_model_without_a_place_for_tools_refuses_them(rig: Any, path: str) -> None:
    async def scenario() -> None:
        async with rig() as one:
            reply = await one.ask(path, ASK)
            assert reply.status == 400
            assert "tools" in reply.body.decode()
            assert one.works == []

    run(scenario())
