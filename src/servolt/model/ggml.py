"""The data types of llama.cpp's tensors: how many elements share a block, and how many bytes a block takes."""

from typing import NamedTuple

__all__ = ["Block", "block_by_name", "block_of", "dtype_bytes"]


class Block(NamedTuple):
    name: str
    elements: int
    bytes: int


# Numbers and layouts: github.com/ggml-org/ggml, include/ggml.h (enum ggml_type) and src/ggml-common.h (blocks).
# The tests compare them with the package gguf.
_BLOCKS = {
    0: Block("f32", 1, 4),
    1: Block("f16", 1, 2),
    2: Block("q4_0", 32, 18),
    3: Block("q4_1", 32, 20),
    6: Block("q5_0", 32, 22),
    7: Block("q5_1", 32, 24),
    8: Block("q8_0", 32, 34),
    9: Block("q8_1", 32, 40),
    10: Block("q2_k", 256, 84),
    11: Block("q3_k", 256, 110),
    12: Block("q4_k", 256, 144),
    13: Block("q5_k", 256, 176),
    14: Block("q6_k", 256, 210),
    15: Block("q8_k", 256, 292),
    16: Block("iq2_xxs", 256, 66),
    17: Block("iq2_xs", 256, 74),
    18: Block("iq3_xxs", 256, 98),
    19: Block("iq1_s", 256, 50),
    20: Block("iq4_nl", 32, 18),
    21: Block("iq3_s", 256, 110),
    22: Block("iq2_s", 256, 82),
    23: Block("iq4_xs", 256, 136),
    24: Block("i8", 1, 1),
    25: Block("i16", 1, 2),
    26: Block("i32", 1, 4),
    27: Block("i64", 1, 8),
    28: Block("f64", 1, 8),
    29: Block("iq1_m", 256, 56),
    30: Block("bf16", 1, 2),
    34: Block("tq1_0", 256, 54),
    35: Block("tq2_0", 256, 66),
    39: Block("mxfp4", 32, 17),
    40: Block("nvfp4", 64, 36),
    41: Block("q1_0", 128, 18),
}
# Of the fork github.com/ikawrakow/ik_llama.cpp, ggml/src/ggml-common.h; no numbers, since its files are not read here.
_OF_FORK = (
    Block("iq2_ks", 256, 70),
    Block("iq2_k", 256, 76),
    Block("iq3_ks", 256, 102),
    Block("iq3_k", 256, 110),
    Block("iq4_kss", 256, 128),
    Block("iq4_ks", 256, 136),
    Block("iq4_k", 256, 144),
    Block("iq5_ks", 256, 168),
    Block("iq5_k", 256, 176),
    Block("iq6_k", 256, 212),
)
_BY_NAME = {block.name: block for block in (*_BLOCKS.values(), *_OF_FORK)}


def block_of(kind: int) -> Block | None:
    """By the number that stands in a file; None where it is not known."""
    return _BLOCKS.get(kind)


def block_by_name(name: str) -> Block | None:
    return _BY_NAME.get(name)


def dtype_bytes(name: str) -> float | None:
    """Bytes of one element.

    >>> dtype_bytes("q8_0")
    1.0625
    """
    block = _BY_NAME.get(name)
    return None if block is None else block.bytes / block.elements
