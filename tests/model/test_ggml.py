"""The table of data types."""

import gguf
import pytest

from servolt.model.ggml import Block, block_of, dtype_bytes


@pytest.mark.parametrize("kind", list(gguf.GGMLQuantizationType), ids=lambda kind: kind.name)
def test_blocks_are_those_of_the_formats_own_package(kind: gguf.GGMLQuantizationType) -> None:
    assert block_of(int(kind)) == Block(kind.name.lower(), *gguf.GGML_QUANT_SIZES[kind])


def test_an_unknown_type_is_none() -> None:
    assert block_of(9999) is None
    assert dtype_bytes("q99") is None
