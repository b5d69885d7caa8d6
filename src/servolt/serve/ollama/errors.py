"""Errors as Ollama's clients know them: a status and `{"error": text}`."""

from typing import Any

from servolt.errors import ModelNotFoundError, ServoltError
from servolt.serve.exchange import Header
from servolt.serve.refusal import Kind, RefusedError

__all__ = ["error_body", "refusal"]

STATUS: dict[Kind, int] = {
    "invalid": 400,
    "overflow": 400,
    "unsupported": 400,
    "forbidden": 403,
    "no_route": 404,
    "method": 405,
    "too_large": 413,
    "media": 415,
    "slow": 408,
    "busy": 503,
    "draining": 503,
}


def refusal(error: ServoltError) -> tuple[int, dict[str, Any], list[Header]]:
    """Status, body and further headers."""
    status = STATUS[error.kind] if isinstance(error, RefusedError) else 500
    if isinstance(error, ModelNotFoundError):
        status = 404
    return status, error_body(error), []


def error_body(error: ServoltError) -> dict[str, Any]:
    """`code` is ours and additive."""
    return {"error": str(error), "code": error.code}
