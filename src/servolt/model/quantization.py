"""How many bytes a matrix takes in each format, scales and zero points included, and which names formats go by."""

import math
import re
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from servolt.errors import InvalidInputError
from servolt.model.ggml import block_by_name
from servolt.model.layers import Component, LayerKind, Part
from servolt.model.mixes import MIXES, Place, is_mix, type_of, usual_type
from servolt.model.model import Model

__all__ = ["FORMATS", "QUANTIZED", "Format", "bits_per_weight", "format_named", "replaces", "requantized", "words_of"]


class Format(NamedTuple):
    """One scale (and zero point) for each group of `group` inputs; for a whole row where it is 0; for a square block
    where `is_block`; for so many weights in a row over all rows where `is_flat`; none where `scale_bits` is 0."""

    dtype: str
    bits: float
    group: int = 0
    scale_bits: int = 0
    zero_bits: int = 0
    is_block: bool = False
    is_flat: bool = False

    def bytes(self, rows: int, columns: int) -> float:
        """Of one matrix.

        >>> FORMATS["nvfp4"].bytes(4096, 4096) * 8 / 4096**2
        4.5
        """
        payload = rows * columns * self.bits
        if self.is_flat:
            return (payload + math.ceil(rows * columns / self.group) * self.scale_bits) / 8
        across = math.ceil(columns / self.group) if self.group else 1
        down = math.ceil(rows / self.group) if self.is_block else rows
        return (payload + across * down * (self.scale_bits + self.zero_bits)) / 8


# Sizes: the formats' own definitions. fp8 in blocks: DeepSeek-V3's report, 128 x 128 with float32 scales. mxfp: OCP
# Microscaling 1.0. nvfp4: NVIDIA's, blocks of 16 with an e4m3 scale. int4: GPTQ's and AWQ's usual groups of 128 with
# float16 scales. nf4: QLoRA, blocks of 64 with float32 scales, or these in 8 bits again in blocks of 256.
FORMATS = {
    "float32": Format("float32", 32),
    "float16": Format("float16", 16),
    "bfloat16": Format("bfloat16", 16),
    "fp8": Format("fp8", 8),
    "fp8_channel": Format("fp8", 8, scale_bits=32),
    "fp8_block": Format("fp8", 8, group=128, scale_bits=32, is_block=True),
    "mxfp8": Format("fp8", 8, group=32, scale_bits=8),
    "int8": Format("int8", 8, scale_bits=16),
    "int4": Format("int4", 4, group=128, scale_bits=16, zero_bits=4),
    "int4_symmetric": Format("int4", 4, group=128, scale_bits=16),
    "int4_mlx": Format("int4", 4, group=64, scale_bits=16, zero_bits=16),
    "int8_mlx": Format("int8", 8, group=64, scale_bits=16, zero_bits=16),
    "mxfp4": Format("mxfp4", 4, group=32, scale_bits=8),
    "nvfp4": Format("nvfp4", 4, group=16, scale_bits=8),
    "nf4": Format("nf4", 4, group=64, scale_bits=32, is_flat=True),
    "nf4_double": Format("nf4", 4, group=64 * 256, scale_bits=8 * 256 + 32, is_flat=True),
}

# What deployments and the names of checkpoints call them. Longer words first, so that fp8-dynamic isn't taken for fp8.
_WORDS = (
    (r"fp8[-_ ]?dynamic|w8a8[-_]?fp8|fbgemm[-_]?fp8|ptpc[-_]?fp8|fp8[-_]?channel", "fp8_channel"),
    (r"fp8[-_ ]?block", "fp8_block"),
    (r"mxfp8", "mxfp8"),
    (r"nvfp4|modelopt[-_]fp4|nvidia[-_]fp4|w4a4[-_]?fp4", "nvfp4"),
    (r"mxfp4", "mxfp4"),
    (r"mlx[-_].*4[-_]?bit|4[-_]?bit[-_]mlx", "int4_mlx"),
    (r"mlx[-_].*8[-_]?bit|8[-_]?bit[-_]mlx", "int8_mlx"),
    (r"bnb|bitsandbytes", "nf4_double"),  # as checkpoints are published and vLLM's logs of them show
    (r"nf4|qlora", "nf4"),
    (r"(gptq|awq|autoround|auto[-_]round).*(int)?8[-_]?bit|gptq[-_]int8|w8a16", "int8"),
    (r"w4a16|w4a8|awq|gptq|int4|4[-_]?bit|auto[-_]?round|torchao|hqq", "int4"),
    (r"moe[-_]wna16|w4afp8|marlin|qoq|qqq|ipex|bitblas|u?int4|gptq4|awq4", "int4"),  # loaders of 4 bit files alone
    (r"rtn", "int8"),  # vLLM's rounding while it loads, in 8 bits unless told otherwise
    (r"w8a8|int8|8[-_]?bit|llm[-_]int8|eetq|smoothquant", "int8"),
    (r"fp4", "nvfp4"),
    (r"fp8(?:[-_]?e[45]m[32])?|float8|modelopt[-_]fp8", "fp8"),
)
_PLAIN = {
    "bf16": "bfloat16",
    "bfloat16": "bfloat16",
    "fp16": "float16",
    "f16": "float16",
    "float16": "float16",
    "half": "float16",
    "fp32": "float32",
    "f32": "float32",
    "float32": "float32",
}
# They name a program, not a format: the checkpoint says which it is.
LOADERS = frozenset(
    {"compressed-tensors", "compressed_tensors", "modelopt", "quark", "inc", "auto", "none", "gguf", ""}
)

# What quantisation replaces. Embedding, head, norms and routers stay as they are outside of GGUF.
QUANTIZED: frozenset[Component] = frozenset({"attention", "mlp", "expert", "shared_expert"})

# Of mixtures of experts these are published with all experts and dense MLPs in 4 bits, and attention in 16: DeepSeek,
# Kimi, Qwen and MiniMax in nvfp4, gpt-oss in mxfp4, Kimi K2 in int4.
SPARES_ATTENTION = frozenset({"nvfp4", "mxfp4", "int4"})


def replaces(form: Format, component: Component, *, has_experts: bool) -> bool:
    """Whether a deployment that asks for the format has weights of the component in it."""
    spared = has_experts and component == "attention" and form.dtype in SPARES_ATTENTION
    return component in QUANTIZED and not spared


def words_of(text: str) -> str | None:
    """The format or GGUF mix that a name holds: `fp8_block`, `q4_k_m`; None where it holds none.

    >>> words_of("nvidia/Llama-3.1-8B-Instruct-FP8"), words_of("Qwen2.5-7B-Instruct-AWQ"), words_of("Llama-3.1-8B")
    ('fp8', 'int4', None)
    """
    plain = text.lower().strip()
    if plain in _PLAIN:
        return _PLAIN[plain]
    mix = is_mix(plain)
    if mix is not None:
        return mix
    return next(
        (form for pattern, form in _WORDS if re.search(rf"(?<![a-z0-9])(?:{pattern})(?![a-z0-9])", plain)), None
    )


def format_named(name: str) -> str:
    """The key of a format or mix. Raises InvalidInputError for a name that stands for none."""
    found = words_of(name)
    if found is None:
        raise InvalidInputError(
            f"{name!r} is no quantisation that is known.",
            f"There are {', '.join(FORMATS)}; and llama.cpp's: {', '.join(MIXES)}.",
        )
    return found


def bits_per_weight(dtype: str) -> float:
    """Of a large matrix; for a mix of llama.cpp's that isn't the name of a type too, of a whole file of usual shape.

    >>> bits_per_weight("nvfp4"), bits_per_weight("awq"), bits_per_weight("q8_0"), round(bits_per_weight("q4_k_m"), 1)
    (4.5, 4.15625, 8.5, 4.9)
    """
    if dtype not in FORMATS and block_by_name(dtype):
        return _bits_of_type(dtype)
    key = dtype if dtype in FORMATS else format_named(dtype)
    if key in FORMATS:
        return FORMATS[key].bytes(4096, 4096) * 8 / 4096**2
    return _bits_of_mix(key, tuple(_USUAL))


# Weights of one layer of Llama 3 8B, and of its embedding and head per layer, in millions: the usual proportions.
_USUAL: Mapping[str, float] = {
    "attn_q": 16.8,
    "attn_k": 4.2,
    "attn_v": 4.2,
    "attn_output": 16.8,
    "ffn_gate": 58.7,
    "ffn_up": 58.7,
    "ffn_down": 58.7,
    "token_embd": 16.4,
    "output": 16.4,
}
_OF_COMPONENT: Mapping[str, tuple[str, ...]] = {
    "attention": ("attn_q", "attn_k", "attn_v", "attn_output"),
    "embedding": ("token_embd",),
    "output": ("output",),
}
_OF_MLP = ("ffn_gate", "ffn_up", "ffn_down")
_LAYERS = 32


@cache
def _bits_of_mix(mix: str, tensors: tuple[str, ...]) -> float:
    """Mean over the layers, by the tensors' usual sizes."""
    bits = [
        (_USUAL[tensor], _bits_of_type(type_of(mix, Place(tensor, layer, _LAYERS, queries_per_key=4), 4096)))
        for tensor in tensors
        for layer in range(_LAYERS)
    ]
    return round(sum(size * width for size, width in bits) / sum(size for size, _ in bits), 6)


def _bits_of_type(name: str) -> float:
    block = block_by_name(name)
    if block is None:
        raise InvalidInputError(f"{name} is no type of llama.cpp's that is known.", "Name one of its types.")
    return 8 * block.bytes / block.elements


def requantized(model: Model, quantization: str) -> Model:
    """As the same weights would be in another format, by parts: what quantisation replaces, and no more.

    Raises InvalidInputError for a format that is not known.
    """
    key = format_named(quantization)
    kinds = tuple(
        kind.model_copy(update={"parts": tuple(_stored_as(part, key, model) for part in kind.parts)})
        for kind in model.layers
    )
    parts = tuple(_stored_as(part, key, model) for part in model.parts)
    size = _bytes(kinds, parts)
    dtype = FORMATS[key].dtype if key in FORMATS else usual_type(key)
    return model.model_copy(
        update={
            "layers": kinds,
            "parts": parts,
            "quantization": dtype,
            "weights_bytes": round(size) if kinds else round(model.total_params * bits_per_weight(key) / 8),
            "file_bytes": round(size + sum(part.bytes for part in parts if part.component == "mtp")),
            "tensors": (),
        }
    )


def _bytes(kinds: tuple[LayerKind, ...], parts: tuple[Part, ...]) -> float:
    inside = sum(part.bytes * kind.count for kind in kinds for part in kind.parts)
    return inside + sum(part.bytes for part in parts if part.component != "mtp")


def _plain(part: Part, model: Model) -> Part:
    """What another format had replaced, and this one doesn't, is in the model's own type again."""
    own = model.dtype if model.dtype in FORMATS else "bfloat16"
    if part.component not in QUANTIZED or FORMATS.get(part.dtype, FORMATS["float32"]).bits >= 16:
        return part
    return part.model_copy(update={"dtype": own, "bytes": part.parameters * FORMATS[own].bits / 8})


def _stored_as(part: Part, key: str, model: Model) -> Part:
    is_gguf = key in MIXES
    if is_gguf and part.component not in QUANTIZED | {"embedding", "output"}:
        return part
    has_experts = any(kind.experts for kind in model.layers)
    if not is_gguf and not replaces(FORMATS[key], part.component, has_experts=has_experts):
        return _plain(part, model)
    if is_gguf:
        bits = _bits_of_mix(key, _OF_COMPONENT.get(part.component, _OF_MLP))
        return part.model_copy(update={"dtype": usual_type(key), "bytes": part.parameters * bits / 8})
    form = FORMATS[key]
    size = form.bytes(max(1, part.parameters // max(model.hidden_size, 1)), max(model.hidden_size, 1))
    return part.model_copy(update={"dtype": form.dtype, "bytes": size})
