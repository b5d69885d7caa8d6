"""The law by which the replay engine serves. Standard library only: the fake's own process starts with it.

A prefill runs alone and ends with the first token; every step then gives each running sequence one token more.

    prefill(n) = prefill_s_per_token * n        n prompt tokens that are not cached
    step(b)    = step_s + step_s_per_sequence * b
    ttft       = prefill, on an idle engine
    throughput = b / step(b)                    tokens per second of b running sequences, between prefills
    power      = idle_watts, or busy_watts while a prefill or a step runs
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from urllib.parse import parse_qsl

__all__ = ["Law", "read_law"]


@dataclass(frozen=True)
class Law:
    """Seconds, watts and tokens. The defaults are those of a small model on two cores, in round numbers."""

    load_s: float = 0.0
    prefill_s_per_token: float = 0.0002
    step_s: float = 0.004
    step_s_per_sequence: float = 0.001
    prefix_block_tokens: int = 16
    output_tokens: int = 32
    tokens_per_chunk: int = 1
    idle_watts: float = 10.0
    busy_watts: float = 40.0
    seed: int = 0

    def prefill(self, tokens: int) -> float:
        """Seconds for so many prompt tokens that are not cached."""
        return self.prefill_s_per_token * tokens

    def step(self, sequences: int) -> float:
        """Seconds in which so many running sequences get one token each.

        >>> Law(step_s=0.004, step_s_per_sequence=0.001).step(4)
        0.008
        """
        return self.step_s + self.step_s_per_sequence * sequences

    def throughput(self, sequences: int) -> float:
        """Tokens per second of so many running sequences together."""
        return sequences / self.step(sequences)


def read_law(model: str) -> Law:
    """From a model's name: `replay`, or `replay?step_s=0.002&output_tokens=64`. Raises ValueError.

    >>> read_law("replay?step_s=0.002").step_s
    0.002
    """
    given = dict(parse_qsl(model.partition("?")[2], keep_blank_values=True))
    kinds = {field.name: field.type for field in fields(Law)}
    unknown = sorted(set(given) - set(kinds))
    if unknown:
        raise ValueError(f"the law has no {', '.join(unknown)}; it has {', '.join(kinds)}")
    return _law({name: _number(name, text, kinds[name]) for name, text in given.items()})


def _law(values: Mapping[str, float]) -> Law:
    law = Law(**values)  # type: ignore[arg-type]  # whole numbers where the field is one, by _number
    if law.step_s + law.step_s_per_sequence <= 0:
        raise ValueError("a step takes some time: step_s and step_s_per_sequence are both 0")
    return law


def _number(name: str, text: str, kind: object) -> float:
    whole = kind is int
    try:
        value = int(text) if whole else float(text)
    except ValueError as error:
        raise ValueError(f"{name} is a {'whole number' if whole else 'number'}, not {text!r}") from error
    least = 1 if name in ("output_tokens", "tokens_per_chunk", "prefix_block_tokens") else 0
    if not math.isfinite(value) or value < least:
        raise ValueError(f"{name} is at least {least}, not {text}")
    return value
