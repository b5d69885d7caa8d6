"""Small GGUF files, made by the format's own package."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

Make = Callable[..., Path]

SIZES = {
    "context_length": 512,
    "embedding_length": 64,
    "block_count": 2,
    "feed_forward_length": 96,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
}
TENSORS = {
    "token_embd.weight": (10, 64),
    "blk.0.attn_norm.weight": (64,),
    "blk.0.attn_q.weight": (64, 64),
    "blk.0.ffn_up.weight": (96, 64),
    "output_norm.weight": (64,),
}


@pytest.fixture
def make_gguf(tmp_path: Path) -> Make:
    """`make_gguf(settings, tensors)`: two layers of llama, changed by what is given; None leaves a setting out."""

    def make(settings: dict[str, Any] | None = None, tensors: dict[str, tuple[int, ...]] | None = None) -> Path:
        path = tmp_path / "small.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        for key, value in ({f"llama.{key}": value for key, value in SIZES.items()} | (settings or {})).items():
            _add(writer, key, value)
        writer.add_array("tokenizer.ggml.tokens", [f"t{number}" for number in range(10)])
        for name, shape in (TENSORS | (tensors or {})).items():
            writer.add_tensor(name, np.zeros(shape, dtype=np.float16 if len(shape) > 1 else np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return make


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif value is not None:
        writer.add_uint32(key, value)
