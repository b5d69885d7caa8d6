"""Where the gateway listens, and who is there already."""

import psutil

from servolt import settings
from servolt.cli.gateways import running_gateways
from servolt.errors import AddressError, InvalidInputError
from servolt.serve.run import DEFAULT_PORT, Listener, listen

__all__ = ["bound", "holder_of", "read_address"]

NAMED_MODELS = 3  # of another gateway: enough to know it by


def read_address(host: str | None, port: int | None) -> tuple[str, int | None]:
    """From the flags, else the settings; port None is for the gateway to choose. Raises InvalidInputError."""
    found = settings.resolve("host", host).value
    name, named_port = _split(str(found or ""))
    return name or "127.0.0.1", named_port if port is None else port


def bound(host: str, port: int | None, *, exposed: bool) -> Listener:
    """A port that somebody named is never replaced by another; who holds it is said. Raises AddressError."""
    try:
        return listen(host, port, exposed=exposed)
    except AddressError as error:
        holder = None if port is None else holder_of(port)
        if holder is None:
            raise
        raise AddressError(f"Port {port} is taken on {host}, by {holder}.", error.remedy) from error


def holder_of(port: int) -> str | None:
    """Who listens there, in words; None where the system does not tell."""
    for gateway in running_gateways():
        if gateway.port == port:
            return f"servolt serve (process {gateway.pid}) with {_some(gateway.models)}"
    try:
        pids = [
            one.pid
            for one in psutil.net_connections("tcp")
            if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port
        ]
        pid = next((pid for pid in pids if pid is not None), None)
        if pid is None:
            return "a process of another user" if pids else None
        return f"{psutil.Process(pid).name()} (process {pid})"
    except psutil.Error:  # macOS tells only the administrator; or it has just ended
        return None


def _split(text: str) -> tuple[str, int | None]:
    """HOST, HOST:PORT, :PORT, [::1]:PORT, ::1, or one of these as http://...

    >>> _split("http://localhost:8080/")
    ('localhost', 8080)
    >>> _split("::1")
    ('::1', None)
    """
    bare = text.strip().removeprefix("http://").rstrip("/")
    name, colon, port = bare.rpartition(":")
    is_address = bare.count(":") > 1 and not bare.startswith("[")
    if not colon or port.endswith("]") or is_address:
        return bare.strip("[]"), None
    if not port.isdecimal() or int(port) > 65535:
        raise InvalidInputError(f"{text!r} has no port between 0 and 65535.", f"Write 127.0.0.1:{DEFAULT_PORT}.")
    return name.strip("[]"), int(port)


def _some(models: tuple[str, ...]) -> str:
    more = len(models) - NAMED_MODELS
    return ", ".join(models[:NAMED_MODELS]) + (f" and {more} more" if more > 0 else "")
