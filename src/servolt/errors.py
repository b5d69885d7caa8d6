"""What can go wrong, as one tree. Every error has a code, a cause and a remedy.

    ServoltError                 E-GEN-001   exit 1
    ├── InvalidInputError        E-USE-001   exit 2   a flag, a file or a value that can't be used
    │   ├── UnknownNameError     E-USE-001   exit 2   nothing in the catalogue has this name (catalogue/names.py)
    │   └── AmbiguousNameError   E-USE-001   exit 2   several things in it could be meant (catalogue/names.py)
    ├── ModelNotFoundError       E-MOD-001   exit 1   no such model here
    ├── ModelFileError           E-MOD-002   exit 1   weights that are truncated, corrupt or of another format
    ├── ConditionFailedError     E-FIT-001   exit 3   the asked condition does not hold (does not fit, a gate fails)
    ├── NotValidError            E-VAL-001   exit 4   measured, but not valid
    ├── EngineError              E-ENG-001   exit 5   an engine did not start, or died
    │   ├── EngineLostError      E-ENG-002   exit 5   it died while it answered
    │   │   └── NotReachedError  E-ENG-002   exit 5   it took no connection: nothing was done (serve/upstream.py)
    │   └── EngineTimeoutError   E-ENG-003   exit 124 it was not ready in time
    ├── RefusedError             E-REQ-001   exit 1   a request to the gateway that can't be answered (serve/refusal.py)
    ├── AddressError             E-NET-001   exit 1   a port is taken or a server can't be reached
    ├── NotComparableError       E-CMP-001   exit 2   measurements that must not be compared
    └── StorageError             E-STO-001   exit 1   a folder can't be written, a file can't be read back

E-BUG-001 with exit 1 stands for everything else: an error of servolt's own, told by the command line's main.

This module imports nothing, since each start of the command line pays for it.
"""

from typing import ClassVar

__all__ = [
    "AddressError",
    "ConditionFailedError",
    "EngineError",
    "EngineLostError",
    "EngineTimeoutError",
    "InvalidInputError",
    "ModelFileError",
    "ModelNotFoundError",
    "NotComparableError",
    "NotValidError",
    "ServoltError",
    "StorageError",
]


LONGEST = 4000  # characters of a cause or a remedy: what was given is named in it, and may have any length


def _shortened(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    return f"{text[:half]} ... ({len(text) - 2 * half:,} more characters) ... {text[-half:]}"


class ServoltError(Exception):
    """What happened and why (`cause`), and what to do (`remedy`): the same text in CLI and API."""

    code: ClassVar[str] = "E-GEN-001"
    exit_code: ClassVar[int] = 1

    def __init__(self, cause: str, remedy: str) -> None:
        cause, remedy = _shortened(cause), _shortened(remedy)
        super().__init__(f"{cause} {remedy}" if remedy else cause)
        self.cause = cause
        self.remedy = remedy


class InvalidInputError(ServoltError):
    code = "E-USE-001"
    exit_code = 2


class ModelNotFoundError(ServoltError):
    code = "E-MOD-001"


class ModelFileError(ServoltError):
    code = "E-MOD-002"


class ConditionFailedError(ServoltError):
    code = "E-FIT-001"
    exit_code = 3


class NotValidError(ServoltError):
    code = "E-VAL-001"
    exit_code = 4


class EngineError(ServoltError):
    code = "E-ENG-001"
    exit_code = 5


class EngineLostError(EngineError):
    code = "E-ENG-002"


class EngineTimeoutError(EngineError):
    code = "E-ENG-003"
    exit_code = 124


class AddressError(ServoltError):
    code = "E-NET-001"


class NotComparableError(ServoltError):
    code = "E-CMP-001"
    exit_code = 2


class StorageError(ServoltError):
    code = "E-STO-001"
