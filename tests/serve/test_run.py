"""Addresses, and the file that says where a gateway is."""

import asyncio
import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import psutil
import pytest

from servolt.errors import AddressError, InvalidInputError, StorageError
from servolt.serve import run
from servolt.serve.run import listen, serve


def test_a_taken_default_port_is_replaced_by_the_next_free_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setattr(run, "DEFAULT_PORT", other.getsockname()[1])
        listener = listen()
        with listener.socket:
            assert listener.moved
            assert listener.port > other.getsockname()[1]
            assert listener.url == f"http://127.0.0.1:{listener.port}"


def test_a_port_that_was_asked_for_is_never_replaced() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(AddressError, match="taken"):
        listen(port=other.getsockname()[1])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "gpu.example"])
def test_an_address_that_others_can_reach_needs_a_word(host: str) -> None:
    with pytest.raises(InvalidInputError, match="no keys"):
        listen(host)


def test_the_word_is_enough() -> None:
    with listen("0.0.0.0", 0, exposed=True).socket as bound:
        assert bound.getsockname()[0] == "0.0.0.0"


def test_an_address_of_another_machine_is_an_error_and_no_crash() -> None:
    with pytest.raises(AddressError, match="Can't listen"):
        listen("192.0.2.1", 0, exposed=True)  # TEST-NET-1 of RFC 5737: nobody's


def test_the_state_file_is_whole_or_not_there_and_names_the_very_process(
    rig: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_place: list[Path] = []
    write_bytes = Path.write_bytes

    def watched(self: Path, data: bytes) -> int:
        in_place.append(self)
        return write_bytes(self, data)

    monkeypatch.setattr(Path, "write_bytes", watched)
    states: list[Any] = []

    def on_ready() -> None:
        states.extend(json.loads(path.read_bytes()) for path in tmp_path.iterdir())
        os.kill(os.getpid(), signal.SIGTERM)

    async def scenario() -> None:
        async with rig() as one:
            await serve(one.fleet, listen(port=0), state_folder=tmp_path, on_ready=on_ready)

    asyncio.run(asyncio.wait_for(scenario(), 20))
    assert [path.suffix for path in in_place] == [".tmp"]
    assert [(state["pid"], state["models"]) for state in states] == [(os.getpid(), ["m", "m:q8_0"])]
    assert states[0]["process_started"] == psutil.Process().create_time()
    assert list(tmp_path.iterdir()) == []


def test_a_state_file_that_can_not_be_written_is_an_error_and_the_port_is_free_again(rig: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    async def scenario() -> None:
        async with rig() as one:
            listener = listen(port=0)
            with pytest.raises(StorageError, match="can't be written"):
                await serve(one.fleet, listener, state_folder=tmp_path / "file" / "servers")
            listen(port=listener.port).socket.close()

    asyncio.run(asyncio.wait_for(scenario(), 20))
