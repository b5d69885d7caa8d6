"""Who may ask a gateway that has no keys: this machine's own programs, and no foreign web page.

Any web page can reach a server on loopback: by DNS rebinding, which the Host check stops, and by cross-origin requests,
which the Origin check stops.
"""

import ipaddress
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from servolt.serve.exchange import Header
from servolt.serve.refusal import RefusedError

__all__ = ["Access"]

# Ollama's own list: local pages on any port, and the schemes of desktop programs and browser extensions.
LOCAL_ORIGIN_HOSTS = frozenset({"localhost", "127.0.0.1", "0.0.0.0"})
LOCAL_ORIGIN_SCHEMES = frozenset(
    {
        "app",
        "file",
        "tauri",
        "vscode-webview",
        "vscode-file",
        "chrome-extension",
        "moz-extension",
        "safari-web-extension",
    }
)
LOCAL_SUFFIXES = (".localhost", ".local", ".internal")

_ALLOWED_HEADERS = (
    b"authorization, content-type, user-agent, accept, x-requested-with, openai-beta, x-request-id, x-servolt-strict, "
    b"x-stainless-arch, x-stainless-async, x-stainless-custom-poll-interval, x-stainless-helper-method, "
    b"x-stainless-lang, x-stainless-os, x-stainless-package-version, x-stainless-poll-helper, "
    b"x-stainless-retry-count, x-stainless-runtime, x-stainless-runtime-version, x-stainless-timeout"
)


class Access:
    """The Host check applies where the gateway listens on loopback only; the Origin check always does."""

    def __init__(self, *, loopback: bool, origins: Sequence[str] = ()) -> None:
        self.loopback = loopback
        self.origins = frozenset(origin.strip().rstrip("/") for origin in origins if origin.strip())
        self._hosts = {"", "localhost", socket.gethostname().lower()}
        self._seen: set[str] = set()

    def check_host(self, host: str | None) -> None:
        """Raises RefusedError for a name that another machine's owner may have pointed here."""
        if not self.loopback or host is None or host in self._seen:
            return
        if not self._is_local(_without_port(host)):
            raise RefusedError(
                "forbidden", f"The host {host[:200]!r} is not allowed.", "Ask by localhost or 127.0.0.1."
            )
        if len(self._seen) < 64:  # ports and spellings of this machine; no more than that are worth remembering
            self._seen.add(host)

    def check_origin(self, origin: str, host: str | None) -> list[Header]:
        """The headers that let a page of this origin read the answer. Raises RefusedError for a foreign page."""
        if not self._is_allowed(origin, host):
            raise RefusedError(
                "forbidden", f"The origin {origin[:200]!r} is not allowed.", "Add it to SERVOLT_ORIGINS and restart."
            )
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", b"x-request-id, x-servolt-report"),
            (b"vary", b"Origin"),
        ]

    def preflight(self) -> list[Header]:
        return [
            (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"),
            (b"access-control-allow-headers", _ALLOWED_HEADERS),
            (b"access-control-max-age", b"43200"),
        ]

    def _is_allowed(self, origin: str, host: str | None) -> bool:
        if "*" in self.origins or origin in self.origins:
            return True
        try:
            parts = urlsplit(origin)
            name = parts.hostname or ""
        except ValueError:
            return False
        if parts.scheme in LOCAL_ORIGIN_SCHEMES:
            return True
        if parts.scheme not in ("http", "https"):
            return False
        return name in LOCAL_ORIGIN_HOSTS or (host is not None and parts.netloc == host)

    def _is_local(self, name: str) -> bool:
        lowered = name.lower().rstrip(".")
        if lowered in self._hosts or lowered.endswith(LOCAL_SUFFIXES):
            return True
        try:
            address = ipaddress.ip_address(lowered)
        except ValueError:
            return False
        return address.is_loopback or address.is_private or address.is_unspecified


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host
