"""A model of which only the name is known: how many weights it says it has, and how they are stored."""

import re
from typing import NamedTuple

from servolt.errors import ModelNotFoundError
from servolt.model.model import Model
from servolt.model.stated import stated_model

__all__ = ["card_model", "size_in"]


class Size(NamedTuple):
    """As a name states it; `active` is None for a dense model."""

    params: int
    active: int | None = None
    experts: int | None = None
    experts_per_token: int | None = None


_NUMBER = r"(\d+(?:\.\d+)?)"
_UNITS = {"m": 1e6, "b": 1e9, "t": 1e12}
# Mixtral's kind of name counts attention once for each expert: 8x7B has 46.7 B, 8x22B 140.6 B, 2 of 8 chosen.
_TIMES = re.compile(rf"(?<![\w.])(\d+)x{_NUMBER}([bm])(?![a-z0-9])", re.I)
_SHARE_OF_TIMES, _CHOSEN = 0.82, 2
# Llama 4's kind: 17B-16E is 17 B for a token, of 16 experts of which one is chosen; 109 B and 400 B in all.
_EXPERTS = re.compile(rf"(?<![\w.]){_NUMBER}b[-_ .](\d+)e(?![a-z0-9])", re.I)
# Of one token: 30B-A3B, 30B.A3B as llama.cpp prints it, 4BA0.6B.
_ACTIVE = re.compile(rf"(?:(?<![a-z0-9.])|(?<=\db)|(?<=b\.))a{_NUMBER}([bm])(?![a-z0-9])", re.I)
_WHOLE = re.compile(rf"(?<![a-z0-9.]){_NUMBER}\s?([mbt])(?:(?![a-z0-9])|(?=a\d))", re.I)


def size_in(name: str) -> Size | None:
    """The weights that a name states; None where it states none.

    >>> size_in("Qwen/Qwen3-30B-A3B-FP8")
    Size(params=30000000000, active=3000000000, experts=None, experts_per_token=None)
    >>> size_in("mistralai/Mixtral-8x7B-v0.1").params, size_in("deepseek-ai/DeepSeek-V3")
    (45920000000, None)
    """
    times, experts = _TIMES.search(name), _EXPERTS.search(name)
    if times is not None:
        number, each = int(times[1]), float(times[2]) * _UNITS[times[3].lower()]
        share = _CHOSEN / number if number > _CHOSEN else 1.0
        params = _SHARE_OF_TIMES * number * each
        return Size(round(params), round(params * (share + 0.03)) if number > _CHOSEN else None, number, _CHOSEN)
    if experts is not None:
        active, number = float(experts[1]) * 1e9, int(experts[2])
        return Size(round(active * 6.4 * (number / 16) ** 0.62), round(active), number, 1)
    whole = [float(number) * _UNITS[unit.lower()] for number, unit in _WHOLE.findall(name)]
    if not whole:
        return None
    active_at = _ACTIVE.search(name)
    params = round(max(whole))
    active_params = round(float(active_at[1]) * _UNITS[active_at[2].lower()]) if active_at else None
    return Size(params, active_params if active_params and active_params < params else None)


def card_model(name: str, *, quantization: str | None = None, dtype: str | None = None) -> Model:
    """Of usual shape for the size that the name states. Raises ModelNotFoundError where it states none."""
    size = size_in(name)
    if size is None:
        raise ModelNotFoundError(
            f"nothing is known of {name!r}, and its name states no size.",
            "Give its config.json or the path of its files, or state its figures: --params 70B --layers 80.",
        )
    model = stated_model(
        size.params,
        name=name,
        active_params=size.active,
        num_experts=size.experts,
        experts_per_token=size.experts_per_token,
        quantization=quantization,
        dtype=dtype,
    )
    return model.model_copy(update={"basis": "card"})
