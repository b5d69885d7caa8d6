"""One small GET: the engine's metrics page."""

import asyncio
from urllib.parse import urlsplit

__all__ = ["scrape"]

WITHIN_S = 2.0  # an engine under load answers between two steps


async def scrape(url: str, path: str, api_key: str | None) -> str | None:
    """The page's text, None where the server does not give it in time."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(WITHIN_S):
            return await _get(parts.hostname or "", parts.port or 80, path, api_key)
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return None


async def _get(host: str, port: int, path: str, api_key: str | None) -> str | None:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        key = f"Authorization: Bearer {api_key}\r\n" if api_key else ""
        # HTTP/1.0 and close: no chunks, and the page ends with the connection
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\nConnection: close\r\n{key}\r\n".encode())
        await writer.drain()
        head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
    finally:
        writer.close()
    return body.decode(errors="replace") if head.split(b" ", 2)[1:2] == [b"200"] else None
