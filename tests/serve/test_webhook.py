"""Whom the gateway calls, and whom not."""

import asyncio
import base64
import hashlib
import hmac

import pytest

from servolt.serve.refusal import RefusedError
from servolt.serve.webhook import Webhooks


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x", "http://localhost/", "http://[::1]:8080/a?b=c"])
def test_without_a_list_this_machine_is_called(url: str) -> None:
    assert Webhooks().checked(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest",
        "http://10.0.0.1/",
        "http://example.com/",
        "http://127.0.0.1.example.com/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://[::ffff:10.0.0.1]/",
        "http://user@127.0.0.1/",
        "http://127.0.0.1:80@example.com/",
        "http://127.0.0.1\\@example.com/",
        "http://127.0.0.1/#x",
        "http://127.0.0.1/\r\nX: y",
        "http://127.0.0.1 /",
        "http://127.0.0.1:99999/",
        "http:///x",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "//127.0.0.1/",
        "http://127.0.0.1/" + "x" * 3000,
        "",
        7,
        None,
    ],
)
def test_what_could_be_somebody_else_is_refused(url: object) -> None:
    with pytest.raises(RefusedError) as caught:
        Webhooks().checked(url)
    assert caught.value.param == "webhook"


def test_a_list_names_hosts_exactly_and_loopback_is_then_one_to_be_named() -> None:
    webhooks = Webhooks(["Hooks.example.com", " ", ""])
    assert webhooks.checked("https://hooks.EXAMPLE.com/a") == "https://hooks.example.com/a"
    for url in ("https://x.hooks.example.com/", "https://example.com/", "http://127.0.0.1/"):
        with pytest.raises(RefusedError):
            webhooks.checked(url)


def test_a_redirect_is_not_followed_and_each_attempt_is_signed() -> None:
    async def scenario() -> None:
        asked: list[tuple[dict[str, str], bytes]] = []

        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            headers = dict(
                line.lower().split(": ", 1) if "signature" not in line.lower() else line.split(": ", 1)
                for line in head.split("\r\n")[1:]
                if line
            )
            asked.append((headers, await reader.readexactly(int(headers["content-length"]))))
            writer.write(b"HTTP/1.1 302 Go\r\nlocation: /else\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(listen, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        why = await Webhooks(secret=b"s", waits_s=(0.0,)).tell(url, "servolt.job.done", {"id": "j"})
        server.close()
        assert why == "it answered with 302"
        assert len(asked) == 2
        for headers, body in asked:
            signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
            expected = base64.b64encode(hmac.new(b"s", signed, hashlib.sha256).digest()).decode()
            assert headers["webhook-signature"] == f"v1,{expected}"

    asyncio.run(asyncio.wait_for(scenario(), 20))
