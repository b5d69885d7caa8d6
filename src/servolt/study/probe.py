"""Models with random weights and a working tokenizer, to time an engine with. They mean nothing and load everywhere."""

from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np

__all__ = ["ProbeShape", "write_probe"]

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<unk>")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
# Every weight is cut from one tile of this many random numbers: what they are does not matter, drawing them takes time.
TILE = 2**20
FILE_TYPES = {"f16": 1, "q8_0": 7}


class ProbeShape(NamedTuple):
    """Sizes of a Llama. Rows are multiples of 32, as q8_0 needs them."""

    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    context: int = 2048


def write_probe(path: Path, shape: ProbeShape, dtype: str, *, seed: int = 1) -> None:
    """A GGUF file of architecture llama, f16 or q8_0."""
    writer = gguf.GGUFWriter(path, "llama")
    _write_sizes(writer, shape, dtype)
    _write_tokenizer(writer, shape.vocabulary)
    tile = (np.random.default_rng(seed).standard_normal(TILE, dtype=np.float32) * 0.02).reshape(-1, 32)
    kind = gguf.GGMLQuantizationType[dtype.upper()]
    blocks = np.ascontiguousarray(gguf.quants.quantize(tile, kind))
    for name, rows, columns in _matrices(shape):
        writer.add_tensor(name, _cut(blocks, rows, columns), raw_dtype=kind)
    for name in _norms(shape):
        writer.add_tensor(name, np.ones(shape.hidden, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_sizes(writer: Any, shape: ProbeShape, dtype: str) -> None:
    writer.add_name("probe")
    writer.add_file_type(FILE_TYPES[dtype])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(shape.head_dim)


def _write_tokenizer(writer: Any, size: int) -> None:
    """Byte-level BPE: the 256 bytes, and as many pairs and triples of letters as the vocabulary has room for.

    All but the bytes are ASCII, so that each token is text of its own: parts of characters come out several at a time.
    """
    letters = _byte_letters()
    room = size - len(SPECIALS) - len(letters)
    plain = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    twos = [(one, two) for one in plain for two in plain]
    threes = [(one + two, three) for one, two in twos for three in plain[: max(0, room - len(twos)) // len(twos) + 1]]
    pairs = [*twos, *threes][:room]
    tokens = [*SPECIALS, *letters, *(one + two for one, two in pairs)]
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([control] * len(SPECIALS) + [normal] * (len(tokens) - len(SPECIALS)))
    writer.add_token_merges([f"{one} {two}" for one, two in pairs])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def _byte_letters() -> list[str]:
    """The letters by which byte-level BPE writes the 256 bytes: printable Latin-1 as it is, the rest from 256 on."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    beyond = iter(range(256, 512))
    return [chr(byte if byte in printable else next(beyond)) for byte in range(256)]


def _matrices(shape: ProbeShape) -> list[tuple[str, int, int]]:
    """Name, rows and columns of each weight matrix."""
    hidden, inner = shape.hidden, shape.feed_forward
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    found = [("token_embd.weight", shape.vocabulary, hidden)]
    found += [] if shape.tied else [("output.weight", shape.vocabulary, hidden)]
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        found += [(f"{block}attn_q.weight", queries, hidden), (f"{block}attn_k.weight", keys, hidden)]
        found += [(f"{block}attn_v.weight", keys, hidden), (f"{block}attn_output.weight", hidden, queries)]
        found += [(f"{block}ffn_gate.weight", inner, hidden), (f"{block}ffn_up.weight", inner, hidden)]
        found += [(f"{block}ffn_down.weight", hidden, inner)]
    return found


def _norms(shape: ProbeShape) -> list[str]:
    layers = [f"blk.{layer}.{part}_norm.weight" for layer in range(shape.layers) for part in ("attn", "ffn")]
    return [*layers, "output_norm.weight"]


def _cut(blocks: Any, rows: int, columns: int) -> Any:
    """So many rows of blocks of 32 elements, over and over from the tile."""
    needed = rows * columns // 32
    return np.resize(blocks, (needed, blocks.shape[1])).reshape(rows, -1)
