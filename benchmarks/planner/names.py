"""Which config a case's model has: by its name among the files of a folder, or by how many parameters it has."""

import csv
import json
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from servolt.catalogue import find_model_entry
from servolt.errors import ServoltError
from servolt.model import Model, model_from_config

__all__ = ["Configs", "Named", "family_of", "format_in", "total_errors", "words_of"]

# Words of a name that its config does not depend on.
NOISE = frozenset(
    re.findall(
        r"\S+",
        """meta instruct it chat base hf thinking reasoning inferred dynamic quantized checkpoint quark amd kv
        safetensors gguf mlx bnb bit bits b block
        fp8 nvfp4 fp4 mxfp4 bf16 fp16 f16 awq gptq int4 int8 w8a8 w4a16 w8a16 unsloth
        nvidia""",
    )
)
# Releases of one model with one config: DeepSeek-R1-0528, Qwen3-30B-A3B-Instruct-2507, -128K.
RELEASE = re.compile(r"^(\d{4}|\d+k|99(\.9)?)$")
# What comes after these is said about the run, not the name of the model.
REMARK = re.compile(r"\s+with\s+|\s*\+\s+|\s*\(|,|\s{3,}|\s+family\b")
FORMATS = (
    (r"w8a8[-_ ]?fp8|fp8[-_ ]?dynamic", "fp8_dynamic"),
    (r"nvfp4", "nvfp4"),
    (r"mxfp4", "mxfp4"),
    (r"fp8", "fp8"),
    (r"w8a8", "w8a8"),
    (r"w4a16", "w4a16"),
    (r"bnb[-_]4bit|4bit[-_]bnb|bitsandbytes", "bnb-4bit"),
    (r"awq", "awq"),
    (r"gptq", "gptq"),
    (r"(?<![a-z0-9])4[-_]?bit", "4bit"),
    (r"(?<![a-z0-9])8[-_]?bit", "8bit"),
    (r"(?<![a-z])bf16(?![a-z])", "bf16"),
)
GGUF = re.compile(r"(?<![a-z0-9])i?q\d(?:_[a-z0-9]+)+(?![a-z0-9])")
# Of a total that a log rounds, and to which some files add tensors that are stored twice.
SAME_TOTAL = 0.002


class Named(NamedTuple):
    """What to ask the planner for; `model` is None where nothing is known of its layers."""

    name: str  # the path of a config, or the name as it stands
    config: Path | None
    model: Model | None


class Configs:
    """ORG__NAME.json files. A name that no file has is looked up in the catalogue, as the planner itself will do."""

    def __init__(self, *folders: Path) -> None:
        self._files: dict[tuple[str, ...], dict[str | None, Path]] = {}
        self._exact: dict[str, Path] = {}
        for folder in folders:
            for path in sorted(folder.glob("*.json")):
                name = path.stem.replace("__", "/")
                self._exact.setdefault(name.lower(), path)
                self._files.setdefault(words_of(name), {}).setdefault(format_in(name), path)
        self._named: dict[tuple[str, float | None], Named] = {}

    def find(self, name: str, total: float | None = None) -> Named:
        """`total` is how many parameters a log says there are, for models whose name says nothing."""
        key = (name, total)
        if key not in self._named:
            self._named[key] = self._find(name, total)
        return self._named[key]

    def _find(self, name: str, total: float | None) -> Named:
        plain = REMARK.split(name.strip())[0]
        alike = self._files.get(words_of(plain), {})
        path = self._exact.get(plain.lower()) or alike.get(format_in(plain)) or alike.get(None)
        known = _in_catalogue(plain) if path is None else None
        if path is None and known is None:
            path = next(iter(alike.values()), None) or (self._with_total(total) if total else None)
        if path is not None:
            return Named(str(path), path, _model(path))
        # What is said beside the name, such as a class or a size, may tell the planner what the name doesn't.
        return Named((plain if known else name.strip()) or plain, None, known)

    def _with_total(self, total: float) -> Path | None:
        near = {path: abs(size / total - 1) for path, size in self._totals.items()}
        best = min(near, key=lambda path: near[path], default=None)
        return best if best is not None and near[best] < SAME_TOTAL else None

    @cached_property
    def _totals(self) -> Mapping[Path, int]:
        models = {path: _model(path) for path in self._exact.values()}
        return {path: model.total_params for path, model in models.items() if model and model.total_params}


def total_errors(folder: Path) -> list[float]:
    """Of each config whose parameters were counted elsewhere: `true_total` in params.csv, true to its stated digits."""
    table = folder / "params.csv"
    if not table.exists():
        return []
    with table.open(newline="", encoding="utf-8") as lines:
        stated = [(row.get("file", ""), row.get("true_total") or "") for row in csv.DictReader(lines)]
    found: list[float] = []
    for name, total in stated:
        model = _model(folder / name) if total.isdigit() and (folder / name).exists() else None
        if model is not None:
            text = sum(part.parameters for part in model.parts if part.component == "vision")
            digit = 10 ** (len(total) - len(total.rstrip("0")))
            off = min(abs(size - int(total)) for size in (model.total_params, model.total_params - text))
            found.append(0.0 if off < digit else off / int(total))
    return found


def words_of(name: str) -> tuple[str, ...]:
    """
    >>> words_of("meta-llama/Llama-3.1-8B-Instruct") == words_of("Meta-Llama-3.1-8B-Instruct-quantized.w8a8")
    True
    >>> words_of("Llama2-70B-hf"), words_of("Qwen3 30B A3B")
    (('llama', '2', '70b'), ('qwen', '3', '30b', 'a', '3b'))
    """
    kept = [word for word in re.split(r"[-_/ .]+(?!\d)|[-_/ ]+", name.rpartition("/")[2].lower()) if word]
    kept = [word for word in kept if word not in NOISE and not RELEASE.match(word)]
    return tuple(re.findall(r"[a-z]+|\d+(?:\.\d+)*(?:[bmk](?![a-z]))?", " ".join(kept)))


def family_of(name: str) -> str:
    """Models whose errors go together: qwen3, llama3.1, deepseek-v3 ...

    >>> family_of("Qwen/Qwen3-30B-A3B"), family_of("deepseek-ai/DeepSeek-R1"), family_of("Meta-Llama-3.1-8B")
    ('qwen3', 'deepseek-r', 'llama3.1')
    """
    words = words_of(name)
    head = "-".join(word for word in words[:2] if not word[0].isdigit()) or (words[0] if words else name)
    number = next((word for word in words[1:3] if re.fullmatch(r"\d+(\.\d+)*", word)), "")
    return f"{words[0]}{number}" if number and len(words) > 1 and words[1] == number else head


def format_in(name: str) -> str | None:
    """The quantisation that the name of a checkpoint tells; None where it tells none."""
    lower = name.lower()
    if mix := GGUF.search(lower):
        return mix[0]
    return next((found for pattern, found in FORMATS if re.search(pattern, lower)), None)


def _model(path: Path) -> Model | None:
    """By the config alone: what the row's name says of a format is asked of the planner."""
    try:
        config: Any = json.loads(path.read_text(encoding="utf-8"))
        return model_from_config(config, name=path.stem)
    except (ServoltError, ValueError):
        return None


def _in_catalogue(name: str) -> Model | None:
    try:
        return find_model_entry(name).model()
    except ServoltError:
        return None
