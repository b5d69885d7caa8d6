"""A log as people paste it: colours, process names, times and journal prefixes are taken off each line."""

import ast
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = ["Line", "count", "lines_of", "literal", "number", "plain_value"]

# Also where the escape character itself was lost on the way.
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b?\[[0-9]+(?:;[0-9]+)*m")
# vLLM: (Worker_PP0_TP1 pid=84), (EngineCore_DP0 pid=9), (VllmWorkerProcess pid=785), (VllmWorker rank=1 pid=130)
_PROCESS = re.compile(r"\(([A-Za-z]\w{0,60}?)(?: rank=(\d+))? pid=(\d+)[^)]{0,80}\)")
_PLACE = re.compile(r"(?<![A-Z])((?:DP|PP|TP|EP)\d+(?:_(?:DP|PP|TP|EP|DCP|PCP)\d+)*)")
# SGLang: [2026-07-01 10:00:00 DP0 TP1 EP1]
_STAMP = re.compile(
    r"\[\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[.,\d]{0,12}((?: (?:ATTN_)?(?:DP|PP|TP|EP|CP|MOE)\w{0,8}?\d{1,6}){0,8})\]"
)
# Docker's json-file, structured loggers of Python and Go, Google Cloud, Loki, journald.
MESSAGES = ("log", "message", "msg", "textPayload", "line", "text", "event", "body", "MESSAGE")
WRAPPERS = ("jsonPayload", "fields", "record")
LONGEST = 2**16  # characters of a line that are read: an engine's settings fill 25,000


class Line(NamedTuple):
    """`rank` is empty where the line doesn't say whose it is."""

    rank: str
    text: str


def lines_of(text: str, words: re.Pattern[str]) -> Iterator[Line]:
    """Those that hold one of the words: a server that ran for days wrote mostly others."""
    for raw in text.splitlines():
        if words.search(raw, 0, LONGEST) or ("\x1b" in raw and words.search(_COLOURS.sub("", raw[:LONGEST]))):
            plain = _COLOURS.sub("", _message(raw[:LONGEST]))
            yield Line(_rank(plain), plain.strip())


def _message(raw: str) -> str:
    """What a collector of logs wrapped: as an object of JSON, maybe behind a time, or in quotes as in CSV."""
    stripped = raw.strip()
    if stripped.endswith("}") and (start := stripped.find('{"')) >= 0:
        try:
            plain = json.loads(stripped[start:])
        except (ValueError, RecursionError):
            return raw
        return _text_in(plain) or raw
    if stripped.startswith('"') and stripped.endswith('"'):
        return stripped[1:-1].replace('""', '"')
    return raw


def _text_in(plain: Any) -> str | None:
    """The longest text under one of the names that collectors use."""
    if not isinstance(plain, dict):
        return None
    texts = [plain[name] for name in MESSAGES if isinstance(plain.get(name), str)]
    inner = [found for name in WRAPPERS if (found := _text_in(plain.get(name))) is not None]
    return max([*texts, *inner], key=len, default=None)


def _rank(line: str) -> str:
    """By the process that names its place; a collector's or Ray's own prefix may stand before it."""
    if stamp := _STAMP.search(line):
        return "_".join(stamp[1].split())
    found = ""
    for name, number, pid in _PROCESS.findall(line):
        if place := _PLACE.search(name):
            return str(place[1])
        if "Worker" in name and not found:
            found = f"rank {number}" if number else f"pid {pid}"
    return found


def number(text: str) -> float:
    """
    >>> number("476,016")
    476016.0
    """
    return float(text.replace(",", ""))


def count(text: str) -> int:
    return round(number(text))


def literal(text: str) -> Any:
    """A Python literal, or the text as it is: logs print values that are none.

    >>> literal("'a'"), literal("None"), literal("torch.bfloat16")
    ('a', None, 'torch.bfloat16')
    """
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def plain_value(key: str, text: str) -> Any:
    """The value of `key` in a printed call or mapping: key=value or 'key': value. None where it isn't there.

    >>> plain_value("tp_size", "ServerArgs(model_path='a', tp_size=4, quantization=None)")
    4
    """
    text_or = r"('[^']*'|\"[^\"]*\"|"
    called, mapped = rf"(?<![\w'\"]){key}={text_or}[^,)\s]+)", rf"['\"]{key}['\"]: {text_or}\{{[^{{}}]*\}}|[^,}}]+)"
    found = re.search(f"{called}|{mapped}", text)
    return literal((found[1] or found[2]).strip()) if found else None
