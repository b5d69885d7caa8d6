"""The gateways of this user that run now, for `ps`, `stop`, and `serve` where a port is taken."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from servolt import settings
from servolt.errors import AddressError

__all__ = ["RunningGateway", "running_gateways"]

SAME_START_S = 1.0  # systems tell the start of a process to a hundredth of a second
ANSWER_S = 5.0  # a gateway on this machine that says nothing for so long is stuck


@dataclass(frozen=True)
class RunningGateway:
    url: str
    pid: int
    started: str
    models: tuple[str, ...]
    process_started: float | None  # seconds since the epoch, as the system tells it

    @property
    def port(self) -> int | None:
        try:
            return urlsplit(self.url).port
        except ValueError:  # a file that somebody else wrote
            return None

    @property
    def is_alive(self) -> bool:
        """The very process that wrote the file: a number may have been given to another program since."""
        try:
            process = psutil.Process(self.pid)
            same = self.process_started is None or abs(process.create_time() - self.process_started) < SAME_START_S
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    def loaded(self) -> list[dict[str, Any]]:
        """What it holds in memory now, in Ollama's form. Raises AddressError."""
        items: list[dict[str, Any]] = self._ask("GET", "/api/ps")["models"]
        return items

    def unload(self, model: str) -> None:
        """Raises AddressError."""
        self._ask("POST", "/api/generate", {"model": model, "keep_alive": 0})

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        import httpx2  # dear, and only needed where a gateway runs

        try:
            answer = httpx2.request(method, self.url + path, json=body, timeout=ANSWER_S)
            answer.raise_for_status()
            return answer.json()
        except (httpx2.HTTPError, ValueError) as error:
            raise AddressError(
                f"the gateway at {self.url} (process {self.pid}) does not answer: {error}.",
                "Look at what it printed; `servolt stop` ends it.",
            ) from error


def running_gateways() -> list[RunningGateway]:
    """Those whose process is alive. Files of processes that were killed are removed; unreadable ones are left alone."""
    found = []
    for path in sorted(settings.folders().servers.glob("*.json")):
        gateway = _read(path)
        if gateway is None:
            continue
        if gateway.is_alive:
            found.append(gateway)
        else:
            path.unlink(missing_ok=True)
    return found


def _read(path: Path) -> RunningGateway | None:
    try:
        state = json.loads(path.read_bytes())
        started = state.get("process_started")
        return RunningGateway(state["url"], int(state["pid"]), state["started"], tuple(state["models"]), started)
    except (OSError, ValueError, KeyError, TypeError):
        return None
