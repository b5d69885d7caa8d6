"""Errors of servolt's own routes, as RFC 9457 has them: `application/problem+json`."""

from collections.abc import Mapping
from typing import Any

import orjson

from servolt.errors import ServoltError
from servolt.serve.exchange import Header
from servolt.serve.refusal import Kind, RefusedError

__all__ = ["OWN", "problem_of", "refusal"]

OWN = "/servolt/"  # all paths of ours begin with it
TYPE = (b"content-type", b"application/problem+json")

KINDS: Mapping[Kind, int] = {
    "invalid": 400,
    "overflow": 400,
    "unsupported": 400,
    "forbidden": 403,
    "no_route": 404,
    "method": 405,
    "too_large": 413,
    "media": 415,
    "slow": 408,
    "busy": 429,
    "draining": 503,
}
CODES = {"E-USE-001": 400, "E-CMP-001": 400, "E-MOD-001": 404, "E-MOD-002": 422, "E-FIT-001": 409, "E-ENG-003": 504}


def problem_of(error: ServoltError) -> dict[str, Any]:
    """`title` is what happened and why, `remedy` what to do; both as the command line says them."""
    status = KINDS[error.kind] if isinstance(error, RefusedError) else CODES.get(error.code, 500)
    found = {
        "type": f"urn:servolt:error:{error.code}",
        "title": error.cause,
        "status": status,
        "code": error.code,
        "remedy": error.remedy,
    }
    if isinstance(error, RefusedError) and error.param is not None:
        found["param"] = error.param
    return found


def refusal(error: ServoltError) -> tuple[int, bytes, list[Header]]:
    """Status, body and headers."""
    found = problem_of(error)
    headers = [TYPE]
    if found["status"] in (429, 503):
        headers.append((b"retry-after", b"1"))
    return found["status"], orjson.dumps(found), headers
