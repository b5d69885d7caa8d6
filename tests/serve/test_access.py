"""Who may ask a gateway without keys."""

import pytest

from servolt.serve.access import Access
from servolt.serve.refusal import RefusedError


@pytest.mark.parametrize(
    "host",
    ["localhost:11434", "127.0.0.1", "[::1]:11434", "192.168.1.7:80", "box.local", "a.internal", "0.0.0.0:1", None],
)
def test_this_machines_own_names_may_ask(host: str | None) -> None:
    Access(loopback=True).check_host(host)


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:11434", "8.8.8.8", "127.0.0.1.evil.example"])
def test_a_foreign_name_is_dns_rebinding(host: str) -> None:
    with pytest.raises(RefusedError):
        Access(loopback=True).check_host(host)


def test_an_exposed_gateway_answers_to_any_name() -> None:
    Access(loopback=False).check_host("gpu.example")


@pytest.mark.parametrize(
    "origin",
    ["http://localhost:3000", "https://127.0.0.1", "app://obsidian.md", "tauri://localhost", "chrome-extension://abc"],
)
def test_local_pages_and_programs_may_ask(origin: str) -> None:
    assert (b"access-control-allow-origin", origin.encode()) in Access(loopback=True).check_origin(origin, "x")


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost.evil.example", "http://[", ""])
def test_a_foreign_page_may_not(origin: str) -> None:
    with pytest.raises(RefusedError):
        Access(loopback=True).check_origin(origin, "127.0.0.1")


def test_the_gateways_own_pages_and_named_origins_may_ask() -> None:
    access = Access(loopback=True, origins=["https://chat.example"])
    assert access.check_origin("http://127.0.0.1:11434", "127.0.0.1:11434")
    assert access.check_origin("https://chat.example", "127.0.0.1:11434")
