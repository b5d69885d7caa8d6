"""Which type llama.cpp gives each tensor of a file: a "Q4_K_M" file mixes types.

The rules are those of llama.cpp's `llama_tensor_get_type` (src/llama-quant.cpp, MIT), without an importance matrix.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["MIXES", "Place", "is_mix", "type_of", "usual_type"]

# The type that most tensors get.
MIXES: Mapping[str, str] = {
    "f32": "f32",
    "f16": "f16",
    "bf16": "bf16",
    "q4_0": "q4_0",
    "q4_1": "q4_1",
    "q5_0": "q5_0",
    "q5_1": "q5_1",
    "q8_0": "q8_0",
    "q2_k": "q2_k",
    "q2_k_s": "q2_k",
    "q3_k_s": "q3_k",
    "q3_k_m": "q3_k",
    "q3_k_l": "q3_k",
    "q4_k_s": "q4_k",
    "q4_k_m": "q4_k",
    "q5_k_s": "q5_k",
    "q5_k_m": "q5_k",
    "q6_k": "q6_k",
    "iq1_s": "iq1_s",
    "iq1_m": "iq1_m",
    "iq2_xxs": "iq2_xxs",
    "iq2_xs": "iq2_xs",
    "iq2_s": "iq2_xs",
    "iq2_m": "iq2_s",
    "iq3_xxs": "iq3_xxs",
    "iq3_xs": "iq3_s",
    "iq3_s": "iq3_s",
    "iq3_m": "iq3_s",
    "iq4_nl": "iq4_nl",
    "iq4_xs": "iq4_xs",
    "tq1_0": "tq1_0",
    "tq2_0": "tq2_0",
    "mxfp4_moe": "mxfp4",
    "iq2_ks": "iq2_ks",
    "iq2_k": "iq2_k",
    "iq3_ks": "iq3_ks",
    "iq3_k": "iq3_k",
    "iq4_kss": "iq4_kss",
    "iq4_ks": "iq4_ks",
    "iq4_k": "iq4_k",
    "iq5_ks": "iq5_ks",
    "iq5_k": "iq5_k",
    "iq6_k": "iq6_k",
}
# ik_llama.cpp's types, as they are published for mixtures of experts: the step above for the experts' last matrix, and
# 8 bits for all that every token passes.
_FORK = {
    "iq2_ks": "iq3_ks",
    "iq2_k": "iq3_k",
    "iq3_ks": "iq4_ks",
    "iq3_k": "iq4_ks",
    "iq4_kss": "iq4_ks",
    "iq4_ks": "iq5_ks",
    "iq4_k": "iq5_k",
    "iq5_ks": "iq6_k",
    "iq5_k": "iq6_k",
    "iq6_k": "q8_0",
}
_OTHER_NAMES = {"q3_k": "q3_k_m", "q4_k": "q4_k_m", "q5_k": "q5_k_m", "q2_k_l": "q2_k", "q2_k_xl": "q2_k"}
_OTHER_NAMES |= {"q3_k_xl": "q3_k_l", "q4_k_l": "q4_k_m", "q4_k_xl": "q4_k_m", "q5_k_l": "q5_k_m", "q5_k_xl": "q5_k_m"}
_OTHER_NAMES |= {"q6_k_l": "q6_k", "q6_k_xl": "q6_k", "q8_k_xl": "q8_0", "q8": "q8_0", "q6": "q6_k", "q5": "q5_k_m"}
_OTHER_NAMES |= {"q4": "q4_k_m", "q3": "q3_k_m", "q2": "q2_k"}

_TINY = frozenset({"iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq2_m"})
# For rows that are no multiple of 256.
_SMALLER_BLOCKS = {"q2_k": "iq4_nl", "q3_k": "iq4_nl", "q4_k": "q5_0", "q5_k": "q5_1", "q6_k": "q8_0"}
_SMALLER_BLOCKS |= {"tq1_0": "q4_0", "tq2_0": "q4_0"}


class Place(NamedTuple):
    """Where a tensor stands: what it is, in which of how many layers."""

    tensor: str  # attn_v, attn_k, attn_q, attn_output, ffn_down, ffn_up, ffn_gate, output, token_embd, or another
    layer: int = 0
    layers: int = 1
    queries_per_key: int = 1
    experts: int = 0
    is_70b: bool = False


def is_mix(text: str) -> str | None:
    """The mix that a name holds: `Q4_K_M`, `model.Q4_K_M.gguf`, `UD-Q4_K_XL`, `Q4_K - Medium`.

    >>> is_mix("Meta-Llama-3-8B-Instruct.Q4_K_M.gguf"), is_mix("Q4_K - Medium"), is_mix("Q8_0"), is_mix("llama")
    ('q4_k_m', 'q4_k_m', 'q8_0', None)
    """
    plain = re.sub(r"_k - (s|m|l)\w*", r"_k_\1", text.lower())
    plain = re.sub(r"(i?q\d_\w+?)_r[48]\b", r"\1", plain).replace("q2_k_m", "q2_k")
    words = [*MIXES, *_OTHER_NAMES]
    plain_words = "|".join(sorted((re.escape(word) for word in words), key=len, reverse=True))
    found = re.findall(rf"(?<![a-z0-9])({plain_words})(?![a-z0-9_])", plain)
    if not found:
        return None
    word = found[-1]
    return _OTHER_NAMES.get(word, word) if word not in ("f32", "f16", "bf16") else None


def usual_type(mix: str) -> str:
    return MIXES[mix]


def type_of(mix: str, place: Place, columns: int) -> str:
    """The type of one matrix with so many inputs."""
    name = _wanted(mix, place)
    if columns % 256 and name not in ("f32", "f16", "bf16"):
        name = _SMALLER_BLOCKS.get(name, "iq4_nl" if name.startswith("iq") else name)
    return "f16" if columns % 32 else name


def _wanted(mix: str, place: Place) -> str:
    usual = MIXES[mix]
    if usual in ("f32", "f16", "bf16"):
        return usual
    if mix in _FORK:
        if place.tensor.endswith("_exps") or not place.experts:
            return _FORK[mix] if place.tensor.startswith("ffn_down") else usual
        return "q8_0"
    if place.tensor == "output":
        return "q5_k" if mix in _TINY | {"iq3_xxs"} else "q8_0" if usual == "q8_0" else "q6_k"
    if place.tensor == "token_embd":
        return _embedding(mix, usual)
    if mix == "mxfp4_moe":
        return "mxfp4" if place.tensor.endswith("_exps") else "q8_0"
    if mix in _TINY:
        return _tiny(mix, usual, place)
    rule = {"attn_v": _values, "attn_k": _keys, "attn_q": _queries, "attn_output": _output, "ffn_down": _down}
    rule |= {"ffn_up": _up, "ffn_gate": _up}
    found = rule.get(place.tensor.removesuffix("_exps"))
    return usual if found is None else found(mix, usual, place)


def _embedding(mix: str, usual: str) -> str:
    if mix in ("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs"):
        return "q2_k"
    if mix in ("iq2_s", "iq2_m", "iq3_xxs"):
        return "iq3_s"
    if mix == "mxfp4_moe":
        return "q8_0"
    return "q4_k" if usual.startswith("tq") else usual


def _more_bits(layer: int, layers: int) -> bool:
    """The first and last eighth, and every third between."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def _tiny(mix: str, usual: str, place: Place) -> str:
    larger = mix in ("iq2_s", "iq2_m")
    if place.tensor == "attn_v":
        return "q4_k" if place.queries_per_key >= 4 or place.experts >= 4 else "iq3_s" if larger else "q2_k"
    if place.tensor == "attn_k" and place.experts == 8:
        return "q4_k"
    if place.tensor.startswith("ffn_down") and place.layer < place.layers // 8:
        return "iq3_s" if larger else "q2_k"
    if place.tensor == "attn_output":
        if place.experts == 8:
            return "q5_k"
        return "iq2_xxs" if mix in ("iq1_s", "iq1_m") else "iq3_s" if larger else usual
    return usual


def _values(mix: str, usual: str, place: Place) -> str:
    if place.experts == 8:
        return "q8_0"
    many = place.queries_per_key >= 4
    name = usual
    if mix == "q2_k":
        name = "q4_k" if many else "q3_k"
    elif mix in ("q2_k_s", "iq3_xs", "iq3_s") and many:
        name = "q4_k"
    elif mix == "iq3_xxs":
        name = "q4_k" if many else "iq3_s"
    elif mix in ("iq3_m", "q3_k_m"):
        name = "q5_k" if mix == "q3_k_m" and place.layer < 2 else "q4_k"
    elif mix == "q3_k_l" or (mix in ("iq4_nl", "iq4_xs") and many) or (mix == "q4_k_s" and place.layer < 4):
        name = "q5_k"
    elif mix in ("q4_k_m", "q5_k_m") and _more_bits(place.layer, place.layers):
        name = "q6_k"
    return "q5_k" if place.is_70b and name in ("q3_k", "q4_k") else name


def _keys(mix: str, usual: str, place: Place) -> str:
    return "q8_0" if place.experts == 8 else _queries(mix, usual, place)


def _queries(mix: str, usual: str, place: Place) -> str:
    return {"iq3_xs": "iq3_xxs", "iq3_xxs": "iq2_s"}.get(mix, usual)


def _down(mix: str, usual: str, place: Place) -> str:
    layer, layers = place.layer, place.layers
    first = layer < layers // 8
    if mix == "q2_k":
        return "q3_k"
    if mix == "q2_k_s":
        return "q4_k" if first else usual
    if mix == "iq3_xxs":
        return "q4_k" if first else "q3_k"
    if mix == "q3_k_m":
        return "q5_k" if layer < layers // 16 else "q4_k"
    if mix == "q3_k_l" or (first and mix in ("iq4_nl", "iq4_xs", "q4_k_s")):
        return "q5_k"
    if mix == "iq3_m" and (first or (place.experts == 8 and _more_bits(layer, layers))):
        return "q4_k"
    return "q6_k" if mix in ("q4_k_m", "q5_k_m") and _more_bits(layer, layers) else usual


def _output(mix: str, usual: str, place: Place) -> str:
    if place.experts == 8:
        return usual if usual in ("q5_k", "q6_k", "q8_0", "q5_0", "q5_1", "q4_0", "q4_1") else "q5_k"
    return {"q2_k": "q3_k", "iq3_xxs": "iq3_s", "q3_k_m": "q4_k", "q3_k_l": "q5_k", "iq3_m": "q4_k"}.get(mix, usual)


def _up(mix: str, usual: str, place: Place) -> str:
    is_inner = place.layers // 8 <= place.layer < 7 * place.layers // 8
    return "iq3_xxs" if mix == "iq3_xs" and is_inner else usual
