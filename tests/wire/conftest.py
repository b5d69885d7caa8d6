"""A real `servolt serve` on the built-in model, as a process, for all that speaks to it from outside."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import psutil
import pytest

READY_S = 60


class Served:
    """The gateway's process and where it listens."""

    def __init__(self, home: Path, *arguments: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SERVOLT_", "OLLAMA_"))}
        command = [sys.executable, "-m", "servolt", "serve", *arguments, "--port", "0", "--json"]
        env = {**kept, "SERVOLT_HOME": str(home)}
        self.log = (home.parent / f"{home.name}.log").open("w+", encoding="utf-8")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True, env=env)
        late = threading.Timer(READY_S, self.process.kill)
        late.start()
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        late.cancel()
        assert line, (home.parent / f"{home.name}.log").read_text(encoding="utf-8")
        self.url = str(json.loads(line)["url"])

    def engines(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if "llamacpp_runner" in " ".join(child.cmdline())]

    def metric(self, name: str, deployment: str = "guide") -> float:
        """Names that begin with vllm: are the engine's own counters."""
        for line in httpx2.get(f"{self.url}/metrics").text.splitlines():
            if line.startswith(f'{name}{{deployment="{deployment}"}} '):
                return float(line.rpartition(" ")[2])
        raise LookupError(name)

    def raw(self, method: str, path: str, body: bytes = b"", *, headers: str = "") -> bytes:
        """All bytes of the answer, as they are on the wire."""
        with self.open(method, path, body, headers=headers + "Connection: close\r\n") as connection:
            data = b""
            while piece := connection.recv(65536):
                data += piece
            return data

    def open(self, method: str, path: str, body: bytes = b"", *, headers: str = "") -> socket.socket:
        parts = urlsplit(self.url)
        connection = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=30)
        head = f"{method} {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        connection.sendall(head.encode() + body)
        return connection

    def wait_until_idle(self, seconds: float) -> float:
        """Seconds until the engine has nothing to do any more."""
        began = time.monotonic()
        while self.metric("vllm:num_requests_running") > 0:
            assert time.monotonic() - began < seconds, "the engine still works"
            time.sleep(0.01)
        return time.monotonic() - began

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        finally:
            self.process.kill()
            self.process.communicate()
            self.log.close()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    one = Served(tmp_path_factory.mktemp("wire") / "home", "guide", "guide:f16")
    yield one
    one.end()


@pytest.fixture(scope="session")
def serving() -> type[Served]:
    """`serving(home, *arguments)` starts one; whoever starts it ends it."""
    return Served


@pytest.fixture
def own_served(tmp_path: Path) -> Iterator[Served]:
    """One of the test's own, to be broken."""
    one = Served(tmp_path / "home", "guide")
    yield one
    one.end()
