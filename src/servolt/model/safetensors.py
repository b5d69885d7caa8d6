"""The headers of safetensors files: 8 bytes of length and JSON. Believes no number in them.

Format: github.com/huggingface/safetensors, README.md and safetensors/src/tensor.rs.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from servolt.errors import ModelFileError

__all__ = ["LENGTH_BYTES", "StoredTensor", "header_length", "parse_header", "read_header", "shards_of", "tensors_of"]

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000  # the format's own bound
MAX_DIMENSIONS = 16
LARGEST = 2**48  # bytes and sizes beyond any file

_BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}


class StoredTensor(NamedTuple):
    """`dtype` is the file's word for it: BF16, F8_E4M3, I32 ..."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    elements: int
    bytes: int


def header_length(first: bytes, name: str) -> int:
    """Bytes of JSON that follow the first eight. Raises ModelFileError."""
    if len(first) < LENGTH_BYTES:
        raise _fault(name, "is cut off: it has less than 8 bytes")
    length = int.from_bytes(first[:LENGTH_BYTES], "little")
    if not 2 <= length <= MAX_HEADER_BYTES:
        raise _fault(name, f"is no safetensors file, or cut off: its header would have {length:,} bytes")
    return length


def parse_header(text: bytes, name: str) -> Mapping[str, Any]:
    """The JSON, as it is. Raises ModelFileError for what is none."""
    try:
        header = json.loads(text)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise _fault(name, "has a header that is no JSON") from error
    if not isinstance(header, dict):
        raise _fault(name, "has a header that holds no names with values")
    return header


def read_header(path: Path) -> Mapping[str, Any]:
    """Of a file on this machine, without its weights. Raises ModelFileError."""
    try:
        with path.open("rb") as file:
            length = header_length(file.read(LENGTH_BYTES), str(path))
            text = file.read(length)
    except OSError as error:
        raise ModelFileError(
            f"{path} can't be read: {error.strerror}.", "Check that it is a file and that you may read it."
        ) from error
    if len(text) != length:
        raise _fault(str(path), f"is cut off: its header has {length:,} bytes, and {len(text):,} are there")
    header = parse_header(text, str(path))
    end = max((tensor_end(value) for value in header.values()), default=0)
    size = path.stat().st_size
    if LENGTH_BYTES + length + end > size:
        raise _fault(str(path), f"is cut off: its tensors end at byte {LENGTH_BYTES + length + end:,} of {size:,}")
    return header


def tensor_end(value: Any) -> int:
    offsets = value.get("data_offsets") if isinstance(value, Mapping) else None
    is_pair = isinstance(offsets, list) and len(offsets) == 2 and isinstance(offsets[1], int)
    return int(offsets[1]) if is_pair and offsets is not None else 0


def tensors_of(headers: Sequence[Mapping[str, Any]], name: str) -> tuple[StoredTensor, ...]:
    """All of all shards. Raises ModelFileError for a shape, type or place that can't be."""
    found: dict[str, StoredTensor] = {}
    for header in headers:
        for key, value in header.items():
            if key == "__metadata__":
                continue
            if key in found:
                raise _fault(name, f"holds {key!r:.80} twice")
            found[key] = _tensor(key, value, name)
    return tuple(found.values())


def _tensor(key: str, value: Any, name: str) -> StoredTensor:
    if not isinstance(value, Mapping):
        raise _fault(name, f"says nothing of the tensor {key!r:.80}")
    dtype, shape, offsets = value.get("dtype"), value.get("shape"), value.get("data_offsets")
    bits = _BITS.get(dtype) if isinstance(dtype, str) else None
    if bits is None or not isinstance(dtype, str):
        raise _fault(name, f"stores {key!r:.80} in the type {dtype!r:.20}, which is not known")
    sizes, places = _sizes(shape), _sizes(offsets)
    if sizes is None or len(sizes) > MAX_DIMENSIONS:
        raise _fault(name, f"gives {key!r:.80} the shape {shape!r:.40}")
    if places is None or len(places) != 2:
        raise _fault(name, f"puts {key!r:.80} at {offsets!r:.40}")
    elements = math.prod(sizes)
    size = places[1] - places[0]
    if size * 8 != elements * bits:
        raise _fault(name, f"gives {key!r:.80} {size:,} bytes, and its shape needs {elements * bits // 8:,}")
    return StoredTensor(key, dtype, sizes, elements, size)


def _sizes(value: Any) -> tuple[int, ...] | None:
    if not isinstance(value, list) or not all(type(size) is int and 0 <= size < LARGEST for size in value):
        return None
    return tuple(value)


def shards_of(index: Mapping[str, Any], name: str) -> list[str]:
    """The files that a `model.safetensors.index.json` names, each once. Raises ModelFileError."""
    places = index.get("weight_map")
    if not isinstance(places, Mapping) or not places:
        raise _fault(name, "names no files: its weight_map is missing")
    files = list(dict.fromkeys(places.values()))
    if not all(_is_plain(file) for file in files):
        raise _fault(name, "names files outside of its folder")
    return [str(file) for file in files]


def _is_plain(file: Any) -> bool:
    if not isinstance(file, str):
        return False
    steps: Iterable[str] = file.split("/")
    return file.endswith(".safetensors") and "\\" not in file and all(step not in ("", ".", "..") for step in steps)


def _fault(name: str, what: str) -> ModelFileError:
    return ModelFileError(f"{name} {what}.", "Fetch the file again, or name another.")
