"""Writes the trained weights as GGUF, f16 and q8_0, with tokenizer and chat template inside."""

import argparse
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.numpy import load_file

from tools.guide.tokenizer import SPECIALS

__all__ = ["write_pair"]

VERSION = "1"
CHAT_TEMPLATE = Path(__file__).with_name("chat_template.jinja")
DESCRIPTION = (
    "A small model that answers questions about servolt and the terms of its field, and nothing else. "
    "Trained from scratch on generated text."
)
FILE_TYPES = {"f16": gguf.LlamaFileType.MOSTLY_F16, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}
QUANTIZATIONS = {"f16": gguf.GGMLQuantizationType.F16, "q8_0": gguf.GGMLQuantizationType.Q8_0}
NAMES = {
    "embed_tokens.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "q_proj.weight": "attn_q.weight",
    "k_proj.weight": "attn_k.weight",
    "v_proj.weight": "attn_v.weight",
    "o_proj.weight": "attn_output.weight",
    "gate_proj.weight": "ffn_gate.weight",
    "up_proj.weight": "ffn_up.weight",
    "down_proj.weight": "ffn_down.weight",
}


def write_pair(trained: Path, folder: Path) -> list[Path]:
    """guide-f16.gguf and guide-q8_0.gguf in `folder`, from tokenizer.json, weights.safetensors and shape.json."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_write(trained, folder / f"guide-{kind}.gguf", kind) for kind in FILE_TYPES]


def _write(trained: Path, path: Path, kind: str) -> Path:
    shape: dict[str, Any] = json.loads((trained / "shape.json").read_text(encoding="utf-8"))
    weights = load_file(trained / "weights.safetensors")
    unfinished = path.with_name(path.name + ".part")
    writer = gguf.GGUFWriter(unfinished, "llama")
    _add_general(writer, kind, sum(tensor.size for tensor in weights.values()))
    _add_shape(writer, shape)
    _add_tokenizer(writer, trained / "tokenizer.json")
    for name, tensor in weights.items():
        _add_tensor(writer, name, tensor, shape, QUANTIZATIONS[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    unfinished.replace(path)
    return path


def _add_general(writer: gguf.GGUFWriter, kind: str, parameters: int) -> None:
    writer.add_type("model")
    writer.add_name("guide")
    writer.add_version(VERSION)
    writer.add_description(DESCRIPTION)
    writer.add_license("apache-2.0")
    writer.add_languages(["en"])
    writer.add_size_label(f"{parameters / 1e6:.1f}M")
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _add_shape(writer: gguf.GGUFWriter, shape: dict[str, Any]) -> None:
    writer.add_context_length(shape["context"])
    writer.add_embedding_length(shape["hidden"])
    writer.add_block_count(shape["layers"])
    writer.add_feed_forward_length(shape["feed_forward"])
    writer.add_vocab_size(shape["vocabulary"])
    writer.add_head_count(shape["heads"])
    writer.add_head_count_kv(shape["kv_heads"])
    writer.add_layer_norm_rms_eps(shape["rms_epsilon"])
    writer.add_key_length(shape["head_dim"])
    writer.add_value_length(shape["head_dim"])
    writer.add_rope_freq_base(shape["rope_theta"])
    writer.add_rope_dimension_count(shape["head_dim"])


def _add_tokenizer(writer: gguf.GGUFWriter, path: Path) -> None:
    model = json.loads(path.read_text(encoding="utf-8"))["model"]
    tokens = sorted(model["vocab"], key=lambda token: int(model["vocab"][token]))
    types = [gguf.TokenType.CONTROL if token in SPECIALS else gguf.TokenType.NORMAL for token in tokens]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(SPECIALS.index("<|endoftext|>"))
    writer.add_eos_token_id(SPECIALS.index("<|im_end|>"))
    writer.add_pad_token_id(SPECIALS.index("<|endoftext|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE.read_text(encoding="utf-8"))


def _add_tensor(
    writer: gguf.GGUFWriter,
    name: str,
    tensor: "np.ndarray[Any, np.dtype[np.float32]]",
    shape: dict[str, Any],
    quantization: gguf.GGMLQuantizationType,
) -> None:
    """Norms stay F32, as everywhere; rows of q and k go from halves to the neighbouring pairs llama.cpp rotates."""
    if name.endswith("q_proj.weight"):
        tensor = _permuted(tensor, shape["heads"])
    if name.endswith("k_proj.weight"):
        tensor = _permuted(tensor, shape["kv_heads"])
    if tensor.ndim == 1:
        writer.add_tensor(_gguf_name(name), tensor.astype(np.float32))
    else:
        writer.add_tensor(_gguf_name(name), gguf.quants.quantize(tensor, quantization), raw_dtype=quantization)


def _permuted(tensor: "np.ndarray[Any, np.dtype[np.float32]]", heads: int) -> "np.ndarray[Any, np.dtype[np.float32]]":
    rows, columns = tensor.shape
    return tensor.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _gguf_name(name: str) -> str:
    if not name.startswith("layers."):
        return NAMES[name]
    _, number, rest = name.split(".", 2)
    return f"blk.{number}.{NAMES[rest]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trained", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    for path in write_pair(arguments.trained, arguments.out):
        print(f"{path}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
