"""Requests to the Hugging Face Hub: lists of files, small files, and the first bytes of large ones. Never weights."""

import json
import os
import random
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import httpx2

from servolt import __version__
from servolt.errors import AddressError, ModelFileError, ModelNotFoundError
from servolt.sources.names import NotOnHubError

__all__ = ["BusyError", "GatedError", "HubClient", "Piece", "UnreachableError", "endpoint", "token"]

# The Hub's own names of what is wrong: huggingface_hub, utils/_http.py, `X-Error-Code`.
_MISSING = {"RepoNotFound", "RevisionNotFound", "EntryNotFound"}
_TIMEOUT = httpx2.Timeout(20.0, connect=10.0)
_TRIES = 4
_TRIES_TO_CONNECT = 2  # who has no network is told so within a second
_LONGEST_WAIT_S = 30.0  # a server that asks for more is not waited for
_MAX_SMALL_BYTES = 64 * 2**20  # lists of files of the largest repositories have some 2 MB, indices 20


class UnreachableError(AddressError):
    """No network, no server, or one that fails."""


class BusyError(AddressError):
    """The Hub has had enough of us for now."""


class GatedError(ModelNotFoundError):
    """There is such a model, or may be, and who asks may not see it."""


class Piece(NamedTuple):
    """The first bytes of a file, and how many it has; None where the server doesn't say."""

    data: bytes
    size: int | None


def endpoint(environ: Mapping[str, str] = os.environ) -> str:
    """HF_ENDPOINT names a mirror."""
    return (environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def token(environ: Mapping[str, str] = os.environ) -> str | None:
    """HF_TOKEN, or the file that `hf auth login` writes. It is sent to the endpoint alone and shown nowhere."""
    given = environ.get("HF_TOKEN") or environ.get("HUGGING_FACE_HUB_TOKEN")
    if given:
        return given.strip()
    home = environ.get("HF_HOME") or str(Path(environ.get("HOME", "~")).expanduser() / ".cache" / "huggingface")
    path = Path(environ.get("HF_TOKEN_PATH") or Path(home) / "token")
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


class HubClient:
    """`wait` sleeps between tries."""

    def __init__(self, base: str, key: str | None = None, *, wait: Callable[[float], None] = time.sleep) -> None:
        headers = {"User-Agent": f"servolt/{__version__}"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        self._base, self._wait, self._has_key = base, wait, key is not None
        # Redirects to other hosts, such as where large files lie, are followed without the key.
        self._client = httpx2.Client(headers=headers, timeout=_TIMEOUT, follow_redirects=True, max_redirects=6)

    def __enter__(self) -> "HubClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def info(self, model: str, revision: str) -> Mapping[str, Any]:
        """What the Hub says of a model: its files, its revision, its name of today."""
        url = f"{self._base}/api/models/{_quoted(model)}/revision/{quote(revision, safe='')}"
        return self._json(url, model)

    def json_file(self, model: str, revision: str, file: str) -> Mapping[str, Any]:
        return self._json(self._url(model, revision, file), model)

    def first(self, model: str, revision: str, file: str, begin: int, end: int) -> Piece:
        """Bytes from `begin` up to `end`, fewer at the end of the file. Reads no further, whatever the server sends."""
        return self._bytes(self._url(model, revision, file), model, begin, end)

    def _url(self, model: str, revision: str, file: str) -> str:
        return f"{self._base}/{_quoted(model)}/resolve/{quote(revision, safe='')}/{_quoted(file)}"

    def _json(self, url: str, model: str) -> Mapping[str, Any]:
        piece = self._bytes(url, model, 0, None)
        try:
            plain = json.loads(piece.data)
        except (UnicodeDecodeError, ValueError, RecursionError) as error:
            raise ModelFileError(f"{_shown(url)} of {model} is no JSON.", "Name another model or revision.") from error
        if not isinstance(plain, dict):
            raise ModelFileError(f"{_shown(url)} of {model} holds no names with values.", "Name another model.")
        return plain

    def _bytes(self, url: str, model: str, begin: int, end: int | None) -> Piece:
        headers = {} if end is None else {"Range": f"bytes={begin}-{end - 1}"}
        headers["Accept-Encoding"] = "identity"
        most = _MAX_SMALL_BYTES if end is None else end - begin
        for attempt in range(_TRIES):
            try:
                with self._client.stream("GET", url, headers=headers) as answer:
                    delay = self._delay(answer, attempt)
                    if delay is None:
                        self._check(answer, url, model)
                        return _read(answer, begin, most, model, whole=end is None)
            except httpx2.TransportError as error:
                tries = _TRIES_TO_CONNECT if isinstance(error, httpx2.ConnectError) else _TRIES
                if attempt >= tries - 1:
                    raise UnreachableError(
                        f"{urlsplit(url).netloc} can't be reached: {_reason(error)}.",
                        "Check the network, or HF_ENDPOINT; what was fetched before is used with HF_HUB_OFFLINE=1.",
                    ) from error
                delay = 0.5 * 2**attempt
            except httpx2.TooManyRedirects as error:
                raise UnreachableError(f"{_shown(url)} leads in a circle.", "Check HF_ENDPOINT.") from error
            self._wait(delay)
        raise AssertionError("the last try returns or raises")

    def _delay(self, answer: httpx2.Response, attempt: int) -> float | None:
        """Seconds until the next try; None where there is to be none."""
        if answer.status_code != 429 and answer.status_code < 500:
            return None
        asked = _retry_after(answer)
        if attempt == _TRIES - 1 or (asked or 0) > _LONGEST_WAIT_S:
            return None
        return asked if asked is not None else 0.5 * 2**attempt * random.uniform(1, 1.5)

    def _check(self, answer: httpx2.Response, url: str, model: str) -> None:
        status, code = answer.status_code, answer.headers.get("X-Error-Code", "")
        if status < 400:
            return
        if status == 429:
            asked = _retry_after(answer)
            later = f" in {asked:.0f} s" if asked else " later"
            hint = "" if self._has_key else " A token (HF_TOKEN) may ask more often."
            raise BusyError(f"{urlsplit(url).netloc} has had too many requests.", f"Try again{later}.{hint}")
        if code == "GatedRepo":
            raise GatedError(
                f"{model} is gated: its owner wants to know who uses it.",
                "Ask for access on its page, and set HF_TOKEN to a token of that account.",
            )
        if status in (401, 403) and self._has_key:
            raise GatedError(f"{model} may not be seen with this HF_TOKEN.", "Check the token's rights and the name.")
        if status in (401, 403):  # so the Hub answers for what is not there too, to who has no key
            raise NotOnHubError(
                f"the Hub shows no {model}: it is private, or there is none.",
                "Check the name: OWNER/NAME, as its page has it; for a private model set HF_TOKEN.",
            )
        if status == 404 or code in _MISSING:
            raise NotOnHubError(*_missing(model, url, code))
        raise UnreachableError(f"{_shown(url)} answers {status}.", "Try again later, or check HF_ENDPOINT.")


def _missing(model: str, url: str, code: str) -> tuple[str, str]:
    if code == "EntryNotFound":
        return f"{model} holds no {url.rpartition('/')[2]}.", "Name another model, or a revision that has it."
    if code == "RevisionNotFound":
        return f"{model} has no such revision.", "Name a branch, a tag or a commit that is there."
    return f"the Hub knows no {model}.", "Check the name: OWNER/NAME, as the model's page has it."


def _read(answer: httpx2.Response, begin: int, most: int, model: str, *, whole: bool) -> Piece:
    """A server that knows no ranges sends all from the start: what is before `begin` is passed over."""
    skip = 0 if answer.status_code == 206 else begin
    data = bytearray()
    for chunk in answer.iter_raw():
        data += chunk
        if len(data) >= skip + most:
            break
    if whole and len(data) >= most:
        raise ModelFileError(f"a file of {model} that should be small has over {most:,} bytes.", "Name another model.")
    return Piece(bytes(data[skip : skip + most]), _size(answer))


def _size(answer: httpx2.Response) -> int | None:
    span = answer.headers.get("Content-Range", "")
    text = span.rpartition("/")[2] if span else answer.headers.get("Content-Length", "")
    return int(text) if text.isdigit() else None


def _retry_after(answer: httpx2.Response) -> float | None:
    """Seconds, or a date. https://www.rfc-editor.org/rfc/rfc9110#field.retry-after"""
    text = answer.headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time()) if text else None
    except (TypeError, ValueError):
        return None


def _quoted(path: str) -> str:
    return quote(path, safe="/")


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.netloc}{parts.path}"


def _reason(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__
