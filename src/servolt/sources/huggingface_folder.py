"""Writes a GGUF file of the Llama architecture as the folder that Hugging Face's tools read.

Some engines read no GGUF. The weights stay as they are, number for number: a file with quantized weights is refused.
"""

import json
import shutil
import struct
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import gguf
import numpy as np
import numpy.typing as npt

__all__ = ["write_huggingface_folder"]

Bytes: TypeAlias = npt.NDArray[np.uint8]

DTYPES = {"F16": ("F16", "float16", 2), "F32": ("F32", "float32", 4), "BF16": ("BF16", "bfloat16", 2)}
NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
    "attn_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
CONTROL, USER_DEFINED = 3, 4  # token types in GGUF


def write_huggingface_folder(gguf_path: Path, folder: Path) -> list[Path]:
    """Weights, configuration, tokenizer and chat template of `gguf_path`, in `folder`, which is new or empty.

    The folder appears whole or not at all. Returns its files. Raises ValueError for a file that can't be written this
    way and for a folder that holds something.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there already and holds something. Name a new folder, or empty it.")
    source = _Source.open(gguf_path)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write(source, unfinished)
        if folder.exists():
            folder.rmdir()
        unfinished.replace(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return sorted(folder.iterdir())


def _write(source: "_Source", folder: Path) -> None:
    folder.chmod(0o755)  # mkdtemp's 0700 would follow the folder to its place
    _write_safetensors(source, folder / "model.safetensors")
    _write_json(folder / "config.json", _config(source))
    _write_json(folder / "tokenizer.json", _tokenizer(source))
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(source))
    _write_json(folder / "generation_config.json", {**_special_ids(source), "do_sample": False})
    if template := source.optional("tokenizer.chat_template"):
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


@dataclass(frozen=True)
class _Tensor:
    """One tensor under its name in Hugging Face's Llama: `data` are its rows as bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: Bytes


class _Source:
    """The GGUF file, with errors that name it."""

    def __init__(self, path: Path, reader: Any) -> None:
        self.path = path
        self._reader = reader

    @classmethod
    def open(cls, path: Path) -> "_Source":
        """Raises ValueError for another architecture or tokenizer, and for weights that are quantized."""
        source = cls(path, gguf.GGUFReader(path))
        source._expect("general.architecture", "llama", "Only models of the Llama architecture can be written")
        source._expect("tokenizer.ggml.model", "gpt2", "Only byte-level BPE tokenizers can be written")
        source._expect("tokenizer.ggml.pre", "gpt-2", "Only tokenizers that split text as GPT-2 does can be written")
        for tensor in source._reader.tensors:
            if tensor.tensor_type.name not in DTYPES:
                raise ValueError(
                    f"{path} holds {tensor.name} as {tensor.tensor_type.name}, which would have to be rounded again. "
                    "Take the f16, bf16 or f32 file of the model."
                )
        return source

    def value(self, key: str) -> Any:
        if (found := self.optional(key)) is None:
            raise ValueError(f"{self.path} lacks {key}. Convert the model to GGUF again.")
        return found

    def optional(self, key: str) -> Any:
        field = self._reader.get_field(key)
        return None if field is None else field.contents()

    def has_tensor(self, name: str) -> bool:
        return any(tensor.name == name for tensor in self._reader.tensors)

    def tensors(self) -> Iterator[_Tensor]:
        for tensor in self._reader.tensors:
            dtype, _, item_bytes = DTYPES[tensor.tensor_type.name]
            shape = tuple(int(size) for size in reversed(tensor.shape))
            rows = np.ascontiguousarray(tensor.data).view(np.uint8).reshape(-1, shape[-1] * item_bytes)
            if tensor.name.endswith(("attn_q.weight", "attn_k.weight")):
                rows = _halves(rows, self._heads(tensor.name))
            yield _Tensor(self._name(tensor.name), dtype, shape, rows)

    def _heads(self, name: str) -> int:
        heads = self.value("llama.attention.head_count")
        return int(heads if "attn_q" in name else self.optional("llama.attention.head_count_kv") or heads)

    def _name(self, name: str) -> str:
        block, number, rest = name.split(".", 2) if name.startswith("blk.") else ("", "", name)
        if rest not in NAMES:
            raise ValueError(f"{self.path} holds {name}, which Llama does not have. Only plain Llama can be written.")
        return f"model.layers.{number}.{NAMES[rest]}" if block else NAMES[rest]

    def _expect(self, key: str, value: str, rule: str) -> None:
        if (found := self.optional(key)) != value:
            raise ValueError(f"{self.path} has {key} = {found!r}, not {value!r}. {rule}; take another model.")


def _halves(rows: Bytes, heads: int) -> Bytes:
    """Rows of a head from neighbouring pairs, as llama.cpp rotates them, back to two halves."""
    count, width = rows.shape
    return rows.reshape(heads, count // heads // 2, 2, width).swapaxes(1, 2).reshape(count, width)


def _write_safetensors(source: _Source, path: Path) -> None:
    """The format in full: the header's length, the header in JSON, the tensors. The library's writer knows no bf16."""
    tensors = list(source.tensors())
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        begin, end = end, end + tensor.data.nbytes
        header[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            file.write(tensor.data.tobytes())


def _config(source: _Source) -> dict[str, Any]:
    """Both spellings where transformers 5 and its forerunners differ: rope and dtype."""
    heads = int(source.value("llama.attention.head_count"))
    hidden = int(source.value("llama.embedding_length"))
    theta = float(source.optional("llama.rope.freq_base") or 10000.0)
    dtype = next(tensor.dtype for tensor in source.tensors() if len(tensor.shape) == 2)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": int(source.value("llama.feed_forward_length")),
        "num_hidden_layers": int(source.value("llama.block_count")),
        "num_attention_heads": heads,
        "num_key_value_heads": int(source.optional("llama.attention.head_count_kv") or heads),
        "head_dim": int(source.optional("llama.attention.key_length") or hidden // heads),
        "vocab_size": len(source.value("tokenizer.ggml.tokens")),
        "max_position_embeddings": int(source.value("llama.context_length")),
        "rms_norm_eps": round(float(source.value("llama.attention.layer_norm_rms_epsilon")), 12),
        "rope_theta": theta,
        "rope_parameters": {"rope_theta": theta, "rope_type": "default"},
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": not source.has_tensor("output.weight"),
        "dtype": DTYPES[dtype][1],
        "torch_dtype": DTYPES[dtype][1],
        **_special_ids(source),
    }


def _special_ids(source: _Source) -> dict[str, int]:
    keys = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "pad_token_id": "padding_token_id"}
    ids = {name: source.optional(f"tokenizer.ggml.{key}") for name, key in keys.items()}
    return {name: int(number) for name, number in ids.items() if number is not None}


def _tokenizer(source: _Source) -> dict[str, Any]:
    tokens = cast("list[str]", source.value("tokenizer.ggml.tokens"))
    types = cast("list[int]", source.value("tokenizer.ggml.token_type"))
    merges = cast("list[str]", source.value("tokenizer.ggml.merges"))
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            _added_token(number, token, special=kind == CONTROL)
            for number, (token, kind) in enumerate(zip(tokens, types, strict=True))
            if kind in (CONTROL, USER_DEFINED)
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [merge.split(" ", 1) for merge in merges],
        },
    }


def _added_token(number: int, token: str, *, special: bool) -> dict[str, Any]:
    return {
        "id": number,
        "content": token,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": special,
    }


def _tokenizer_config(source: _Source) -> dict[str, Any]:
    tokens = source.value("tokenizer.ggml.tokens")
    named = {name.removesuffix("_id"): tokens[number] for name, number in _special_ids(source).items()}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": int(source.value("llama.context_length")),
        "clean_up_tokenization_spaces": False,
        "add_bos_token": bool(source.optional("tokenizer.ggml.add_bos_token")),
        **named,
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
