"""Errors as OpenAI's clients know them: `{"error": {message, type, param, code}}`."""

from typing import Any

from servolt.errors import EngineLostError, ModelNotFoundError, ServoltError
from servolt.serve.exchange import Header
from servolt.serve.refusal import Kind, RefusedError

__all__ = ["error_body", "refusal"]

RETRY_MS = 1000  # a slot of a busy engine frees within about one answer

# Status, type and code.
WORDS: dict[Kind, tuple[int, str, str | None]] = {
    "invalid": (400, "invalid_request_error", None),
    "overflow": (400, "invalid_request_error", "context_length_exceeded"),
    "unsupported": (400, "invalid_request_error", "unsupported"),
    "forbidden": (403, "permission_error", "forbidden"),
    "no_route": (404, "not_found_error", "unknown_url"),
    "method": (405, "invalid_request_error", "method_not_allowed"),
    "too_large": (413, "invalid_request_error", "request_too_large"),
    "media": (415, "invalid_request_error", "unsupported_encoding"),
    "slow": (408, "invalid_request_error", "request_timeout"),
    "busy": (429, "rate_limit_error", "rate_limit_exceeded"),
    "draining": (503, "server_error", "shutting_down"),
}


def refusal(error: ServoltError) -> tuple[int, dict[str, Any], list[Header]]:
    """Status, body and further headers. The official clients ask again unless they are told not to."""
    status = _words(error)[0]
    retry = isinstance(error, EngineLostError) or (
        isinstance(error, RefusedError) and error.kind in ("busy", "draining")
    )
    headers: list[Header] = [(b"x-should-retry", b"true" if retry else b"false")]
    if retry:
        headers += [(b"retry-after-ms", b"%d" % RETRY_MS), (b"retry-after", b"%d" % (RETRY_MS // 1000))]
    return status, error_body(error), headers


def error_body(error: ServoltError) -> dict[str, Any]:
    _, kind, code = _words(error)
    param = error.param if isinstance(error, RefusedError) else None
    return {"error": {"message": str(error), "type": kind, "param": param, "code": code}}


def _words(error: ServoltError) -> tuple[int, str, str | None]:
    if isinstance(error, RefusedError):
        return WORDS[error.kind]
    if isinstance(error, ModelNotFoundError):
        return 404, "not_found_error", "model_not_found"
    if isinstance(error, EngineLostError):
        return 500, "server_error", "engine_lost"
    return 500, "server_error", "engine_failed"
