"""A server that answers as the Hub does: files by range, redirects to where large ones lie, and its refusals."""

import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

TOKEN = "hf_secret"


class FakeHub:
    """`models` are files by path; `refusals` are statuses, codes and further headers, given in turn for a model."""

    def __init__(self) -> None:
        self.models: dict[str, dict[str, bytes]] = {}
        self.renamed: dict[str, str] = {}
        self.refusals: dict[str, list[tuple[int, str, Mapping[str, str]]]] = {}
        self.asked: list[tuple[str, Mapping[str, str]]] = []
        self.sent_bytes = 0
        self.knows_ranges = True
        self.base = ""

    def add(self, name: str, **files: bytes | Mapping[str, Any]) -> None:
        self.models[name] = {
            path.replace("__", "."): data if isinstance(data, bytes) else json.dumps(data).encode()
            for path, data in files.items()
        }


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass

    def do_GET(self) -> None:
        path = unquote(self.path)
        self.hub.asked.append((path, dict(self.headers.items())))
        found = re.match(r"/(?:api/models/)?([^/]+/[^/]+)", path)
        name = found[1] if found else ""
        waiting = self.hub.refusals.get(name)
        if waiting:
            status, code, headers = waiting.pop(0) if len(waiting) > 1 else waiting[0]
            if status:
                return self._send(status, b"", {"X-Error-Code": code, **headers})
        if name in self.hub.renamed:
            return self._send(307, b"", {"Location": path.replace(name, self.hub.renamed[name])})
        if path.startswith("/cdn/"):
            owner, model, file = path.removeprefix("/cdn/").split("/", 2)
            return self._file(self.hub.models[f"{owner}/{model}"][file])
        if name not in self.hub.models:
            is_known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            return self._send(404 if is_known else 401, b"", {"X-Error-Code": "RepoNotFound"})
        if path.startswith("/api/models/"):
            listed = [{"rfilename": file} for file in self.hub.models[name]]
            return self._send(200, json.dumps({"id": name, "sha": "0" * 40, "siblings": listed}).encode())
        file = path.split("/resolve/main/", 1)[-1]
        if file not in self.hub.models[name]:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        if file.endswith(".json"):
            return self._file(self.hub.models[name][file])
        return self._send(302, b"", {"Location": f"{self.hub.base}/cdn/{name}/{file}"})

    def _file(self, data: bytes) -> None:
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if span is None or not self.hub.knows_ranges:
            return self._send(200, data)
        begin, end = int(span[1]), min(int(span[2]) + 1, len(data))
        return self._send(206, data[begin:end], {"Content-Range": f"bytes {begin}-{end - 1}/{len(data)}"})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.hub.sent_bytes += len(body)
        try:
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # who has read enough hangs up


@contextmanager
def serving() -> Iterator[FakeHub]:
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.base = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
