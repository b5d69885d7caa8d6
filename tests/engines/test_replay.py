"""The replay engine as a server: llama.cpp's protocol with its traps, times that follow from the law."""

import asyncio
import http.client
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from servolt import registry
from servolt.deployment import Deployment
from servolt.engines.replay import Replay
from servolt.engines.replay_law import Law
from servolt.errors import InvalidInputError, ModelFileError
from servolt.serve.supervisor import Supervisor
from servolt.sources import find_model

QUICK = "replay?step_s=0.001&step_s_per_sequence=0.0005&prefill_s_per_token=0.0001&output_tokens=8"


class Client:
    """Requests to one replay server."""

    def __init__(self, port: int, key: str) -> None:
        self.port, self.headers = port, {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def raw(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request(method, path, body, {**self.headers, **headers})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text

    def post(self, path: str, **body: Any) -> tuple[int, Any]:
        status, text = self.raw("POST", path, json.dumps(body).encode())
        return status, json.loads(text)

    def events(self, path: str, **body: Any) -> list[Any]:
        status, text = self.raw("POST", path, json.dumps({**body, "stream": True}).encode())
        assert status == 200
        parts = text.split("\n\n")
        assert parts[-2:] == ["data: [DONE]", ""]
        return [json.loads(part.removeprefix("data: ")) for part in parts[:-2]]

    def readings(self) -> dict[str, float]:
        return dict(Replay().readings(self.raw("GET", "/metrics")[1]))


@contextmanager
def served(model: str, logs: Path, **settings: Any) -> Iterator[Client]:
    deployment = Deployment.of(model, engine="replay", **settings)
    command = Replay().command(deployment, find_model(deployment))
    supervisor = Supervisor(command, registry.launcher("process"), logs=logs)
    with asyncio.Runner() as runner:
        server = runner.run(supervisor.ensure_ready())
        try:
            yield Client(server.command.port or 0, supervisor.api_key)
        finally:
            runner.run(supervisor.stop())


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with served(QUICK, tmp_path_factory.mktemp("logs"), max_model_len=256) as client:
        yield client


CHAT = {"messages": [{"role": "user", "content": "what is time"}]}


def test_a_chat_starts_with_the_role_has_more_chunks_than_tokens_and_ends_with_the_counts(client: Client) -> None:
    events = client.events("/v1/chat/completions", **CHAT, stream_options={"include_usage": True})
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": None}
    assert [event["choices"][0]["delta"].get("content") is not None for event in events[1:-2]] == [True] * 8
    assert events[-2]["choices"][0] == {"index": 0, "finish_reason": "stop", "delta": {}}
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] == 8
    assert events[-1]["timings"]["predicted_n"] == 8


def test_a_completion_of_token_ids_is_as_long_as_asked(client: Client) -> None:
    asked = {"max_tokens": 20, "ignore_eos": True, "stream_options": {"include_usage": True}}
    events = client.events("/v1/completions", prompt=[[5, 6, 7]], timings_per_token=True, **asked)
    assert len(events) == 20 + 1
    assert [event["timings"]["predicted_n"] for event in events] == [*range(1, 21), 20]
    assert events[-1]["choices"][0] == {"index": 0, "finish_reason": "length", "text": ""}
    assert events[-1]["usage"]["prompt_tokens"] == 3


def test_the_engines_own_times_are_the_laws(client: Client) -> None:
    law = Law(step_s=0.001, step_s_per_sequence=0.0005, prefill_s_per_token=0.0001)
    _, answer = client.post("/v1/completions", prompt=list(range(100, 150)), max_tokens=6)
    assert answer["timings"]["prompt_ms"] == pytest.approx(law.prefill(50) * 1e3)
    assert answer["timings"]["predicted_ms"] == pytest.approx(law.step(1) * 5 * 1e3, abs=1e-3)


def test_whole_answers_and_streams_say_the_same(client: Client) -> None:
    _, whole = client.post("/v1/chat/completions", **CHAT)
    events = client.events("/v1/chat/completions", **CHAT)
    streamed = "".join(event["choices"][0]["delta"].get("content") or "" for event in events)
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": streamed}
    assert whole["choices"][0]["finish_reason"] == "stop"
    assert "usage" not in events[-1]


def test_a_prompt_that_is_too_long_is_refused_as_llama_cpp_does(client: Client) -> None:
    status, answer = client.post("/v1/completions", prompt=[5] * 256)
    assert status == 400
    assert answer["error"]["type"] == "exceed_context_size_error"
    assert (answer["error"]["n_prompt_tokens"], answer["error"]["n_ctx"]) == (256, 256)


def test_the_context_bounds_the_answer(client: Client) -> None:
    _, answer = client.post("/v1/completions", prompt=[5] * 250, max_tokens=100, ignore_eos=True)
    assert answer["usage"]["total_tokens"] == 256
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", b'{"prompt": [5, 6'),
        ("/v1/completions", b"[]"),
        ("/v1/completions", b'{"prompt": ""}'),
        ("/v1/completions", b'{"prompt": {"a": 1}}'),
        ("/v1/completions", b'{"prompt": [-1]}'),
        ("/v1/completions", b'{"prompt": [[5], [6]]}'),
        ("/v1/completions", b'{"prompt": "a", "max_tokens": "many"}'),
        ("/v1/chat/completions", b'{"messages": []}'),
        ("/v1/chat/completions", b'{"messages": ["hello"]}'),
    ],
)
def test_a_request_that_is_none_gets_an_error(client: Client, path: str, body: bytes) -> None:
    status, text = client.raw("POST", path, body)
    assert status == 400
    assert json.loads(text)["error"]["type"] == "invalid_request_error"


def test_other_pages_are_there_and_strangers_are_not_let_in(client: Client) -> None:
    assert client.raw("GET", "/health") == (200, '{"status":"ok"}')
    assert client.raw("GET", "/health", Authorization="")[0] == 200
    assert client.raw("GET", "/props", Authorization="Bearer other")[0] == 401
    assert client.raw("GET", "/nothing")[0] == 404
    assert json.loads(client.raw("GET", "/props")[1])["total_slots"] == 8
    assert len(client.post("/tokenize", content="three words here")[1]["tokens"]) == 3
    assert json.loads(client.raw("GET", "/v1/models")[1])["data"][0]["id"] == QUICK


def test_counters_grow_by_what_was_served(client: Client) -> None:
    before = client.readings()
    _, answer = client.post("/v1/completions", prompt=list(range(200, 240)), max_tokens=5)
    after = client.readings()
    assert after["prompt_tokens"] - before["prompt_tokens"] == 40
    assert after["output_tokens"] - before["output_tokens"] == answer["usage"]["completion_tokens"] == 5
    assert after["prefill_s"] - before["prefill_s"] == pytest.approx(40 * 0.0001)
    assert after["requests_running"] == after["requests_waiting"] == 0
    assert after["energy_joules"] > before["energy_joules"]


def test_it_stops_when_the_client_leaves(tmp_path: Path) -> None:
    with served("replay?step_s=0.005&output_tokens=4000", tmp_path, max_num_seqs=1) as client:
        connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=20)
        body = json.dumps({**CHAT, "stream": True})
        connection.request("POST", "/v1/chat/completions", body, client.headers)
        assert connection.getresponse().read1(10)
        assert client.readings()["requests_running"] == 1
        connection.close()
        _until(lambda: client.readings()["requests_aborted"] == 1)
        made = client.readings()["output_tokens"]
        assert client.readings()["requests_running"] == 0
        assert client.readings()["output_tokens"] == made < 4000


def test_it_answers_503_while_it_loads(tmp_path: Path) -> None:
    deployment = Deployment.of("replay?load_s=30", engine="replay")
    command = Replay().command(deployment, find_model(deployment))

    async def run() -> tuple[int, str]:
        server = await registry.launcher("process").start(command, secrets={}, log_path=tmp_path / "log")
        try:
            return await asyncio.to_thread(_first_answer, server.command.port or 0)
        finally:
            await server.stop(0)

    status, text = asyncio.run(run())
    assert status == 503
    assert json.loads(text)["error"]["message"] == "Loading model"


def _first_answer(port: int) -> tuple[int, str]:
    deadline = time.monotonic() + 20
    while True:
        try:
            return Client(port, "").raw("GET", "/health")
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_chunks_can_be_bundled(tmp_path: Path) -> None:
    with served(QUICK + "&tokens_per_chunk=3", tmp_path) as client:
        events = client.events("/v1/completions", prompt=[5, 6], timings_per_token=True)
        assert [event["timings"]["predicted_n"] for event in events] == [3, 6, 8, 8]


def test_a_command_states_the_whole_law() -> None:
    deployment = Deployment.of("replay?step_s=0.5", engine="replay", max_num_seqs=3, enable_prefix_caching=False)
    argv = " ".join(Replay().command(deployment, find_model(deployment)).argv[3:])
    assert argv == (
        "-a replay?step_s=0.5 --host 127.0.0.1 --port {port} -np 3 -c 4096 --no-cache-prompt --load-s 0"
        " --prefill-s-per-token 0.0002 --step-s 0.5 --step-s-per-sequence 0.001 --prefix-block-tokens 16"
        " --output-tokens 32 --tokens-per-chunk 1 --idle-watts 10 --busy-watts 40 --seed 0"
    )


def test_it_takes_no_model_with_weights_and_no_law_that_is_none() -> None:
    deployment = Deployment.of("guide", engine="replay")
    model = find_model(deployment)
    with pytest.raises(ModelFileError, match="can't run guide"):
        Replay().command(deployment, model)
    wrong = Deployment.of("replay?speed=1", engine="replay")
    with pytest.raises(InvalidInputError, match="the law has no speed"):
        Replay().command(wrong, find_model(wrong))
    codes = {problem.code: problem.severity for problem in Replay().problems(deployment, model, [])}
    assert codes == {"fake_engine": "note", "model_format": "error"}
