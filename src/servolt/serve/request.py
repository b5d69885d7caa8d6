"""What a caller asks of an engine, in one form for every dialect."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from servolt.serve.refusal import RefusedError

__all__ = ["INT32_MAX", "EmbeddingRequest", "GenerationRequest", "Row", "Sampling", "check_sampling"]

INT32_MAX = 2**31 - 1
# llama.cpp reads 32 bits of the seed and takes the highest value as "random".
SEEDS = 2**32 - 1
MAX_STOPS = 64  # OpenAI allows 4, Ollama any number; each is searched for in each piece of text
MAX_STOP_LENGTH = 1024
MAX_BIASES = 1024  # OpenAI's own bound

# Lowest and highest value that means something; what is outside is refused, not clamped.
RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 100.0),  # OpenAI stops at 2, Ollama and vLLM do not; above 100 all tokens are alike
    "top_k": (-1, INT32_MAX),  # 0 and -1 are off
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "typical_p": (0.0, 1.0),
    "repeat_penalty": (0.0, 100.0),
    "repeat_last_n": (-1, INT32_MAX),
    "presence_penalty": (-2.0, 2.0),  # OpenAI's range
    "frequency_penalty": (-2.0, 2.0),
    "seed": (-(2**63), 2**63 - 1),
    "max_tokens": (1, INT32_MAX),
    "top_logprobs": (0, 20),
}


class Row(msgspec.Struct, frozen=True):
    """One line of the fidelity report: what was asked and what was done instead, and why."""

    parameter: str
    action: Literal["dropped", "altered", "emulated"]
    asked: Any
    effective: Any
    reason: str


class Sampling(msgspec.Struct, omit_defaults=True):
    """How the next token is chosen and when the answer ends. None is the engine's own default."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    stop: list[str] | None = None
    logit_bias: dict[str, float] | None = None
    top_logprobs: int | None = None
    ignore_eos: bool | None = None


class GenerationRequest(msgspec.Struct):
    """Messages (in OpenAI's shape) or a prompt (text or token ids), never both."""

    messages: Sequence[Any] | None = None
    prompt: str | Sequence[int] | None = None
    sampling: Sampling = msgspec.field(default_factory=Sampling)
    tools: Sequence[Any] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    response_format: Any = None
    template_values: dict[str, Any] | None = None
    logprobs: bool = False


class EmbeddingRequest(msgspec.Struct):
    """Texts to be turned into one vector each."""

    texts: list[str]


def check_sampling(sampling: Sampling, names: dict[str, str] | None = None) -> None:
    """Raises RefusedError naming the first field outside its range; `names` gives a dialect's own word for a field."""
    for field, (low, high) in RANGES.items():
        value = getattr(sampling, field)
        if value is not None and not low <= value <= high:
            name = (names or {}).get(field, field)
            raise RefusedError(
                "invalid",
                f"{name} must be between {_short(low)} and {_short(high)}, not {_short(value)}.",
                "Correct it, or leave it out.",
                param=name,
            )
    _check_stop(sampling.stop)
    if sampling.logit_bias is not None:
        _check_bias(sampling.logit_bias)
    if sampling.seed is not None and sampling.seed != -1:
        sampling.seed %= SEEDS


def _check_stop(stop: list[str] | None) -> None:
    if stop is None:
        return
    if len(stop) > MAX_STOPS:
        raise RefusedError(
            "invalid", f"stop holds {len(stop)} strings, at most {MAX_STOPS} are read.", "Send fewer.", param="stop"
        )
    if any(not 1 <= len(text) <= MAX_STOP_LENGTH for text in stop):
        raise RefusedError(
            "invalid", f"each string of stop must have 1 to {MAX_STOP_LENGTH} characters.", "Correct it.", param="stop"
        )


def _check_bias(logit_bias: dict[str, float]) -> None:
    if len(logit_bias) > MAX_BIASES:
        raise RefusedError(
            "invalid", f"logit_bias holds more than {MAX_BIASES} tokens.", "Send fewer.", param="logit_bias"
        )
    for token, bias in logit_bias.items():
        if not token.isdecimal() or len(token) > 9 or not math.isfinite(bias) or not -100 <= bias <= 100:
            raise RefusedError(
                "invalid",
                "logit_bias maps token ids to numbers between -100 and 100.",
                'Write {"42": -100} and the like.',
                param="logit_bias",
            )


def _short(value: float) -> str:
    text = f"{value:g}" if isinstance(value, float) else f"{value:,}"
    return text if len(text) <= 40 else text[:37] + "..."
