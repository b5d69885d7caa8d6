"""The header of a GGUF file, read by a parser that believes no number in it."""

import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple, Protocol

from servolt.errors import ModelFileError
from servolt.model.ggml import block_of
from servolt.model.gguf_layers import layers_of_gguf
from servolt.model.model import Model
from servolt.model.tensors import Tensor, groups, main_dtype

__all__ = ["read_gguf_header", "read_gguf_parts"]

# The format's own bounds and defaults: github.com/ggml-org/ggml, docs/gguf.md.
MAX_DIMENSIONS = 4
MAX_KEY_BYTES = 65535
DEFAULT_ALIGNMENT = 32

# Ours. The longest strings in real headers are chat templates of some 100 kB; the largest real headers, which hold
# 256,000 tokens with their merges, have 20 MB.
MAX_STRING_BYTES = 16 * 2**20
MAX_HEADER_BYTES = 512 * 2**20

STRING, ARRAY = 8, 9
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
POOLINGS = {1: "mean", 2: "cls", 3: "last", 4: "rank"}

_Scalar = str | int | float | bool


class _Readable(Protocol):
    def read(self, count: int, /) -> bytes: ...


def read_gguf_header(path: Path) -> Model:
    """What the file holds, without reading its weights. Raises ModelFileError for a file that can't be used."""
    try:
        with path.open("rb") as file:
            header = _parse(_Bytes(file, path, path.stat().st_size))
    except OSError as error:
        raise ModelFileError(
            f"{path} can't be read: {error.strerror}.", "Check that it is a file and that you may read it."
        ) from error
    return _model(path.absolute(), header, files=(str(path.absolute()),))


def read_gguf_parts(parts: Sequence[tuple[_Readable, int]], name: str) -> Model:
    """What files hold that are not here: each with its size, in order. Raises ModelFileError."""
    path = PurePath(name)
    headers = [_parse(_Bytes(file, path, size)) for file, size in parts]
    whole = headers[0]._replace(
        file_bytes=sum(header.file_bytes for header in headers),
        values={key: value for key, value in headers[0].values.items() if key != "split.count"},
        tensors=tuple(tensor for header in headers for tensor in header.tensors),
    )
    said = headers[0].values.get("split.count", 1)
    if said not in (0, 1, len(headers)):
        raise ModelFileError(f"{name} has {said} parts, and {len(headers)} are there.", "Name another file.")
    return _model(path, whole, files=())


class _Array(NamedTuple):
    """An array of the header: its length, and its values where they are numbers."""

    length: int
    numbers: tuple[int | float, ...]


class _Header(NamedTuple):
    file_bytes: int
    values: Mapping[str, _Scalar | _Array]
    tensors: tuple[Tensor, ...]


class _Bytes:
    """Reads from the front, and refuses to go past the end of the file."""

    def __init__(self, file: _Readable, path: PurePath, size: int) -> None:
        self.file, self.path, self.size, self.at = file, path, size, 0

    def take(self, count: int, what: str) -> bytes:
        if count > self.left:
            raise self.fault(
                f"is cut off: {what} needs {count:,} bytes at {self.at:,}, and the file ends at {self.size:,}"
            )
        self.at += count
        data = self.file.read(count)
        if len(data) != count:
            raise self.fault(f"ended while it was read, at {what}")
        return data

    @property
    def left(self) -> int:
        return min(self.size, MAX_HEADER_BYTES) - self.at

    def number(self, form: str, what: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form), what))[0]

    def count(self, what: str, least_bytes: int) -> int:
        """A number of things that take at least so many bytes each, all of which must fit in what is left."""
        count: int = self.number("<Q", f"the number of {what}")
        if count * least_bytes > self.left:
            raise self.fault(f"says it holds {count:,} {what}, which do not fit in a file of {self.size:,} bytes")
        return count

    def text(self, what: str, most_bytes: int = MAX_STRING_BYTES) -> str:
        length: int = self.number("<Q", f"the length of {what}")
        if length > most_bytes:
            raise self.fault(f"gives {what} {length:,} bytes, and at most {most_bytes:,} are believed")
        try:
            return self.take(length, what).decode()
        except UnicodeDecodeError as error:
            raise self.fault(f"holds no UTF-8 in {what}") from error

    def skip_texts(self, count: int, what: str) -> None:
        """Vocabularies have 256,000 strings, so this loop does without `take`."""
        read, left = self.file.read, self.left
        for _ in range(count):
            size = int.from_bytes(read(8), "little")
            left -= 8 + size
            if left < 0 or len(read(size)) != size:
                raise self.fault(f"is cut off: {what} goes past its end")
        self.at += self.left - left

    def fault(self, what: str) -> ModelFileError:
        return ModelFileError(f"{self.path} {what}.", "Fetch or convert the file again.")


def _parse(data: _Bytes) -> _Header:
    _check_start(data)
    tensor_count = data.count("tensors", least_bytes=8 + 4 + 8 + 4 + 8)
    value_count = data.count("settings", least_bytes=8 + 4 + 1)
    values: dict[str, _Scalar | _Array] = {}
    for _ in range(value_count):
        key = data.text("a setting's name", MAX_KEY_BYTES)
        if key in values:
            raise data.fault(f"sets {key} twice")
        values[key] = _value(data, key)
    tensors = [_tensor(data) for _ in range(tensor_count)]
    _check_tensors(data, values, tensors)
    return _Header(data.size, values, tuple(tensor for tensor, _ in tensors))


def _check_start(data: _Bytes) -> None:
    if data.size == 0:
        raise data.fault("is empty")
    magic = data.take(min(4, data.size), "the first four bytes")
    if magic != b"GGUF":
        raise ModelFileError(
            f"{data.path} is no GGUF file: it starts with {magic!r}.", "Name a file that ends in .gguf and is one."
        )
    version: int = data.number("<I", "the version")
    if version.to_bytes(4, "big") in (b"\2\0\0\0", b"\3\0\0\0"):
        raise data.fault("is written for big-endian machines")
    if version not in (2, 3):
        raise data.fault(f"has GGUF version {version}, and 2 and 3 are known")


def _value(data: _Bytes, key: str) -> _Scalar | _Array:
    kind: int = data.number("<I", f"the type of {key}")
    if kind == STRING:
        return data.text(key)
    if kind == ARRAY:
        return _array(data, key)
    if kind not in SCALARS:
        raise data.fault(f"gives {key} the unknown type {kind}")
    value: _Scalar = data.number(SCALARS[kind], key)
    return value


def _array(data: _Bytes, key: str) -> _Array:
    kind: int = data.number("<I", f"the type of {key}")
    if kind == STRING:
        length = data.count(f"strings in {key}", least_bytes=8)
        data.skip_texts(length, f"a string in {key}")
        return _Array(length, ())
    if kind not in SCALARS:
        raise data.fault(f"gives the array {key} the type {kind}, which can't be read")
    width = struct.calcsize(SCALARS[kind])
    length = data.count(f"values in {key}", least_bytes=width)
    packed = data.take(length * width, key)
    return _Array(length, struct.unpack(f"<{length}{SCALARS[kind][1]}", packed))


def _tensor(data: _Bytes) -> tuple[Tensor, int]:
    """The tensor and where its data starts, counted from the start of all data."""
    name = data.text("a tensor's name", MAX_KEY_BYTES)
    dimensions: int = data.number("<I", f"the number of dimensions of {name}")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise data.fault(f"gives {name} {dimensions} dimensions, and 1 to {MAX_DIMENSIONS} are possible")
    shape = struct.unpack(f"<{dimensions}Q", data.take(8 * dimensions, f"the shape of {name}"))
    kind: int = data.number("<I", f"the type of {name}")
    offset: int = data.number("<Q", f"the offset of {name}")
    block = block_of(kind)
    if block is None:
        raise data.fault(f"stores {name} in the type {kind}, which is not known here")
    if min(shape) < 1 or shape[0] % block.elements:
        raise data.fault(f"gives {name} the shape {shape}, which {block.name} can't hold")
    elements = math.prod(shape)
    return Tensor(name, block.name, shape, elements, elements // block.elements * block.bytes), offset


def _check_tensors(data: _Bytes, values: Mapping[str, _Scalar | _Array], tensors: list[tuple[Tensor, int]]) -> None:
    alignment = values.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment < 1 or alignment > 2**20:
        raise data.fault(f"has the alignment {alignment}")
    start = -(-data.at // alignment) * alignment
    names = set()
    for tensor, offset in tensors:
        if tensor.name in names:
            raise data.fault(f"holds {tensor.name} twice")
        names.add(tensor.name)
        if offset % alignment:
            raise data.fault(f"puts {tensor.name} at {offset:,}, which is no multiple of {alignment}")
        end = start + offset + tensor.bytes
        if end > data.size:
            raise data.fault(f"is cut off: {tensor.name} ends at byte {end:,}, and the file has {data.size:,}")


def _model(path: PurePath, header: _Header, files: tuple[str, ...]) -> Model:
    read = _Settings(path, header.values)
    architecture = read.text("general.architecture")
    read.refuse_parts()
    own = architecture + "."
    is_recurrent = any(key.startswith((own + "ssm.", own + "wkv.")) for key in header.values)
    # Recurrent layers may have no heads and no feed-forward part. Anywhere else what is left out is no 0.
    none = 0 if is_recurrent else None
    hidden, heads = read.size(own + "embedding_length"), read.size(own + "attention.head_count", none)
    feed_forward, of_experts = own + "feed_forward_length", own + "expert_feed_forward_length"
    if feed_forward not in header.values and of_experts in header.values:
        feed_forward = of_experts
    head_dim = hidden // heads if heads else 0
    names = {tensor.name for tensor in header.tensors}
    layers = layers_of_gguf(architecture, _plain(header.values), header.tensors)
    name, template = header.values.get("general.name"), header.values.get("tokenizer.chat_template")
    return Model(
        name=name if isinstance(name, str) and name else path.stem,
        architecture=architecture,
        format="gguf",
        files=files,
        file_bytes=header.file_bytes,
        total_params=sum(tensor.elements for tensor in header.tensors),
        active_params=layers.active_params,
        weights_bytes=sum(tensor.bytes for tensor in header.tensors),
        quantization=main_dtype(header.tensors),
        tensors=groups(header.tensors),
        layers=layers.kinds,
        layer_order=layers.order,
        parts=layers.parts,
        num_layers=read.size(own + "block_count"),
        hidden_size=hidden,
        intermediate_size=read.size(feed_forward, none),
        num_heads=heads,
        num_kv_heads=read.size(own + "attention.head_count_kv", heads),
        head_dim_k=read.size(own + "attention.key_length", head_dim),
        head_dim_v=read.size(own + "attention.value_length", head_dim),
        vocab_size=read.size(own + "vocab_size", read.length("tokenizer.ggml.tokens")),
        max_position_embeddings=read.size(own + "context_length"),
        sliding_window=read.size(own + "attention.sliding_window", 0) or None,
        tied_embeddings="token_embd.weight" in names and "output.weight" not in names,
        varied=tuple(sorted(read.varied)),
        pooling=POOLINGS.get(read.size(own + "pooling_type", 0)),
        chat_template=template if isinstance(template, str) else None,
        metadata=_scalars(header.values),
    )


def _plain(values: Mapping[str, _Scalar | _Array]) -> dict[str, _Scalar | tuple[int | float, ...]]:
    return {key: value.numbers if isinstance(value, _Array) else value for key, value in values.items()}


def _scalars(values: Mapping[str, _Scalar | _Array]) -> dict[str, _Scalar]:
    """Without arrays, without the template, which has its own field, and without floats that are no number."""
    return {
        key: value
        for key, value in values.items()
        if not isinstance(value, _Array)
        and key != "tokenizer.chat_template"
        and not (isinstance(value, float) and not math.isfinite(value))
    }


class _Settings:
    """The header's settings by name, with the right type or a complaint."""

    def __init__(self, path: PurePath, values: Mapping[str, _Scalar | _Array]) -> None:
        self.path, self.values = path, values
        self.varied: set[str] = set()

    def text(self, key: str) -> str:
        value = self.values.get(key)
        if not isinstance(value, str) or not value:
            raise self._fault(key, "text")
        return value

    def size(self, key: str, otherwise: int | None = None) -> int:
        """A whole number; the largest where there is one for each layer."""
        value: object = self.values.get(key, otherwise)
        if isinstance(value, _Array):
            self.varied |= {key} if len(set(value.numbers)) > 1 else set()
            value = max(value.numbers, default=otherwise)
        if type(value) is not int or not 0 <= value < 2**31:
            raise self._fault(key, "a size")
        return value

    def length(self, key: str) -> int | None:
        value = self.values.get(key)
        return value.length if isinstance(value, _Array) else None

    def refuse_parts(self) -> None:
        if self.size("split.count", 1) > 1:
            raise ModelFileError(
                f"{self.path} is one part of {self.size('split.count')}.",
                "Join the parts with `llama-gguf-split --merge` and name the whole file.",
            )
        kind = self.values.get("general.type", "model")
        if kind != "model":
            raise ModelFileError(f"{self.path} holds no model but: {kind}.", "Name the file of the model itself.")

    def _fault(self, key: str, what: str) -> ModelFileError:
        found = f"is {self.values[key]!r:.60}" if key in self.values else "is missing"
        return ModelFileError(
            f"{self.path} can't be used: {key} should be {what} and {found}.",
            "Convert the model again with a current converter.",
        )
