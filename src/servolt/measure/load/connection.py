"""One HTTP connection on a bare socket, its reads stamped by the kernel where the kernel does that."""

import asyncio
import os
import platform
import select
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress

__all__ = ["Connection"]

# Linux asm-generic/socket.h and linux/net_tstamp.h; Python's socket module does not name them.
SO_TIMESTAMPING = 37
RX_SOFTWARE_AND_REPORT = (1 << 3) | (1 << 4)
STAMP = struct.Struct("qqqqqq")  # three timespecs, the first is the software stamp
_STAMPS = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")
_STAMP_SPACE = socket.CMSG_SPACE(STAMP.size) if hasattr(socket, "CMSG_SPACE") else 0

# One buffer for all reads of the process, more than a burst of events; a new one for each read costs page faults.
_BUFFER = memoryview(bytearray(256 * 1024))
LONGEST_LAG_NS = 10 * 10**9  # a stamp older than this is a clock step, not a lag

Received = Callable[["Connection", int, int | None, bytes], None]


class Connection:
    """`received(connection, t_ns, lag_ns, data)` gets each read; data is empty when the connection has ended.

    `t_ns` is CLOCK_MONOTONIC: when the bytes reached this machine's socket, where the kernel says so, with `lag_ns`
    from then to the read; else the time of the read, with a lag of None.
    """

    def __init__(self, received: Received) -> None:
        self._received = received
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._unsent = b""

    def open(self, family: int, address: tuple[str, int]) -> bool:
        """Whether it is open already, as on the same machine; if not, `opened` waits for it. Raises OSError."""
        new = socket.socket(family, socket.SOCK_STREAM)
        new.setblocking(False)
        new.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if _STAMPS:
            new.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, RX_SOFTWARE_AND_REPORT)
        self._socket = new
        with suppress(BlockingIOError):
            new.connect(address)
        ready = select.poll()  # select() knows no descriptor above 1023
        ready.register(new, select.POLLOUT)
        if not ready.poll(0):
            return False
        self._check()
        return True

    async def opened(self) -> None:
        """Raises OSError."""
        if self._socket is None:
            return
        writable = asyncio.Event()
        self._loop.add_writer(self._socket, writable.set)
        try:
            await writable.wait()
        finally:
            self._loop.remove_writer(self._socket)
        self._check()

    def _check(self) -> None:
        if self._socket is None:
            return
        fault = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if fault:
            raise OSError(fault, os.strerror(fault))
        self._loop.add_reader(self._socket, self._readable)

    @property
    def is_open(self) -> bool:
        return self._socket is not None

    def send(self, data: bytes) -> None:
        if self._socket is None:
            return
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # the reader learns of the end, too
        if sent < len(data):
            self._unsent = data[sent:]
            self._loop.add_writer(self._socket, self._writable)

    def close(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
            self._socket = None

    def _writable(self) -> None:
        if self._socket is None:
            return
        self._loop.remove_writer(self._socket)
        self.send(self._unsent)

    def _readable(self) -> None:
        if self._socket is None:
            return
        try:
            data, stamp_ns = self._read(self._socket)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, stamp_ns = b"", None
        t_ns = time.monotonic_ns()
        lag_ns = None if stamp_ns is None else time.time_ns() - stamp_ns
        if lag_ns is not None and not 0 <= lag_ns < LONGEST_LAG_NS:
            lag_ns = None
        if not data:
            self.close()
        self._received(self, t_ns - (lag_ns or 0), lag_ns, data)

    @staticmethod
    def _read(source: socket.socket) -> tuple[bytes, int | None]:
        if not _STAMPS:
            return bytes(_BUFFER[: source.recv_into(_BUFFER)]), None
        size, ancillary, _, _ = source.recvmsg_into((_BUFFER,), _STAMP_SPACE)
        data = bytes(_BUFFER[:size])
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPING and len(content) >= STAMP.size:
                seconds, nanoseconds, *_ = STAMP.unpack(content[: STAMP.size])
                return data, seconds * 10**9 + nanoseconds
        return data, None
