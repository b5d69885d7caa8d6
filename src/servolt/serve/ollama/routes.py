"""What Ollama's routes do."""

from collections.abc import Mapping
from time import monotonic
from typing import Any

import servolt
from servolt.host.cpu import ProcessTree
from servolt.serve.abilities import abilities
from servolt.serve.body import dropped_rows, fields_of, parse_object
from servolt.serve.catalogue import Offer
from servolt.serve.durations import keep_alive_s
from servolt.serve.events import Answer
from servolt.serve.exchange import Exchange
from servolt.serve.fleet import Fleet
from servolt.serve.forced_call import CallWriter, call_of, force
from servolt.serve.generation import Generation
from servolt.serve.ollama import models, options
from servolt.serve.ollama.prompts import (
    ContextWriter,
    chat_messages,
    generate_messages,
    next_context,
    tokens_with_context,
)
from servolt.serve.ollama.wire import ChatBody, EmbedBody, GenerateBody, LineWriter, ShowBody, timestamp, whole
from servolt.serve.refusal import RefusedError
from servolt.serve.request import EmbeddingRequest, GenerationRequest
from servolt.serve.tools import offered

__all__ = ["ROUTES"]

DIGEST_PATIENCE_S = 5.0  # a list of models does not wait longer for the hash of a large file; the next list has it
MAX_TEXTS = 2048  # of one embedding request, OpenAI's bound

_GENERATE_FIELDS = frozenset(GenerateBody.__struct_fields__)
_CHAT_FIELDS = frozenset(ChatBody.__struct_fields__)
_EMBED_FIELDS = frozenset(EmbedBody.__struct_fields__) - {"options"}


async def root(exchange: Exchange, fleet: Fleet) -> None:
    await exchange.reply_bytes(200, b"Ollama is running", [(b"content-type", b"text/plain; charset=utf-8")])


async def version(exchange: Exchange, fleet: Fleet) -> None:
    await exchange.reply(200, {"version": servolt.__version__})


async def tags(exchange: Exchange, fleet: Fleet) -> None:
    entries = []
    for offer in fleet.catalogue:
        digest = await fleet.digests.of(offer.model, DIGEST_PATIENCE_S)
        entries += [models.tag_entry(name, offer, digest) for name in models.shown_names(offer)]
    await exchange.reply(200, {"models": entries})


async def processes(exchange: Exchange, fleet: Fleet) -> None:
    entries = []
    for resident in fleet.loaded():
        offer = resident.offer
        pid = resident.server.pid if resident.server else None
        held = None if pid is None else ProcessTree(pid).resident_bytes()
        digest = await fleet.digests.of(offer.model, DIGEST_PATIENCE_S)
        entries.append(models.process_entry(models.shown_names(offer)[0], resident, held, digest))
    await exchange.reply(200, {"models": entries})


async def show(exchange: Exchange, fleet: Fleet) -> None:
    body = fields_of(parse_object(await exchange.body()), ShowBody)
    name, offer = _find(fleet, body.model or body.name)
    await exchange.reply(200, models.show(name, offer, fleet.known(offer)))


async def chat(exchange: Exchange, fleet: Fleet) -> None:
    started = monotonic()
    plain = parse_object(await exchange.body())
    body = fields_of(plain, ChatBody)
    name, offer = _find(fleet, body.model)
    seconds = keep_alive_s(body.keep_alive)
    exchange.report += dropped_rows(plain, _CHAT_FIELDS, {})
    if not body.messages:
        await _load_or_unload(exchange, fleet, offer, name, seconds, is_chat=True)
        return
    request = await _request(exchange, fleet, offer, body, seconds)
    request.messages = chat_messages(body.messages)
    if body.tools:
        _require(offer, "tools", name)
    tools = offered(body.tools, body.tool_choice)
    request.tools = tools.tools or None
    if tools.forced:
        exchange.report += force(request, tools)
    generation = Generation(exchange, fleet.resident(offer), [request], fleet.telemetry, seconds)
    if body.stream is not False:
        writer = LineWriter(name, is_chat=True, started=started)
        await generation.stream(CallWriter(writer) if tools.forced else writer)
        return
    answer = (await generation.answers())[0]
    if tools.forced:
        answer = call_of(answer)
    await exchange.reply(200, whole(name, answer, monotonic() - started, generation.load_s, is_chat=True))


async def generate(exchange: Exchange, fleet: Fleet) -> None:
    started = monotonic()
    plain = parse_object(await exchange.body())
    body = fields_of(plain, GenerateBody)
    name, offer = _find(fleet, body.model or body.name)
    seconds = keep_alive_s(body.keep_alive)
    exchange.report += dropped_rows(plain, _GENERATE_FIELDS, {})
    _check_generate(body, offer, name)
    if not body.prompt:
        await _load_or_unload(exchange, fleet, offer, name, seconds, is_chat=False)
        return
    request = await _request(exchange, fleet, offer, body, seconds)
    resident = fleet.resident(offer)
    if body.raw:
        request.prompt = body.prompt
    elif body.context:
        async with resident.place(seconds):
            request.prompt = await tokens_with_context(await resident.upstream(), body)
    else:
        request.messages = generate_messages(body)
    generation = Generation(exchange, resident, [request], fleet.telemetry, seconds)
    if body.stream is not False:
        writer = LineWriter(name, is_chat=False, started=started)
        await generation.stream(writer if body.raw else ContextWriter(name, body, started=started))
        return
    context: list[int] | None = None

    async def go_on(answer: Answer) -> None:
        nonlocal context
        context = await next_context(await resident.upstream(), body, answer.text)

    answer = await generation.answer(request, then=None if body.raw else go_on)
    reply = whole(name, answer, monotonic() - started, generation.load_s, is_chat=False)
    await exchange.reply(200, reply if context is None else reply | {"context": context})


async def embed(exchange: Exchange, fleet: Fleet) -> None:
    started = monotonic()
    plain = parse_object(await exchange.body())
    body = fields_of(plain, EmbedBody)
    name, offer = _find(fleet, body.model)
    exchange.report += dropped_rows(plain, _EMBED_FIELDS, {"options": "no option changes a vector"})
    exchange.report += options.uncut_rows(body.truncate, None)
    texts = [body.input] if isinstance(body.input, str) else body.input or []
    if len(texts) > MAX_TEXTS:
        raise RefusedError(
            "invalid",
            f"input holds {len(texts)} texts, at most {MAX_TEXTS} are read.",
            "Send them in several requests.",
            param="input",
        )
    _require(offer, "embedding", name)
    if body.dimensions is not None and body.dimensions != offer.model.hidden_size:
        raise RefusedError(
            "unsupported",
            f"Vectors of this model have {offer.model.hidden_size} dimensions.",
            "Leave dimensions out.",
            param="dimensions",
        )
    resident = fleet.resident(offer)
    async with resident.place(keep_alive_s(body.keep_alive)) as load_s:
        upstream = await resident.upstream()
        vectors, tokens = await upstream.embed(EmbeddingRequest(texts)) if texts else ([], 0)
    reply: dict[str, Any] = {"model": name, "embeddings": vectors}
    if tokens is not None:
        reply["prompt_eval_count"] = tokens
    durations = {"total_duration": round((monotonic() - started) * 1e9), "load_duration": round(load_s * 1e9)}
    await exchange.reply(200, reply | durations)


def _find(fleet: Fleet, name: str | None) -> tuple[str, Offer]:
    if not name:
        raise RefusedError("invalid", "model is required.", "/api/tags lists what is served.", param="model")
    return name, fleet.catalogue.find(name)


def _require(offer: Offer, ability: str, name: str) -> None:
    if ability not in abilities(offer.model):
        raise RefusedError(
            "unsupported", f'"{name[:200]}" does not support {ability}.', "/api/tags lists what each model can do."
        )


async def _request(
    exchange: Exchange, fleet: Fleet, offer: Offer, body: ChatBody | GenerateBody, keep_alive: float | None
) -> GenerationRequest:
    """What generate and chat have in common."""
    _require(offer, "completion", body.model or offer.name)
    sampling, rows = options.sampling_of(body.options)
    exchange.report += rows
    if body.options and body.options.get("num_ctx") is not None:
        resident = fleet.resident(offer)
        if resident.max_model_len is None:
            await resident.load(keep_alive)  # what the context is, the engine says once it has run
        exchange.report += options.check_context(body.options, resident.max_model_len)
    if body.truncate or body.shift:
        exchange.report += options.uncut_rows(body.truncate, body.shift)
    request = GenerationRequest(sampling=sampling, response_format=options.response_format(body.format))
    if body.top_logprobs is not None and not 0 <= body.top_logprobs <= 20:
        raise RefusedError("invalid", "top_logprobs must be between 0 and 20.", "Correct it.", param="top_logprobs")
    if body.logprobs:
        request.logprobs = True
        sampling.top_logprobs = body.top_logprobs or 0
    if body.think:
        _require(offer, "thinking", body.model or offer.name)
    if body.think is not None and "thinking" in abilities(offer.model):
        request.template_values = {"enable_thinking": bool(body.think)}
    return request


def _check_generate(body: GenerateBody, offer: Offer, name: str) -> None:
    if body.raw and (body.template or body.system or body.context):
        raise RefusedError(
            "invalid",
            "raw mode does not support template, system, or context.",
            "Write all of it into the prompt, or leave raw out.",
        )
    if body.template:
        raise RefusedError("unsupported", "A template of the request's own is not run.", "Send a raw prompt instead.")
    if body.suffix:
        raise RefusedError("unsupported", f'"{name[:200]}" does not support insert.', "Leave suffix out.")
    if body.images:
        raise RefusedError("unsupported", f'"{name[:200]}" does not support images.', "Leave images out.")


async def _load_or_unload(
    exchange: Exchange, fleet: Fleet, offer: Offer, name: str, seconds: float | None, *, is_chat: bool
) -> None:
    """An empty prompt loads the model; with keep_alive 0 it unloads it."""
    resident = fleet.resident(offer)
    reason = "unload" if seconds == 0 else "load"
    if reason == "unload":
        await resident.unload()
    else:
        await resident.load(seconds)
    said: Mapping[str, Any] = {"message": {"role": "assistant", "content": ""}} if is_chat else {"response": ""}
    await exchange.reply(200, {"model": name, "created_at": timestamp(), **said, "done": True, "done_reason": reason})


ROUTES = {
    ("GET", "/"): root,
    ("GET", "/api/version"): version,
    ("GET", "/api/tags"): tags,
    ("GET", "/api/ps"): processes,
    ("POST", "/api/show"): show,
    ("POST", "/api/chat"): chat,
    ("POST", "/api/generate"): generate,
    ("POST", "/api/embed"): embed,
}
