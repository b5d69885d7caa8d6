"""Tokens a second of the real engine, through the gateway and asked directly, in interleaved pairs."""

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from servolt import registry
from servolt.command import Server
from servolt.deployment import Deployment
from servolt.host.cpu import ProcessTree, machine_busy_s
from servolt.serve.supervisor import Supervisor
from servolt.sources import find_model

HERE = Path(__file__).parent
STREAMS = 16
# Answers of different lengths, in turn, as in real life: were they all alike, 16 streams would end in one step of the
# engine, and the figure would be that of 16 requests in a row. 128 on average.
LENGTHS = (64, 192, 96, 160, 80, 176, 112, 144)
PROMPT = "Write a story."


async def throughput(pairs: int, *, seconds: float) -> dict[str, list[float]]:
    """`direct` and `through` in tokens a second, `ratio` of each pair, and the cores that other programs used.

    Every second pair runs in the other order. With two cores and a foreign program on one of them, the ratio says how
    three programs share the other core, not what the gateway costs.
    """
    deployment = Deployment.of("guide:q8_0", max_num_seqs=STREAMS, max_model_len=512)
    command = registry.engine(deployment.engine).command(deployment, find_model(deployment))
    with tempfile.TemporaryDirectory() as logs:
        supervisor = Supervisor(command, registry.launcher("process"), logs=Path(logs))
        server = await supervisor.ensure_ready()
        try:
            return await _pairs(server, supervisor.api_key, pairs, seconds)
        finally:
            await supervisor.stop()


async def _pairs(server: Server, api_key: str, pairs: int, seconds: float) -> dict[str, list[float]]:
    relay = await asyncio.create_subprocess_exec(
        *(sys.executable, str(HERE / "relay.py"), "--upstream", server.url),
        stdout=asyncio.subprocess.PIPE,
        env={"UPSTREAM_KEY": api_key},
    )
    try:
        assert relay.stdout is not None
        through = (await relay.stdout.readline()).decode().strip()
        await _tokens_per_s(through, "", 1.0)
        await _tokens_per_s(server.url, api_key, 1.0)
        found: dict[str, list[float]] = {"direct": [], "through": [], "ratio": [], "foreign_cores": []}
        for number in range(pairs):
            order = ["direct", "through"] if number % 2 else ["through", "direct"]
            began, busy_s, own_s = time.monotonic(), machine_busy_s(), _own_s()
            for name in order:
                address = (server.url, api_key) if name == "direct" else (through, "")
                found[name].append(await _tokens_per_s(*address, seconds))
            found["ratio"].append(found["through"][-1] / found["direct"][-1])
            foreign_s = machine_busy_s() - busy_s - (_own_s() - own_s)
            found["foreign_cores"].append(max(0.0, foreign_s / (time.monotonic() - began)))
        return found
    finally:
        relay.terminate()
        await relay.wait()


def _own_s() -> float:
    """Of this process and all that it started."""
    return ProcessTree(os.getpid()).cpu_s() or 0.0


async def _tokens_per_s(url: str, api_key: str, seconds: float) -> float:
    """Every request makes the tokens it asks for, since its own stop is switched off. Counted is what arrived."""
    flags = ["--url", f"{url}/v1/chat/completions", "--key", api_key, "--prompt", PROMPT, "--streams", str(STREAMS)]
    flags += ["--fields", json.dumps({"ignore_eos": True, "temperature": 1.0})]
    flags += ["--max-tokens", ",".join(map(str, LENGTHS))]
    flags += ["--seconds", str(seconds), *(["--reconnect"] if api_key else [])]
    load = await asyncio.create_subprocess_exec(
        sys.executable, str(HERE / "load.py"), *flags, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await load.communicate()
    seen = json.loads(output)
    return float(seen["texts"] / seen["wall_s"])
