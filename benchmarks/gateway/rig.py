"""The processes of the benchmark: upstreams, relays, and the load on them."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).parent
UPSTREAMS = {"burst": (), "paced": ("--ttft-ms", "20", "--itl-ms", "5")}
START_S = 20.0

# No connections to the upstream are kept: with `keepalive`, nginx answers 502 when the next request meets the close
# that follows a stream.
NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; worker_processes 1;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  upstream burst {{ server {burst}; }}
  upstream paced {{ server {paced}; }}
  server {{
    listen 127.0.0.1:{port}; proxy_http_version 1.1; proxy_buffering off;
    location /burst/ {{ proxy_pass http://burst/; }}
    location /paced/ {{ proxy_pass http://paced/; }}
  }}
}}
"""


class Rig:
    """Starts two upstreams, a gateway in front of each, and nginx where it is installed; ends them all."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[str]] = []
        self._folder = tempfile.TemporaryDirectory()
        self._urls: dict[tuple[str, str], str] = {}
        self._processes: dict[tuple[str, str], subprocess.Popen[str]] = {}
        self.nginx = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

    def __enter__(self) -> "Rig":
        for kind, flags in UPSTREAMS.items():
            upstream = self._start(("direct", kind), "upstream.py", *flags)
            self._start(("servolt", kind), "relay.py", "--upstream", upstream)
        if self.nginx:
            self._start_nginx(self.nginx)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for process in reversed(self._started):
            process.terminate()
        for process in self._started:
            process.wait(10)
        self._folder.cleanup()

    def cpu_us(self, column: str, kind: str, path: str, requests: int, *, max_tokens: int, streams: int) -> float:
        """CPU time of the relay per request, microseconds. Unary where the upstream sends all at once."""
        process = self._processes[column, kind]
        self.load(column, kind, path, requests=streams, max_tokens=max_tokens, streams=streams)  # warm
        before = _cpu_s(process.pid)
        seen = self.load(column, kind, path, requests=requests, max_tokens=max_tokens, streams=streams)
        return (_cpu_s(process.pid) - before) / float(seen["requests"]) * 1e6

    def load(self, column: str, kind: str, path: str, *, requests: int, max_tokens: int, streams: int) -> Any:
        """What the client saw. Raises where not every token arrived."""
        # The upstream reads max_tokens, whoever sends it.
        fields = {"options": {"num_predict": max_tokens}} if path == "/api/chat" else {"max_tokens": max_tokens}
        is_unary = kind == "burst" and column == "servolt"
        command = ["--url", self._urls[column, kind] + path, "--fields", json.dumps(fields)]
        command += ["--streams", str(streams), "--requests", str(requests)]
        command += ["--unary"] if is_unary else [] if column == "servolt" else ["--reconnect"]
        if column == "nginx":
            command.remove("--reconnect")
        seen = json.loads(_run([sys.executable, str(HERE / "load.py"), *command]))
        texts = seen["requests"] * (1 if is_unary else max_tokens)
        if seen["texts"] != texts:
            raise RuntimeError(f"{column}: {seen['texts']} texts arrived, {texts} were sent")
        return seen

    def _start(self, name: tuple[str, str], script: str, *flags: str) -> str:
        command = [sys.executable, str(HERE / script), *flags]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._started.append(process)
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise RuntimeError(f"{script} did not start")
        self._urls[name], self._processes[name] = url, process
        return url

    def _start_nginx(self, program: str) -> None:
        folder, port = self._folder.name, _free_port()
        addresses = {kind: self._urls["direct", kind].removeprefix("http://") for kind in UPSTREAMS}
        configuration = Path(folder) / "nginx.conf"
        configuration.write_text(NGINX.format(folder=folder, port=port, **addresses))
        process = subprocess.Popen([program, "-e", f"{folder}/error.log", "-c", str(configuration)], text=True)
        self._started.append(process)
        for kind in UPSTREAMS:
            self._urls["nginx", kind] = f"http://127.0.0.1:{port}/{kind}"
            self._processes["nginx", kind] = process
        _wait_for(port)


def _cpu_s(pid: int) -> float:
    """Of the process and its children."""
    process = psutil.Process(pid)
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return float(sum(one.user + one.system for one in times))


def _run(command: list[str]) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=300).stdout


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError("nginx did not start")
