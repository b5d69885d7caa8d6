"""One HTTP response with server-sent events, fed in any split, read to the byte.

It keeps what is measured: when each token-bearing event was complete, how many tokens it bore, and how it all ended.
"""

from typing import Any

import orjson

__all__ = ["Response"]

HEAD_LIMIT = 64 * 1024  # bytes of status line and headers; servers in the field stay below 16 KiB
LINE_LIMIT = 16 * 1024 * 1024  # bytes of one event or of an error's body; a guard against a server that never ends one


class Response:
    """Feed it `feed(t_ns, data)` and, when the connection ends, `end_of_input()`; then read its attributes.

    An event's time is that of the read that brought its last byte. Tokens of an event come from the growth of a
    cumulative count where the server sends one (llama.cpp's `timings.predicted_n`, a `usage` in each chunk), else an
    event with text counts as one.
    """

    def __init__(self) -> None:
        self.status: int | None = None
        self.keep_alive = True
        self.done = False  # the HTTP response is complete
        self.finished = False  # the stream said so itself: a finish reason or [DONE]
        self.broken: str | None = None  # not HTTP, or an event that is not JSON
        self.error: str | None = None  # the server's own words
        self.finish_reason: str | None = None
        self.times: list[int] = []
        self.tokens: list[int] = []
        self.cumulative = False  # whether a running count told the tokens of each event
        self.n_in: int | None = None
        self.n_out: int | None = None
        self.cached: int | None = None
        self.prefill_ms: float | None = None
        self.decode_ms: float | None = None
        self._count = 0
        self._raw = b""  # bytes not yet taken: of the head, or of the chunked framing
        self._left: int | None = None  # body bytes still to come, of this chunk or of the whole; None until known
        self._chunked = False
        self._trailer = False
        self._chunk_open = False  # a chunk's data is read, its line end is not
        self._sse = False
        self._line = b""
        self._data: list[bytes] = []

    def feed(self, t_ns: int, data: bytes) -> None:
        if self.done or self.broken:
            return
        if self.status is None:
            rest = self._head(data)
            if rest is None:
                return
            data = rest
        if self._chunked:
            self._unchunk(t_ns, data)
        else:
            self._plain(t_ns, data)

    def end_of_input(self) -> None:
        """The connection ended: the end of a body without length, otherwise a cut."""
        if self.status is not None and not self._chunked and self._left is None and not self.done:
            self.keep_alive = False
            self._close()

    def _head(self, data: bytes) -> bytes | None:
        """What follows the head, None while it is not complete."""
        self._raw += data
        head, mark, rest = self._raw.partition(b"\r\n\r\n")
        if not mark:
            if len(self._raw) > HEAD_LIMIT:
                self.broken = "a head without an end"
            return None
        lines = head.split(b"\r\n")
        parts = lines[0].split(None, 2)
        if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
            self.broken = "no HTTP/1 status line"
            return None
        self._raw = b""
        if 100 <= int(parts[1]) < 200:  # an interim answer: the real one follows
            return self._head(rest) if rest else None
        self.keep_alive = parts[0] != b"HTTP/1.0"
        self.status = int(parts[1])
        self._headers(lines[1:])
        return rest

    def _headers(self, lines: list[bytes]) -> None:
        for line in lines:
            name, _, value = line.partition(b":")
            name, value = name.strip().lower(), value.strip().lower()
            if name == b"transfer-encoding":
                self._chunked = value.endswith(b"chunked")
            elif name == b"content-length" and value.isdigit():
                self._left = int(value)
            elif name == b"connection":
                self.keep_alive = b"close" not in value
            elif name == b"content-type":
                self._sse = value.startswith(b"text/event-stream")
        if self._left == 0 and not self._chunked:
            self._close()

    def _plain(self, t_ns: int, data: bytes) -> None:
        if self._left is None:
            self._body(t_ns, data)
            return
        self._body(t_ns, data[: self._left])
        self._left -= min(self._left, len(data))
        if self._left == 0 and not self.done:
            self._close()

    def _unchunk(self, t_ns: int, data: bytes) -> None:
        raw = self._raw + data if self._raw else data
        at = 0
        while at < len(raw):
            if self._left:
                piece = raw[at : at + self._left]
                self._left -= len(piece)
                at += len(piece)
                self._chunk_open = self._left == 0
                self._body(t_ns, piece)
                continue
            end = raw.find(b"\n", at)
            if end < 0:
                break
            self._chunk_line(raw[at:end].strip())
            at = end + 1
            if self.done or self.broken:
                return
        self._raw = raw[at:]
        if len(self._raw) > HEAD_LIMIT:
            self.broken = "a chunk size without an end"

    def _chunk_line(self, line: bytes) -> None:
        """A line of the chunked framing: a chunk's end, a size, or a trailer."""
        if self._chunk_open:
            self._chunk_open = False
            if line:
                self.broken = "a chunk longer than it said"
        elif self._trailer:
            if not line:
                self._close()
        else:
            try:
                self._left = int(line.partition(b";")[0], 16)
            except ValueError:
                self.broken = "no chunk size"
                return
            self._trailer = self._left == 0

    def _body(self, t_ns: int, data: bytes) -> None:
        if len(self._line) + len(data) > LINE_LIMIT:
            self.broken = "an event without an end"
            return
        if not self._sse:
            self._line += data
            return
        lines = (self._line + data if self._line else data).split(b"\n")
        self._line = lines.pop()
        for line in lines:
            self._text_line(t_ns, line.removesuffix(b"\r"))

    def _text_line(self, t_ns: int, line: bytes) -> None:
        if line.startswith(b"data:"):
            self._data.append(line[5:].strip())
        elif not line and self._data:
            event = b"\n".join(self._data)
            self._data.clear()
            self._event(t_ns, event)
        # all else is a comment that keeps the connection alive, or a field we don't need

    def _event(self, t_ns: int, text: bytes) -> None:
        if text == b"[DONE]":
            self.finished = True
            return
        try:
            event = orjson.loads(text)
        except orjson.JSONDecodeError:
            event = None
        if not isinstance(event, dict):
            self.broken = "an event that is no JSON object"
            return
        self._take(t_ns, event)

    def _take(self, t_ns: int, event: dict[str, Any]) -> None:
        if event.get("error") is not None:
            self.error = _words(event["error"])
            return
        usage, timings = event.get("usage"), event.get("timings")
        if usage:
            self._usage(usage)
        if timings:
            self._timings(timings)
        choices = event.get("choices")
        if choices:
            self._choice(t_ns, choices[0], _running_count(usage, timings))

    def _choice(self, t_ns: int, choice: dict[str, Any], count: int | None) -> None:
        if choice.get("finish_reason"):
            self.finish_reason = choice["finish_reason"]
            self.finished = True
        has_text = _has_text(choice)
        # A total that comes only with the end says nothing about which event bore how many tokens.
        running = count is not None and (self.cumulative or not choice.get("finish_reason"))
        self.cumulative = self.cumulative or running
        grown = count - self._count if running and count is not None else int(has_text)
        if grown > 0:
            self._count += grown
            self.times.append(t_ns)
            self.tokens.append(grown)

    def _usage(self, usage: dict[str, Any]) -> None:
        self.n_in, self.n_out = usage.get("prompt_tokens", self.n_in), usage.get("completion_tokens", self.n_out)
        details = usage.get("prompt_tokens_details") or {}
        self.cached = details.get("cached_tokens", self.cached)

    def _timings(self, timings: dict[str, Any]) -> None:
        """llama.cpp's own clock, in each event: so the prompt's length is known of a request that is cut, too."""
        self.prefill_ms, self.decode_ms = timings.get("prompt_ms"), timings.get("predicted_ms")
        processed, cached = timings.get("prompt_n"), timings.get("cache_n")
        if self.n_in is None and processed is not None and cached is not None:
            self.n_in, self.cached = processed + cached, cached

    def _close(self) -> None:
        """The body is complete. One that is no stream is an error's text, or one whole answer."""
        self.done = True
        if self._sse:
            return
        try:
            whole = orjson.loads(self._line)
        except orjson.JSONDecodeError:
            whole = None
        if isinstance(whole, dict) and whole.get("error") is not None:
            self.error = _words(whole["error"])
        elif self.status != 200 or whole is None:
            self.error = self._line[:200].decode(errors="replace").strip() or None


def _running_count(usage: dict[str, Any] | None, timings: dict[str, Any] | None) -> int | None:
    if timings and isinstance(timings.get("predicted_n"), int):
        return int(timings["predicted_n"])
    if usage and isinstance(usage.get("completion_tokens"), int):
        return int(usage["completion_tokens"])
    return None


def _has_text(choice: dict[str, Any]) -> bool:
    delta = choice.get("delta")
    if delta is None:
        return bool(choice.get("text"))
    return bool(delta.get("content") or delta.get("reasoning_content") or delta.get("tool_calls"))


def _words(error: object) -> str:
    if isinstance(error, dict):
        return str(error.get("message") or error)[:500]
    return str(error)[:500]
