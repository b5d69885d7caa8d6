"""A model that is given by its figures alone: they are its name, so that its plans can be kept, shared and searched."""

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl

from servolt.deployment import Deployment
from servolt.errors import InvalidInputError
from servolt.model import Model
from servolt.model.stated import stated_model

__all__ = ["FIGURES", "name_of", "parse_weights", "stated"]

PREFIX = "stated?"
# As they stand in the name -> what they are of a model.
FIGURES: Mapping[str, str] = {
    "params": "params",
    "active_params": "active_params",
    "layers": "layers",
    "hidden_size": "hidden_size",
    "heads": "num_heads",
    "kv_heads": "num_kv_heads",
    "head_dim": "head_dim",
    "intermediate_size": "intermediate_size",
    "vocab_size": "vocab_size",
    "experts": "num_experts",
    "experts_per_token": "experts_per_token",
    "context": "max_position_embeddings",
}
_SCALE = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}


def name_of(figures: Mapping[str, int]) -> str:
    """
    >>> name_of({"layers": 80, "params": 70_000_000_000})
    'stated?params=70000000000&layers=80'
    """
    return PREFIX + "&".join(f"{name}={figures[name]}" for name in FIGURES if name in figures)


def stated(deployment: Deployment) -> Model | None:
    """None for a name that states no figures. Raises InvalidInputError for figures that can't be or are unknown."""
    name = deployment.model
    if not name.startswith(PREFIX):
        return None
    given = dict(parse_qsl(name.removeprefix(PREFIX), keep_blank_values=True))
    unknown = sorted(given.keys() - FIGURES.keys())
    if unknown or "params" not in given:
        what = f"{unknown[0]!r} is no figure of a model" if unknown else "the number of weights is missing"
        raise InvalidInputError(
            f"{name}: {what}.", f"Write stated?params=70B&layers=80; there are {', '.join(FIGURES)}."
        )
    figures = {FIGURES[key]: parse_weights(value) for key, value in given.items()}
    params = figures.pop("params")
    return stated_model(params, name=name, quantization=deployment.quantization, dtype=deployment.dtype, **figures)


def parse_weights(text: str) -> int:
    """A number of weights or of anything else, as cards write it. Raises InvalidInputError.

    >>> parse_weights("70B"), parse_weights("1.5t"), parse_weights("8,030,261,248")
    (70000000000, 1500000000000, 8030261248)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmbt]?)", text.strip().lower().replace(",", "").replace("_", ""))
    if match is None or float(match[1]) == 0:
        raise InvalidInputError(f"{text!r} is no number above 0.", "Write digits, or 70B, 500M, 1.2T.")
    return round(float(match[1]) * _SCALE[match[2]])
