"""Which weights of a checkpoint are quantised and how: its `quantization_config`, or what a deployment asks for."""

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

from servolt.errors import InvalidInputError
from servolt.model.fields import Fields
from servolt.model.ggml import block_by_name
from servolt.model.mixes import MIXES, Place, type_of, usual_type
from servolt.model.quantization import FORMATS, LOADERS, QUANTIZED, Format, format_named, replaces, words_of
from servolt.model.weights import Stored, Weight

__all__ = ["Scheme", "scheme_of"]

# Lists of exclusions may name the fused module that an engine makes of several.
FUSED = {
    "q_proj": "qkv_proj",
    "k_proj": "qkv_proj",
    "v_proj": "qkv_proj",
    "gate_proj": "gate_up_proj",
    "up_proj": "gate_up_proj",
    "q_a_proj": "fused_qkv_a_proj",
    "kv_a_proj_with_mqa": "fused_qkv_a_proj",
}
# Where lists name a tower or a layer of several in one of its places.
NOISE = re.compile(r"(language_model|text_model|transformer|backbone)\.")


class Scheme:
    """How each weight is stored. `name` is the type that most matrices have, `dtype` that of all others."""

    def __init__(
        self,
        name: str,
        dtype: str,
        format_of: Callable[[str, Weight], Format | None] | None = None,
        *,
        mix: str | None = None,
        place: Mapping[str, Any] | None = None,
        holds: frozenset[str] = frozenset(),
    ) -> None:
        self.name, self.dtype = name, dtype
        self.holds = holds | {name}  # the types of its matrices
        self.replaced: str | None = None  # what the checkpoint says, where another format was asked for
        self._format_of, self._mix, self._place = format_of, mix, place or {}
        self._plain = FORMATS[dtype]

    @property
    def is_uniform(self) -> bool:
        """Whether a weight's place doesn't matter."""
        return self._format_of is None and self._mix is None

    def stored(self, weight: Weight, module: str, layer: int = 0) -> Stored:
        """`module` is the weight's whole name."""
        if self._mix is not None:
            return self._in_gguf(weight, self._mix, layer)
        if weight.dtype:
            form = FORMATS[weight.dtype]
        else:
            form = (self._format_of(module, weight) if weight.linear and self._format_of else None) or self._plain
        return Stored(form.dtype, weight.copies * form.bytes(weight.rows, weight.columns))

    def _in_gguf(self, weight: Weight, mix: str, layer: int) -> Stored:
        """llama.cpp keeps vectors, routers and convolutions in float32 and quantises embedding and head too."""
        if weight.component in ("vision", "mtp"):
            return Stored("f16", weight.elements * 2.0)
        if (
            weight.columns == 1
            or weight.component == "router"
            or not (weight.linear or weight.component == "embedding")
        ):
            return Stored("f32", weight.elements * 4.0)
        place = Place(_tensor(weight, tied=bool(self._place.get("tied"))), layer, **self._place.get("in_layer", {}))
        name = type_of(mix, place, weight.columns)
        block = block_by_name(name)
        assert block is not None
        return Stored(name, weight.elements / block.elements * block.bytes)


def _tensor(weight: Weight, *, tied: bool) -> str:
    """What llama.cpp calls it. A tied embedding serves as head and is stored like one; one for each layer doesn't."""
    if weight.component == "embedding":
        return "output" if tied and not weight.module.endswith("per_layer") else "token_embd"
    if weight.component == "output":
        return "output"
    last = weight.module.rpartition(".")[2]
    names = {
        "q_proj": "attn_q",
        "k_proj": "attn_k",
        "v_proj": "attn_v",
        "o_proj": "attn_output",
        "gate_proj": "ffn_gate",
        "up_proj": "ffn_up",
        "down_proj": "ffn_down",
    }
    name = names.get(last, last)
    return f"{name}_exps" if weight.component == "expert" else name


def scheme_of(
    fields: Fields, *, quantization: str | None, dtype: str | None, has_experts: bool, place: Mapping[str, Any]
) -> Scheme:
    """What is asked for counts over what the checkpoint says, unless both mean the same type.

    Where neither says anything the name of the checkpoint may. Raises InvalidInputError for an unknown name.
    """
    own = _dtype(fields, dtype)
    stated = fields.inside("quantization_config", "compression_config")
    if stated is None and fields.get("quantization_config"):
        raise fields.fault("quantization_config", "a group of fields")
    asked = _format_asked(quantization, is_stated=stated is not None)
    found = None if stated is None else _stated(stated, fields, own)
    if found is not None and (asked is None or _dtype_of(asked) in found.holds):
        return found
    named = words_of(fields.name)  # a name such as w4a16 or FP8-dynamic says more than the name of a loader
    if named is not None and (asked is None or _dtype_of(asked) == _dtype_of(named)):
        asked = named
    if asked is None:
        return Scheme(own, own)
    scheme = _asked(asked, own, has_experts=has_experts, place=place)
    scheme.replaced = None if found is None else found.name
    return scheme


def _format_asked(quantization: str | None, *, is_stated: bool) -> str | None:
    if quantization is None:
        return None
    if quantization.lower() == "modelopt" and not is_stated:
        return "fp8"  # what vLLM's loader of this name takes checkpoints for that don't say (modelopt.py, 0.33.0)
    return None if quantization.lower() in LOADERS else format_named(quantization)


def _dtype(fields: Fields, dtype: str | None) -> str:
    given = (dtype or fields.text("dtype")).removeprefix("torch.").lower()
    key = words_of(given) if given and given not in ("auto",) else "bfloat16"
    if key not in ("float32", "float16", "bfloat16"):
        if dtype:
            raise InvalidInputError(f"{dtype!r} is no type to compute in.", "Name bfloat16, float16 or float32.")
        fields.doubted.add("dtype")
        key = "bfloat16"
    # Engines load float32 checkpoints in 16 bits unless they are told otherwise.
    return "bfloat16" if key == "float32" and not dtype else key


def _dtype_of(key: str) -> str:
    return FORMATS[key].dtype if key in FORMATS else key


def _asked(key: str, own: str, *, has_experts: bool, place: Mapping[str, Any]) -> Scheme:
    if key in ("float32", "float16", "bfloat16"):
        return Scheme(key, key)
    if key in MIXES:
        return Scheme(usual_type(key), own, mix=key, place=place)
    form = FORMATS[key]

    def format_of(module: str, weight: Weight) -> Format | None:
        return form if replaces(form, weight.component, has_experts=has_experts) else None

    return Scheme(form.dtype, own, format_of)


class _Rule(NamedTuple):
    """A format for the modules that fit, or for all."""

    form: Format
    targets: tuple[str, ...] = ()


def _stated(stated: Fields, fields: Fields, own: str) -> Scheme:
    method = stated.text("quant_method").lower().replace("-", "_") or stated.text("quant_algo").lower()
    skipped = _patterns(stated)
    layers = stated.inside("quantized_layers")
    rules = [] if layers is not None else _rules(stated, method)
    only_experts = method == "mxfp4"
    experts = FORMATS["mxfp4"] if fields.text("expert_dtype") == "fp4" else None  # DeepSeek-V4
    named = {} if layers is None else {_plain_name(key): _algorithm(value) for key, value in layers.values.items()}

    def format_of(module: str, weight: Weight) -> Format | None:
        if named:
            return _listed(module, named)
        if weight.component not in QUANTIZED and not _targets(rules, module):
            return None
        if (only_experts and weight.component != "expert") or _skips(skipped, module):
            return None
        if experts is not None and weight.component == "expert":
            return experts
        return next((rule.form for rule in rules if not rule.targets or _fits(rule.targets, module)), None)

    forms = [rule.form for rule in rules] + ([experts] if experts else []) + [form for form in named.values() if form]
    name = min(forms, key=lambda form: form.bits).dtype if forms else own
    return Scheme(name, own, format_of if forms else None, holds=frozenset(form.dtype for form in forms))


def _patterns(stated: Fields) -> tuple[str, ...]:
    """All the lists that name what is left as it was."""
    found: list[str] = []
    for key in (
        "modules_to_not_convert",
        "ignore",
        "ignored_layers",
        "exclude_modules",
        "exclude",
        "llm_int8_skip_modules",
        "skip_modules",
        "modules_to_skip",
    ):
        found += stated.names(key) or ()
    return tuple(found)


def _rules(stated: Fields, method: str) -> list[_Rule]:
    groups = stated.inside("config_groups")
    if groups is not None:
        return [rule for group in groups.values.values() if (rule := _group(group, stated)) is not None]
    form = _whole(stated, method)
    if form is None:
        raise stated.fault("quant_method", "the name of a quantisation that is known")
    return [_Rule(form)]


def _whole(stated: Fields, method: str) -> Format | None:
    if method == "fp8":
        return FORMATS["fp8_block" if stated.has("weight_block_size") else "fp8"]
    if method in ("gptq", "awq", "auto_round", "intel/auto_round", "autoround", "gptq_marlin", "awq_marlin", "inc"):
        return _integers(stated, has_zero=method != "auto_round")
    if method in ("bitsandbytes", "bnb"):
        if stated.flag("load_in_8bit", "_load_in_8bit"):
            return FORMATS["int8"]
        return FORMATS["nf4_double" if stated.flag("bnb_4bit_use_double_quant") else "nf4"]
    if method in ("modelopt", "modelopt_fp4", "modelopt_fp8", "nvfp4") or stated.has("quant_algo"):
        return _algorithm(stated.values)
    if method == "quark":
        weight = (stated.inside("global_quant_config") or stated).inside("weight")
        word = weight.text("dtype") if weight is not None else ""
        return FORMATS["mxfp4" if "fp4" in word else "int4" if "int4" in word else "int8" if "int8" in word else "fp8"]
    if method == "torchao":
        word = str(stated.get("quant_type"))
        return FORMATS["int4" if "int4" in word or "Int4" in word else "int8" if "nt8" in word else "fp8"]
    if method == "bitnet":  # four ternary weights in a byte, and one scale for a whole matrix
        return Format("int2", 2)
    if method in ("hqq", "aqlm", "vptq", "spqr", "higgs", "quip", "exl2", "exl3"):
        bits = stated.number("bits", stated.number("nbits", 2 if method == "aqlm" else 4))
        return Format("int2" if bits < 3 else "int4", bits, group=stated.size("group_size", 128), scale_bits=16)
    key = words_of(method)
    return FORMATS.get(key) if key else None


def _integers(stated: Fields, *, has_zero: bool) -> Format:
    bits = int(stated.number("bits", stated.number("w_bit", 4)))
    group = stated.get("group_size", "q_group_size")
    group = group if isinstance(group, int) and group > 0 else 0
    # GPTQ files hold zero points even where they are all alike.
    return Format(f"int{bits}", bits, group=group, scale_bits=16, zero_bits=bits if has_zero else 0)


def _group(group: Any, stated: Fields) -> _Rule | None:
    """One of compressed-tensors' groups."""
    weights = group.get("weights") if isinstance(group, Mapping) else None
    if not isinstance(weights, Mapping):
        return None
    bits, kind = int(weights.get("num_bits") or 8), str(weights.get("type") or "int")
    strategy, size = weights.get("strategy"), weights.get("group_size")
    targets = tuple(str(target) for target in group.get("targets") or () if target != "Linear")
    form: Format
    if kind == "float" and bits == 4:
        is_wide = size == 32 or "mxfp4" in stated.text("format")
        form = FORMATS["mxfp4" if is_wide else "nvfp4"]
    elif kind == "float":
        form = FORMATS["fp8_block" if strategy == "block" else "fp8_channel" if strategy == "channel" else "fp8"]
    else:
        zero = 0 if weights.get("symmetric", True) else bits
        group_size = int(size) if isinstance(size, int) and size > 0 else 0
        form = Format(f"int{bits}", bits, group=group_size, scale_bits=16, zero_bits=zero)
    return _Rule(form, targets)


def _algorithm(value: Any) -> Format | None:
    """ModelOpt's words, such as FP8, NVFP4, W4A16_NVFP4, W4A8_AWQ."""
    word = str(value.get("quant_algo") if isinstance(value, Mapping) else value)
    if word.upper() in ("MIXED_PRECISION", "NONE"):
        return None
    key = words_of(word)
    form = FORMATS.get(key) if key else None
    size = value.get("group_size") if isinstance(value, Mapping) else None
    return form._replace(group=size) if form and form.group and isinstance(size, int) and not form.is_block else form


def _plain_name(module: str) -> str:
    return NOISE.sub("", module)


def _listed(module: str, named: Mapping[str, Format | None]) -> Format | None:
    """Of the module or of the nearest that holds it."""
    while module:
        if module in named:
            return named[module]
        module = module.rpartition(".")[0]
    return None


def _targets(rules: Sequence[_Rule], module: str) -> bool:
    return any(rule.targets and _fits(rule.targets, module) for rule in rules)


def _skips(patterns: tuple[str, ...], module: str) -> bool:
    return _fits(patterns, module)


@lru_cache(maxsize=64)
def _matchers(patterns: tuple[str, ...]) -> tuple[frozenset[str], tuple[re.Pattern[str], ...]]:
    """Plain names, and what has to be tried: `re:` as compressed-tensors writes it, or stars as ModelOpt does."""
    plain: set[str] = set()
    tried: list[re.Pattern[str]] = []
    for pattern in patterns:
        text = pattern.removeprefix("re:")
        try:
            if text != pattern:
                tried.append(re.compile(NOISE.sub("", text)))
            elif "*" in text or "?" in text:
                tried.append(re.compile(fnmatch.translate(_plain_name(text)).removesuffix(r"\Z") + r"(\.|\Z)"))
            else:
                plain.add(_plain_name(text))
        except re.error:
            plain.add(text)
    return frozenset(plain), tuple(tried)


def _fits(patterns: tuple[str, ...], module: str) -> bool:
    """A name fits its own module and all inside; a short one, such as `gate`, wherever it stands in the path."""
    if not patterns:
        return False
    plain, tried = _matchers(patterns)
    return not plain.isdisjoint(_paths(module)) or any(pattern.match(module) for pattern in tried)


@lru_cache(maxsize=2**13)  # a model of 100 layers has about a thousand, asked for by each list
def _paths(module: str) -> frozenset[str]:
    """Every way to name it: from the front, from the back, a step alone, the fused module that holds it."""
    steps = module.split(".")
    last = steps[-1]
    fused = [f"{module[: -len(last)]}{FUSED[last]}"] if last in FUSED else []
    return frozenset((*accumulate(steps, _joined), *accumulate(reversed(steps), _before), *steps, *fused))


def _joined(path: str, step: str) -> str:
    return f"{path}.{step}"


def _before(path: str, step: str) -> str:
    return f"{step}.{path}"
