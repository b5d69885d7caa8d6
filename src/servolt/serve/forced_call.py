"""A call that has to be made (`tool_choice` "required" or a function's name): the engine is held to it by a grammar.

Engines see to it themselves at best: llama.cpp only keeps its model from ending before a call, and lets it talk on up
to the end of the context. So the tools go into the template, and the answer has to fit the schema of a call of one of
them, as vLLM does it: any template that shows tools will do. Then the answer is read back as that call.
"""

from collections.abc import Mapping, Sequence
from random import getrandbits
from typing import Any

import msgspec
import orjson

from servolt.errors import EngineError, ServoltError
from servolt.serve.events import Answer, Delta, Event
from servolt.serve.generation import Generation, Writer
from servolt.serve.request import GenerationRequest, Row
from servolt.serve.tools import Offered, Tool

__all__ = ["CallWriter", "call_of", "force"]

_NOT_IN_A_CALL = ("stop", "ignore_eos")  # a call ends where its JSON ends


def force(request: GenerationRequest, tools: Offered) -> list[Row]:
    """Changes the request so that its answer is the JSON of a call. Rows say what that meant for its fields."""
    names = [tool["function"]["name"] for tool in tools.forced]
    rows = [Row("tool_choice", "emulated", "a call", names, "the answer is held to the schema of a call")]
    for field in _NOT_IN_A_CALL:
        if (asked := getattr(request.sampling, field)) is not None:
            rows.append(Row(field, "dropped", asked, None, "a call ends where its JSON ends"))
            setattr(request.sampling, field, None)
    if request.response_format is not None:
        rows.append(Row("response_format", "dropped", "a schema", None, "the answer is a call"))
    request.tools = None
    request.template_values = {**(request.template_values or {}), "tools": tools.tools}
    schema = {"name": "call", "schema": _schema(tools.forced)}
    request.response_format = {"type": "json_schema", "json_schema": schema}
    return rows


def call_of(answer: Answer) -> Answer:
    """The whole answer as a call. Raises EngineError for one that ended by itself and is none."""
    if answer.finished.reason != "stop":
        return answer
    call = _call(answer.text)
    finished = msgspec.structs.replace(answer.finished, reason="tool_calls")
    return msgspec.structs.replace(answer, text="", tool_calls=[call], finished=finished)


class CallWriter:
    """Stands before a dialect's own writer, and hands it the call once that is whole."""

    def __init__(self, inner: Writer) -> None:
        self.content_type = inner.content_type
        self._inner = inner
        self._said: dict[int, list[str]] = {}

    def batch(self, events: Sequence[Event], index: int = 0) -> bytes:
        return self._inner.batch([told for event in events for told in self._read(event, index)], index)

    def last(self) -> bytes:
        return self._inner.last()

    async def before_last(self, generation: Generation, events: Sequence[Event]) -> None:
        await self._inner.before_last(generation, events)

    def failed(self, error: ServoltError) -> bytes:
        return self._inner.failed(error)

    def _read(self, event: Event, index: int) -> list[Event]:
        said = self._said.setdefault(index, [])
        if isinstance(event, Delta):
            said.append(event.text or "")
            rest = Delta(None, event.reasoning, None, event.logprobs)
            return [rest] if event.reasoning or event.logprobs else []
        if event.reason != "stop":  # cut in the middle: what there is of it is no call
            return [Delta("".join(said)), event]
        call = msgspec.Raw(msgspec.json.encode([{"index": 0, **_call("".join(said))}]))
        return [Delta(tool_calls=call), msgspec.structs.replace(event, reason="tool_calls")]


def _call(text: str) -> dict[str, Any]:
    try:
        told = orjson.loads(text)
        function = {"name": str(told["name"]), "arguments": orjson.dumps(told["arguments"]).decode()}
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise EngineError("The model was held to a call of a tool and made none.", "Ask again.") from error
    return {"id": f"call_{getrandbits(96):024x}", "type": "function", "function": function}


def _schema(tools: Sequence[Tool]) -> dict[str, Any]:
    """Of an object with the name of one of these tools and arguments that fit its parameters."""
    functions = [tool["function"] for tool in tools]
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": function["name"]}, "arguments": {"$ref": f"#/$defs/{number}"}},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for number, function in enumerate(functions)
    ]
    parameters = {
        str(number): _moved({"type": "object", **(function.get("parameters") or {})}, f"#/$defs/{number}")
        for number, function in enumerate(functions)
    }
    return {"$defs": parameters, **(calls[0] if len(calls) == 1 else {"anyOf": calls})}


def _moved(schema: Any, root: str) -> Any:
    """The schema with its references to its own root pointing to where it stands now."""
    if isinstance(schema, Mapping):
        return {
            key: root + value[1:]
            if key == "$ref" and isinstance(value, str) and value[:1] == "#"
            else _moved(value, root)
            for key, value in schema.items()
        }
    return [_moved(part, root) for part in schema] if isinstance(schema, list) else schema
