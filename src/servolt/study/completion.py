"""One streamed completion asked of a llama.cpp server, as little as the engine's own clock needs."""

import asyncio
import json
import time
from typing import NamedTuple

from servolt.errors import EngineLostError

__all__ = ["Timing", "complete"]

# The first ids of every probe are its special tokens.
FIRST_ORDINARY_TOKEN = 16
ANSWER_S = 60.0


class Timing(NamedTuple):
    """By the engine's clock, but for the ends, which are ours."""

    prompt_s: float
    decode_s: float
    tokens: int
    start_s: float
    end_s: float


async def complete(url: str, api_key: str, *, prompt_tokens: int, tokens: int) -> Timing:
    """Raises EngineLostError if the engine does not answer in full."""
    start = time.perf_counter()
    try:
        async with asyncio.timeout(ANSWER_S):
            answer = await _post(url, api_key, prompt_tokens, tokens)
    except (OSError, TimeoutError) as error:
        raise EngineLostError(f"the engine did not answer: {error}.", "Look into its log.") from error
    end = time.perf_counter()
    # With n_predict 1 the only event is the last; each event is one line.
    events = [line for line in answer.split(b"\n") if line.startswith(b"data: {") and b'"timings"' in line]
    if not events:
        raise EngineLostError(f"the engine answered {answer[:200]!r}.", "Look into its log.")
    timings = json.loads(events[-1].removeprefix(b"data: "))["timings"]
    return Timing(timings["prompt_ms"] / 1e3, timings["predicted_ms"] / 1e3, timings["predicted_n"], start, end)


async def _post(url: str, api_key: str, prompt_tokens: int, tokens: int) -> bytes:
    host, _, port = url.removeprefix("http://").rpartition(":")
    ids = [FIRST_ORDINARY_TOKEN + index % 200 for index in range(prompt_tokens)]
    asked = {"prompt": ids, "n_predict": tokens, "ignore_eos": True, "cache_prompt": False, "temperature": 0}
    body = json.dumps({**asked, "stream": True}).encode()
    head = (
        f"POST /completion HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {api_key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(head.encode() + body)
        await writer.drain()
        return await reader.read(-1)
    finally:
        writer.close()
