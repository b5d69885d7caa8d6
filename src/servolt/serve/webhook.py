"""Tells a URL that a job has ended, as Standard Webhooks has it: hosts that the server's owner named, and no others."""

import asyncio
import base64
import hashlib
import hmac
import ipaddress
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import orjson

from servolt.serve.refusal import RefusedError

__all__ = ["Webhooks"]

TIMEOUT_S = 10.0
WAITS_S = (1.0, 5.0)  # before the second and the third attempt
MAX_URL = 2048
ALLOWED = "Its owner allows hosts by SERVOLT_WEBHOOK_HOSTS; without that only this machine is called."


class Webhooks:
    """`hosts` are names, or addresses; without any, loopback. `secret` signs what is sent."""

    def __init__(
        self, hosts: Sequence[str] = (), *, secret: bytes | None = None, waits_s: Sequence[float] = WAITS_S
    ) -> None:
        self._hosts = frozenset(host.strip().lower() for host in hosts if host.strip())
        self._secret, self._waits_s = secret, waits_s

    def checked(self, url: Any) -> str:
        """The URL that is called, put together anew from what was checked. Raises RefusedError."""
        if not isinstance(url, str) or len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
            raise _refused("is no URL", "Give http://HOST:PORT/PATH.")
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").lower(), parts.port
        except ValueError:
            raise _refused("is no URL", "Give http://HOST:PORT/PATH.") from None
        if parts.scheme not in ("http", "https") or not host or "\\" in url:
            raise _refused("is no http or https URL", "Give http://HOST:PORT/PATH.")
        if "@" in parts.netloc or parts.fragment:
            raise _refused("holds a name, a password or a fragment", "Leave it out.")
        if not (host in self._hosts if self._hosts else _is_loopback(host)):
            raise RefusedError(
                "forbidden", f"The webhook's host {host[:100]!r} is not allowed.", ALLOWED, param="webhook"
            )
        bare = f"[{host}]" if ":" in host else host
        query = f"?{parts.query}" if parts.query else ""
        return f"{parts.scheme}://{bare}{f':{port}' if port else ''}{parts.path or '/'}{query}"

    async def tell(self, url: str, kind: str, data: Mapping[str, Any]) -> str | None:
        """None once the other side has answered with 2xx; else why it has not, after the last attempt."""
        import httpx2

        body = orjson.dumps({"type": kind, "timestamp": datetime.now(UTC).isoformat(), "data": data})
        why = None
        for wait_s in (0.0, *self._waits_s):
            await asyncio.sleep(wait_s)
            try:
                # No proxy and no netrc of the environment: what was checked is what is called.
                async with httpx2.AsyncClient(follow_redirects=False, trust_env=False, timeout=TIMEOUT_S) as client:
                    request = client.build_request(
                        "POST", url, content=body, headers=self._headers(str(data["id"]), body)
                    )
                    async with asyncio.timeout(TIMEOUT_S):
                        answer = await client.send(request, stream=True)  # its body is of no interest, however long
                        await answer.aclose()
            except (httpx2.HTTPError, httpx2.InvalidURL, OSError, TimeoutError) as error:
                why = f"{type(error).__name__}"
                continue
            if 200 <= answer.status_code < 300:
                return None
            why = f"it answered with {answer.status_code}"
        return why

    def _headers(self, name: str, body: bytes) -> dict[str, str]:
        stamp = str(int(datetime.now(UTC).timestamp()))
        headers = {"content-type": "application/json", "webhook-id": name, "webhook-timestamp": stamp}
        if self._secret:
            signed = hmac.new(self._secret, f"{name}.{stamp}.".encode() + body, hashlib.sha256).digest()
            headers["webhook-signature"] = "v1," + base64.b64encode(signed).decode()
        return headers


def _refused(what: str, remedy: str) -> RefusedError:
    return RefusedError("invalid", f"The webhook {what}.", remedy, param="webhook")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
