from pathlib import Path

import gguf
import pytest

from servolt.model.gguf import read_gguf_header
from servolt.study.probe import ProbeShape, write_probe

SHAPE = ProbeShape(2, 128, 256, 4, 2, 32, 512, tied=False)


@pytest.mark.parametrize(("dtype", "bits"), [("f16", 16.0), ("q8_0", 8.5)])
def test_a_probe_has_the_sizes_it_was_asked_for(tmp_path: Path, dtype: str, bits: float) -> None:
    path = tmp_path / "probe.gguf"
    write_probe(path, SHAPE, dtype)
    model = read_gguf_header(path)
    assert (model.num_layers, model.hidden_size, model.intermediate_size) == (2, 128, 256)
    assert (model.num_heads, model.num_kv_heads, model.head_dim_k, model.vocab_size) == (4, 2, 32, 512)
    assert model.quantization == dtype
    matrices = 2 * (128 * 128 * 2 + 128 * 64 * 2 + 3 * 128 * 256) + 2 * 512 * 128
    norms = 5 * 128
    assert model.weights_bytes == matrices * bits / 8 + norms * 4
    assert not model.tied_embeddings


def test_a_tied_probe_has_no_head_of_its_own(tmp_path: Path) -> None:
    write_probe(tmp_path / "probe.gguf", SHAPE._replace(tied=True), "f16")
    assert read_gguf_header(tmp_path / "probe.gguf").tied_embeddings


def test_its_numbers_are_ordinary_ones_and_the_same_for_one_seed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_probe(tmp_path / name, SHAPE, "f16")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(tmp_path / "one").tensors}
    weights = tensors["blk.1.ffn_up.weight"].astype(float)
    assert 0.019 < weights.std() < 0.021
    assert abs(weights).max() < 1


def test_every_token_of_the_vocabulary_is_there_once(tmp_path: Path) -> None:
    write_probe(tmp_path / "probe.gguf", SHAPE._replace(vocabulary=16384), "q8_0")
    field = gguf.GGUFReader(tmp_path / "probe.gguf").fields["tokenizer.ggml.tokens"]
    tokens = field.contents()
    assert len(tokens) == len(set(tokens)) == 16384
