"""People's units at the edge; inside the program every number is SI or bytes."""

import math
import re

__all__ = ["format_bytes", "format_count", "format_duration", "parse_bytes", "parse_count", "parse_duration"]

_BYTES = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_bytes(text: str) -> int:
    """Raises ValueError.

    >>> parse_bytes("24 GiB")
    25769803776
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([a-zA-Z]*)\s*", text)
    if match is None or match[2].lower() not in _BYTES:
        raise ValueError(f"{text!r} is no size: write a number and a unit, such as 24 GiB or 500 MB")
    return round(float(match[1]) * _BYTES[match[2].lower()])


def format_bytes(number: float) -> str:
    """Binary units, as operating systems count memory.

    >>> format_bytes(25769803776)
    '24.0 GiB'
    """
    for unit, size in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(number) >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:.0f} B"


def parse_count(text: str) -> int:
    """A number of tokens or requests with vLLM's suffixes: 1k is 1,000 and 1K is 1,024. Raises ValueError.

    >>> parse_count("8K")
    8192
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([kKmMgG]?)\s*", text)
    if match is None:
        raise ValueError(f"{text!r} is no number: write digits, or 8k (8,000) or 8K (8,192)")
    scale = {"": 1, "k": 10**3, "K": 2**10, "m": 10**6, "M": 2**20, "g": 10**9, "G": 2**30}[match[2]]
    number = float(match[1]) * scale
    if not number.is_integer():
        raise ValueError(f"{text!r} is no whole number")
    return int(number)


def format_count(number: float) -> str:
    """
    >>> format_count(2891264)
    '2.9 M'
    """
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:g}"


def parse_duration(text: str) -> float:
    """Seconds from a Go duration, or from a plain number of seconds. Raises ValueError.

    >>> parse_duration("1h30m")
    5400.0
    """
    try:
        seconds = float(text)
    except ValueError:
        pass
    else:
        if math.isfinite(seconds):
            return seconds
    sign = -1.0 if text.startswith("-") else 1.0
    rest = text.lstrip("+-")
    parts = re.findall(r"([0-9]*\.?[0-9]+)(ns|us|µs|ms|s|m|h)", rest)
    if not parts or "".join(number + unit for number, unit in parts) != rest:
        raise ValueError(f"{text!r} is no duration: write 300ms, 5m or 1h30m, or a number of seconds")
    return sign * sum(float(number) * _SECONDS[unit] for number, unit in parts)


def format_duration(seconds: float) -> str:
    """
    >>> format_duration(0.0123)
    '12.3 ms'
    """
    if abs(seconds) < 0.9995e-3:
        return f"{seconds * 1e6:.0f} us"
    if abs(seconds) < 0.99995:
        return f"{seconds * 1e3:.1f} ms"
    if abs(seconds) < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
