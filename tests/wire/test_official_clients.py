"""The clients that people have: `ollama` and `openai` from PyPI."""

from collections.abc import Iterator
from typing import Any

import ollama
import openai
import pytest

QUESTION: Any = [{"role": "user", "content": "What is TTFT?"}]


@pytest.fixture(scope="module")
def ours(served: Any) -> Iterator[ollama.Client]:
    with ollama.Client(host=served.url) as client:
        yield client


@pytest.fixture(scope="module")
def theirs(served: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_ollama_chats(ours: ollama.Client) -> None:
    reply = ours.chat("guide", QUESTION)
    assert "time to first token" in (reply.message.content or "")
    assert (reply.done, reply.done_reason) == (True, "stop")
    assert reply.eval_count
    assert reply.eval_duration


def test_ollama_streams_a_chat(ours: ollama.Client) -> None:
    parts = list(ours.chat("guide", QUESTION, stream=True))
    assert "time to first token" in "".join(part.message.content or "" for part in parts)
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert len(parts) - 1 <= (parts[-1].eval_count or 0)


def test_ollama_generates_whole_and_streamed_and_goes_on_from_the_context(ours: ollama.Client) -> None:
    reply = ours.generate("guide", "What is TTFT?")
    assert "first token" in (reply.response or "")
    streamed = list(ours.generate("guide", "What is TTFT?", stream=True))
    assert streamed[-1].context is not None
    assert reply.context is not None
    again = ours.generate("guide", "What is TPOT?", context=list(reply.context))
    assert (again.prompt_eval_count or 0) > len(reply.context)
    assert list(again.context or ())[: len(reply.context)] == list(reply.context)


def test_ollama_lists_shows_and_tells_what_runs(ours: ollama.Client, served: Any) -> None:
    ours.chat("guide", QUESTION)
    listed = {model.model: model for model in ours.list().models}
    assert {"guide:latest", "guide:q8_0", "guide:f16"} <= set(listed)
    assert len(listed["guide:latest"].digest or "") == 64
    shown = ours.show("guide")
    assert "completion" in (shown.capabilities or ())
    assert (shown.modelinfo or {})["general.architecture"] == "llama"
    assert (shown.modelinfo or {})["llama.context_length"] == 2048
    running = {model.model: model for model in ours.ps().models}
    assert int(running["guide:latest"].size or 0) > 10_000_000
    assert running["guide:latest"].expires_at is not None


def test_two_deployments_of_one_model_run_beside_each_other(ours: ollama.Client, served: Any) -> None:
    assert ours.chat("guide:f16", QUESTION).done
    assert ours.chat("GUIDE:q8_0", QUESTION).done
    assert {"guide:latest", "guide:f16"} <= {model.model for model in ours.ps().models}
    assert len(served.engines()) == 2
    ours.generate("guide:f16", keep_alive=0)
    assert len(served.engines()) == 1
    assert ours.generate("guide:f16").done_reason == "load"


def test_ollamas_errors_have_their_status(ours: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="not found") as caught:
        ours.chat("nope", QUESTION)
    assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="does not support embed") as caught:
        ours.embed("guide", "text")
    assert caught.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match="does not support thinking"):
        ours.chat("guide", QUESTION, think=True)


def test_ollama_takes_a_schema(ours: ollama.Client) -> None:
    schema = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}
    reply = ours.chat("guide", QUESTION, format=schema, options={"temperature": 0})
    assert (reply.message.content or "").replace(" ", "").startswith('{"yes":')


def test_openai_chats(theirs: openai.OpenAI) -> None:
    reply = theirs.chat.completions.create(model="guide", messages=QUESTION, temperature=0, max_completion_tokens=60)
    assert "time to first token" in (reply.choices[0].message.content or "")
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_openai_streams_a_chat_with_usage(theirs: openai.OpenAI) -> None:
    chunks = list(
        theirs.chat.completions.create(
            model="guide", messages=QUESTION, stream=True, stream_options={"include_usage": True}, temperature=0
        )
    )
    assert "time to first token" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens >= len(chunks) - 3


def test_openai_completes_text_and_tokens(theirs: openai.OpenAI) -> None:
    reply = theirs.completions.create(model="guide", prompt=["What", "is"], max_tokens=3, logprobs=1, n=1)
    assert [choice.index for choice in reply.choices] == [0, 1]
    assert reply.choices[0].logprobs is not None  # even where the answer ended at once
    assert theirs.completions.create(model="guide", prompt=[[5, 6], [7]], max_tokens=2).usage is not None
    streamed = list(theirs.completions.create(model="guide", prompt="What", max_tokens=3, stream=True))
    assert streamed[-1].choices[0].finish_reason in ("stop", "length")


def test_openai_gives_the_probabilities_of_a_chat(theirs: openai.OpenAI) -> None:
    reply = theirs.chat.completions.create(
        model="guide", messages=QUESTION, logprobs=True, top_logprobs=2, max_tokens=2
    )
    assert reply.choices[0].logprobs is not None
    assert len((reply.choices[0].logprobs.content or [])[0].top_logprobs) == 2


def test_openai_lists_and_retrieves_models(theirs: openai.OpenAI) -> None:
    assert {"guide", "guide:f16"} <= {model.id for model in theirs.models.list()}
    assert theirs.models.retrieve("guide:f16").id == "guide:f16"
    with pytest.raises(openai.NotFoundError):
        theirs.models.retrieve("no/such/model")


def test_openais_errors_are_of_their_class(theirs: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        theirs.chat.completions.create(model="nope", messages=QUESTION)
    assert missing.value.code == "model_not_found"
    too_long: Any = [{"role": "user", "content": "hello " * 5000}]
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as overflow:
            theirs.chat.completions.create(model="guide", messages=too_long, stream=stream)
        assert overflow.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as negative:
        theirs.chat.completions.create(model="guide", messages=QUESTION, max_tokens=-1)
    assert negative.value.param == "max_tokens"


def test_a_refusal_is_not_asked_again(served: Any) -> None:
    requests = 'servolt_requests_total{route="/v1/chat/completions",status="400"}'

    def refused() -> float:
        page = served.raw("GET", "/metrics").decode()
        return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith(requests))

    before = refused()
    client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=3)
    with client, pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="guide", messages=[])
    assert refused() == before + 1
