"""Why a request is refused. One class: a dialect turns its kind into a status and words of its own."""

from typing import Literal

from servolt.errors import ServoltError

__all__ = ["Kind", "RefusedError"]

Kind = Literal[
    "invalid",  # a body or a field that can't be used
    "overflow",  # more tokens than the context holds
    "unsupported",  # the model can't do that
    "forbidden",  # a host or an origin that may not ask
    "no_route",
    "method",
    "too_large",
    "media",  # a body in an encoding that isn't read
    "slow",  # the body did not arrive in time
    "busy",  # the queue is full
    "draining",
]


class RefusedError(ServoltError):
    """Raised wherever a request turns out not to be answerable; `param` names the field at fault."""

    code = "E-REQ-001"

    def __init__(self, kind: Kind, cause: str, remedy: str, *, param: str | None = None) -> None:
        super().__init__(cause, remedy)
        self.kind: Kind = kind
        self.param = param
