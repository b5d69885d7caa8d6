"""Accelerators by name, with what their vendors say of them."""

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from servolt.catalogue.names import (
    LABEL_TOLERANCE,
    OPTION_TOLERANCE,
    AmbiguousNameError,
    Index,
    Language,
    Spelling,
    UnknownNameError,
)
from servolt.catalogue.rows import Entry, Row, entries, number, stamp
from servolt.catalogue.words import GIB, TELLING, Name, read_name, split_names, words_of
from servolt.errors import InvalidInputError
from servolt.gpu import Accelerator

__all__ = ["accelerator_of", "accelerators", "find_accelerator", "find_accelerators"]

_RATES = {
    "float32_tflops": "float32",
    "tf32_tflops": "tf32",
    "float16_tflops": "float16",
    "bfloat16_tflops": "bfloat16",
    "fp8_tflops": "fp8",
    "int8_tops": "int8",
    "fp4_tflops": "fp4",
}
_REMARK = re.compile(r"\([^)]*\)")
# One lane in one direction after encoding, bytes/s: PCI Express base specifications 3.0 to 6.0.
_LANE = {"3.0": 0.985e9, "4.0": 1.969e9, "5.0": 3.938e9, "6.0": 7.563e9}
_PCIE = re.compile(r"PCIe (\d\.0) x(\d+)")
# What the driver keeps of the memory that nvidia-smi shows: fits the rows that have both figures within 0.35 GiB.
_KEPT_BYTES, _KEPT_SHARE = 0.4 * GIB, 0.0017
# Shares of its memory that a name may state for a card that was changed (2080 Ti with 22 GB, 4090 with 48).
_LEAST, _MOST = 1 / 8, 4.0

_LANGUAGE = Language("accelerator", read_name, words_of, TELLING)


def find_accelerator(name: str) -> Accelerator:
    """The device of that name, `count` of it where the name says so (8xH100).

    Case, vendors' words, memory types and spaces don't matter; the size of the memory chooses among variants. Of a mix
    (`RTX 4090; RTX 3090`) it is the one with the least memory, which binds; its source says so. Raises UnknownNameError
    with the nearest names, and AmbiguousNameError with the candidates.
    """
    found = find_accelerators(name)
    if len(found) == 1:
        return found[0]
    least = min(found, key=lambda one: one.memory_bytes)
    mix = ", ".join(f"{one.count} x {one.name}" for one in found)
    return least.model_copy(
        update={
            "count": sum(one.count for one in found),
            "source": f"{least.source}; stands for a mix ({mix}), as the device with the least memory",
        }
    )


def find_accelerators(name: str) -> tuple[Accelerator, ...]:
    """Each kind of device that a description of a machine names. Raises as find_accelerator does."""
    own = stamp("accelerators")
    parts = split_names(name)
    if ";" in name and len(parts) > 1:
        return tuple(_found(part, own) for part in parts)
    try:
        return (_found(name, own),)
    except UnknownNameError:
        if len(parts) > 1:
            return tuple(_found(part, own) for part in parts)
        bare = _REMARK.sub(" ", name).strip()
        if not bare or bare == name:
            raise
        return (_found(bare, own),)


def accelerators() -> tuple[Accelerator, ...]:
    """All, the user's own first. Raises InvalidInputError for a row that can't be used."""
    return _all(stamp("accelerators"))


@lru_cache(maxsize=2)
def _all(stamp: tuple[Path, int | None]) -> tuple[Accelerator, ...]:
    return tuple(accelerator_of(entry) for entry in entries("accelerators"))


@lru_cache(maxsize=1024)
def _found(text: str, stamp: tuple[Path, int | None]) -> Accelerator:
    name = read_name(text)
    if not name.words:
        return _unnamed(text, name)
    try:
        row = _index(stamp).find(text, name)
    except (AmbiguousNameError, UnknownNameError):
        if name.visible:  # a line of a log: its memory is certain
            return _unnamed(text, name)
        raise
    except ValueError as error:
        raise InvalidInputError(f"a row of the catalogue says {error}.", "`servolt catalog check` names it.") from error
    entry = entries("accelerators")[row]
    return _as_named(accelerator_of(entry), entry.row, name)


@lru_cache(maxsize=2)
def _index(stamp: tuple[Path, int | None]) -> Index:
    rows = [entry.row for entry in entries("accelerators")]
    spellings = [Spelling(text, at) for at, row in enumerate(rows) for text in _spellings(row)]
    return Index(_LANGUAGE, [row["name"] for row in rows], spellings, lambda at: _memories(rows[at]))


def _spellings(row: Row) -> list[str]:
    return [row["name"], *(alias for alias in row.get("aliases", "").split(";") if alias)]


def _memories(row: Row) -> Iterator[float]:
    """Sizes in bytes under which the device is known: as labelled or sold, and as shown."""
    options = [float(option) for option in row.get("memory_options_gib", "").split(";") if option]
    yield from (option * GIB for option in options or [number(row, "memory_gib") or 0.0])
    if shown := number(row, "smi_mib"):
        yield shown * 2**20
    if visible := number(row, "visible_gib"):
        yield visible * GIB


def _as_named(found: Accelerator, row: Row, name: Name) -> Accelerator:
    update: dict[str, object] = {}
    if found.kind == "cpu" and name.count > 1:
        return _sockets(found, name.count)
    if name.count > 1:
        update["count"] = name.count
    if name.memory_bytes is not None:
        update |= _stated_memory(found, row, name, name.memory_bytes)
    return found.model_copy(update=update) if update else found


def _stated_memory(found: Accelerator, row: Row, name: Name, stated: float) -> dict[str, object]:
    if name.visible:
        return {"visible_memory_bytes": round(stated)}
    chosen = found.unified_memory or found.kind == "cpu"  # by the buyer: the row has the most there can be
    tolerance = OPTION_TOLERANCE if chosen else LABEL_TOLERANCE
    near = [one for one in _memories(row) if abs(one - stated) <= tolerance * one]
    if chosen and (near or stated < found.memory_bytes):
        return {"memory_bytes": round(near[0] if near else stated)}
    if near or any(read_name(text).memory_bytes == stated for text in _spellings(row)):
        return {}
    if not _LEAST <= stated / found.memory_bytes <= _MOST:
        raise InvalidInputError(
            f"{found.name} has {found.memory_bytes / GIB:g} GB, and {stated / GIB:g} GB is stated.",
            "Leave the size out, or state that of one device.",
        )
    said = f"{found.source}; the memory is as the name states it, {found.name} has {found.memory_bytes / GIB:g} GB"
    return {"memory_bytes": round(stated), "visible_memory_bytes": None, "source": said}


def _sockets(found: Accelerator, sockets: int) -> Accelerator:
    """A host of several processors: all its cores, channels and units."""
    return found.model_copy(
        update={
            "count": found.count * sockets,
            "memory_bytes": found.memory_bytes * sockets,
            "bandwidth_bytes_per_s": _times(found.bandwidth_bytes_per_s, sockets),
            "flops_per_s": {kind: rate * sockets for kind, rate in found.flops_per_s.items()},
            "tdp_w": _times(found.tdp_w, sockets),
        }
    )


def _times(value: float | None, sockets: int) -> float | None:
    return None if value is None else value * sockets


def _unnamed(text: str, name: Name) -> Accelerator:
    """Only the size is said ("24 GB card", "79.15 GiB visible"): a device of which nothing else is known."""
    if name.memory_bytes is None:
        raise InvalidInputError(
            f"{text!r} names no accelerator.", "Name one: `servolt catalog list accelerators` prints them."
        )
    size = round(name.memory_bytes)
    return Accelerator(
        name=f"unnamed accelerator with {name.memory_bytes / GIB:g} GB",
        kind="gpu",
        count=name.count,
        memory_bytes=size,
        visible_memory_bytes=size if name.visible else None,
        source=f"only its memory is known, stated as {text!r}",
    )


def accelerator_of(entry: Entry) -> Accelerator:
    """Raises InvalidInputError naming the row and what is wrong."""
    row = entry.row
    try:
        return Accelerator(
            name=row["name"],
            kind="cpu" if row["kind"] == "cpu" else "gpu",
            count=int(number(row, "cores") or 1),
            vendor=row.get("vendor") or None,
            architecture=row.get("architecture") or None,
            compute_capability=row.get("compute_capability") or None,
            memory_bytes=round((number(row, "memory_gib") or 0) * GIB),
            visible_memory_bytes=_visible(row),
            unified_memory=row.get("unified_memory") == "yes",
            bandwidth_bytes_per_s=_scaled(row, "bandwidth_gb_per_s", 1e9),
            flops_per_s={kind: rate for column, kind in _RATES.items() if (rate := _scaled(row, column, 1e12))},
            tdp_w=number(row, "tdp_w"),
            idle_w=number(row, "idle_w"),
            link=row.get("link") or row.get("host_link") or None,
            link_bytes_per_s=_scaled(row, "link_gb_per_s", 1e9) or _host_link(row),
            host_link_bytes_per_s=_host_link(row),
            aliases=tuple(_spellings(row)[1:]),
            source=_source(entry),
        )
    except (KeyError, ValueError) as error:
        raise InvalidInputError(f"{entry.where}: {error}.", "Correct that row.") from error


def _scaled(row: Row, column: str, scale: float) -> float | None:
    value = number(row, column)
    return None if value is None else value * scale


def _visible(row: Row) -> int | None:
    """As PyTorch and the engines see it; where only nvidia-smi's total is known, that less what the driver keeps."""
    visible, shown = number(row, "visible_gib"), number(row, "smi_mib")
    if visible is not None:
        return round(visible * GIB)
    if shown is None:
        return None
    return round(shown * 2**20 * (1 - _KEPT_SHARE) - _KEPT_BYTES) if row["vendor"] == "NVIDIA" else round(shown * 2**20)


def _host_link(row: Row) -> float | None:
    found = _PCIE.fullmatch(row.get("host_link") or "")
    if found:
        return _LANE[found[1]] * int(found[2])
    return _scaled(row, "host_link_gb_per_s", 1e9)


def _source(entry: Entry) -> str:
    checked = "" if entry.row.get("verified") == "yes" else ", entered from memory and not checked against it"
    own = f" (your row, {entry.path})" if entry.path else ""
    return f"{entry.row.get('source')}, {entry.row.get('date')}{checked}{own}"
