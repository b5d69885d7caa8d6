"""What OpenAI's routes do."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from servolt.serve.abilities import abilities
from servolt.serve.body import dropped_rows, fields_of, parse_object
from servolt.serve.catalogue import Offer
from servolt.serve.durations import keep_alive_s
from servolt.serve.exchange import JSON, Exchange
from servolt.serve.fleet import Fleet
from servolt.serve.forced_call import CallWriter, call_of, force
from servolt.serve.generation import Generation
from servolt.serve.openai.messages import chat_messages
from servolt.serve.openai.prompts import check_vocabulary, prompts_of
from servolt.serve.openai.wire import (
    ChatBody,
    ChatWriter,
    CompletionBody,
    CompletionWriter,
    Identity,
    SharedBody,
    chat_reply,
    completion_reply,
)
from servolt.serve.refusal import RefusedError
from servolt.serve.request import GenerationRequest, Row, Sampling, check_sampling
from servolt.serve.tools import Offered, offered

__all__ = ["MODELS_PREFIX", "ROUTES", "model"]

MODELS_PREFIX = "/v1/models/"

MAX_CHOICES = 64  # of one request: prompts times n; each is a sequence of its own in the engine
TEMPLATE_VALUES = frozenset({"enable_thinking"})  # what a request may hand to a chat template

# Fields that change nothing about the answer: nothing is lost by not reading them.
_HARMLESS = frozenset(
    {
        "metadata",
        "moderation",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "request_id",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)
_REASONS = {
    "audio": "the engine makes text only",
    "modalities": "the engine makes text only",
    "functions": "deprecated; use tools",
    "function_call": "deprecated; use tool_choice",
    "chat_template": "a template of the request's own is not run",
    "truncate_prompt_tokens": "what does not fit the context is refused and never cut",
}
_CHAT_FIELDS = frozenset(ChatBody.__struct_fields__) | _HARMLESS
_COMPLETION_FIELDS = frozenset(CompletionBody.__struct_fields__) | _HARMLESS
_NAMES = {"repeat_penalty": "repetition_penalty"}


async def models(exchange: Exchange, fleet: Fleet) -> None:
    entries = [_entry(name, offer) for offer in fleet.catalogue for name in offer.names]
    await exchange.reply(200, {"object": "list", "data": entries})


async def model(exchange: Exchange, fleet: Fleet) -> None:
    """One model; its id is the rest of the path, slashes and all."""
    name = exchange.path.removeprefix(MODELS_PREFIX)
    await exchange.reply(200, _entry(name, fleet.catalogue.find(name)))


async def chat(exchange: Exchange, fleet: Fleet) -> None:
    plain = parse_object(await exchange.body())
    body = fields_of(plain, ChatBody)
    name, offer = _find(fleet, body.model)
    exchange.report += dropped_rows(plain, _CHAT_FIELDS, _REASONS)
    tools = _tools(offer, body)
    request = _chat_request(exchange, body, tools)
    if tools.forced:
        exchange.report += force(request, tools)
    requests = _choices(request, _count(body))
    generation = Generation(exchange, fleet.resident(offer), requests, fleet.telemetry, keep_alive_s(body.keep_alive))
    identity = Identity.new("chatcmpl", exchange.request_id, name, offer.digest)
    if body.stream:
        writer = ChatWriter(identity, include_usage=_include_usage(body))
        await generation.stream(CallWriter(writer) if tools.forced else writer)
        return
    answers = await generation.answers()
    if tools.forced:
        answers = [call_of(answer) for answer in answers]
    await exchange.reply_bytes(200, chat_reply(identity, answers, logprobs=request.logprobs), (JSON,))


async def completions(exchange: Exchange, fleet: Fleet) -> None:
    plain = parse_object(await exchange.body())
    body = fields_of(plain, CompletionBody)
    name, offer = _find(fleet, body.model)
    exchange.report += dropped_rows(plain, _COMPLETION_FIELDS, _REASONS)
    prompts, count = prompts_of(body.prompt), _count(body)
    check_vocabulary(prompts, offer.model.vocab_size)
    if len(prompts) * count > MAX_CHOICES:
        raise RefusedError(
            "invalid",
            f"{len(prompts)} prompts with n {count} are more than {MAX_CHOICES} answers.",
            "Send them in several requests.",
            param="n",
        )
    requests = _completion_requests(body, prompts, count)
    generation = Generation(exchange, fleet.resident(offer), requests, fleet.telemetry, keep_alive_s(body.keep_alive))
    identity = Identity.new("cmpl", exchange.request_id, name, offer.digest)
    echoes = _echoes(body, prompts, count)
    if body.stream:
        usage = _include_usage(body)
        await generation.stream(CompletionWriter(identity, include_usage=usage, echoes=echoes, per_prompt=count))
        return
    answers = await generation.answers()
    reply = completion_reply(identity, answers, echoes, count, logprobs=body.logprobs is not None)
    await exchange.reply_bytes(200, reply, (JSON,))


def _tools(offer: Offer, body: ChatBody) -> Offered:
    if body.tools and "tools" not in abilities(offer.model):
        raise RefusedError(
            "unsupported",
            f"{offer.name} has no place for tools in its template.",
            "Leave tools out, or ask a model made for them.",
            param="tools",
        )
    return offered(body.tools, body.tool_choice)


def _chat_request(exchange: Exchange, body: ChatBody, tools: Offered) -> GenerationRequest:
    if not body.messages:
        raise RefusedError("invalid", "messages must hold at least one message.", "Send one.", param="messages")
    if body.max_completion_tokens is not None:
        body.max_tokens = body.max_completion_tokens
    sampling = _sampling(body)
    if body.logprobs:
        sampling.top_logprobs = body.top_logprobs or 0
    check_sampling(sampling, _NAMES)
    return GenerationRequest(
        messages=chat_messages(body.messages),
        sampling=sampling,
        tools=tools.tools or None,
        parallel_tool_calls=body.parallel_tool_calls if tools.tools else None,
        response_format=_format(body.response_format),
        template_values=_template_values(exchange, body.chat_template_kwargs),
        logprobs=bool(body.logprobs),
    )


def _completion_requests(
    body: CompletionBody, prompts: Sequence[str | list[int]], count: int
) -> list[GenerationRequest]:
    if body.suffix:
        raise RefusedError(
            "unsupported", "This model does not fill in before a suffix.", "Leave suffix out.", param="suffix"
        )
    if body.best_of is not None and body.best_of != count:
        raise RefusedError("unsupported", "best_of other than n is not supported.", "Leave it out.", param="best_of")
    sampling = _sampling(body)
    if body.logprobs is not None:
        sampling.top_logprobs = body.logprobs
    check_sampling(sampling, _NAMES | {"top_logprobs": "logprobs"})
    requests = []
    for prompt in prompts:
        request = GenerationRequest(prompt=prompt, sampling=sampling, logprobs=body.logprobs is not None)
        requests += _choices(request, count)
    return requests


def _choices(request: GenerationRequest, count: int) -> list[GenerationRequest]:
    """One request for each choice. A fixed seed moves on by one, or all choices would be the same."""
    if count == 1:
        return [request]
    seed = request.sampling.seed
    if seed is None or seed < 0:
        return [request] * count
    return [
        msgspec.structs.replace(request, sampling=msgspec.structs.replace(request.sampling, seed=seed + number))
        for number in range(count)
    ]


def _sampling(body: SharedBody) -> Sampling:
    return Sampling(
        temperature=body.temperature,
        top_k=None if body.top_k is None else max(body.top_k, 0),
        top_p=body.top_p,
        min_p=body.min_p,
        repeat_penalty=body.repetition_penalty,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        logit_bias=body.logit_bias,
        max_tokens=body.max_tokens,
        seed=body.seed,
        stop=[body.stop] if isinstance(body.stop, str) else body.stop or None,
        ignore_eos=body.ignore_eos,
    )


def _format(value: dict[str, Any] | None) -> dict[str, Any] | None:
    if value is None or value.get("type") == "text":
        return None
    if value.get("type") == "json_object":
        return value
    if value.get("type") != "json_schema":
        raise _wrong_format("response_format.type", "must be text, json_object or json_schema")
    named = value.get("json_schema")
    if not isinstance(named, dict) or not isinstance(named.get("schema"), dict):
        raise _wrong_format("response_format.json_schema", 'must hold a "schema", which is an object')
    return value


def _wrong_format(place: str, what: str) -> RefusedError:
    return RefusedError("invalid", f"{place} {what}.", "Correct it, or leave response_format out.", param=place)


def _template_values(exchange: Exchange, values: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not values:
        return None
    for name in sorted(values.keys() - TEMPLATE_VALUES):
        exchange.report.append(Row(f"chat_template_kwargs.{name[:80]}", "dropped", values[name], None, "not allowed"))
    return {name: bool(values[name]) for name in TEMPLATE_VALUES & values.keys()} or None


def _echoes(body: CompletionBody, prompts: Sequence[str | list[int]], count: int) -> list[str]:
    if not body.echo:
        return [""] * (len(prompts) * count)
    texts = [prompt for prompt in prompts if isinstance(prompt, str)]
    if len(texts) < len(prompts) or body.logprobs is not None:
        raise RefusedError(
            "unsupported", "echo works with text prompts and without logprobs.", "Leave echo out.", param="echo"
        )
    return [text for text in texts for _ in range(count)]


def _count(body: SharedBody) -> int:
    count = 1 if body.n is None else body.n
    if not 1 <= count <= MAX_CHOICES:
        raise RefusedError("invalid", f"n must be between 1 and {MAX_CHOICES}.", "Correct it.", param="n")
    return count


def _include_usage(body: SharedBody) -> bool:
    return bool(body.stream_options and body.stream_options.include_usage)


def _find(fleet: Fleet, name: str | None) -> tuple[str, Offer]:
    if not name:
        raise RefusedError(
            "invalid", "you must provide a model parameter.", "/v1/models lists what is served.", param="model"
        )
    return name, fleet.catalogue.find(name)


def _entry(name: str, offer: Offer) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": offer.created, "owned_by": "servolt"}


ROUTES = {
    ("GET", "/v1/models"): models,
    ("POST", "/v1/chat/completions"): chat,
    ("POST", "/v1/completions"): completions,
}
