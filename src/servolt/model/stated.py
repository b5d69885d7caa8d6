"""A model of which only figures are known: a size, perhaps layers and widths. What is missing takes a usual shape."""

import math
from typing import Any

from servolt.errors import InvalidInputError
from servolt.model.config import model_from_config
from servolt.model.model import Model

__all__ = ["stated_model"]

# Weights in billions, layers, hidden size, heads, key heads, vocabulary: the shapes of SmolLM2, Llama 3, Qwen 2.5 and 3
# and Mistral Large as their reports have them. Between two of them depth is interpolated in the logarithm.
_SHAPES = (
    (0.135, 30, 576, 9, 3, 49_152),
    (0.36, 32, 960, 15, 5, 49_152),
    (0.5, 24, 896, 14, 2, 151_936),
    (1.2, 16, 2048, 32, 8, 128_256),
    (3.2, 28, 3072, 24, 8, 128_256),
    (8.0, 32, 4096, 32, 8, 128_256),
    (14.8, 40, 5120, 40, 8, 152_064),
    (32.8, 64, 5120, 40, 8, 152_064),
    (70.6, 80, 8192, 64, 8, 128_256),
    (122.6, 88, 12_288, 96, 8, 32_768),
    (405.9, 126, 16_384, 128, 8, 128_256),
)
_HEAD_DIM = 128
_CONTEXT = 32_768
# Of a mixture of experts of which only the sizes are known: as Qwen3's and MiniMax-M2's.
_EXPERTS, _EXPERTS_PER_TOKEN, _EXPERTS_OVER_ACTIVE = 128, 8, 10
_LEAST_VOCABULARY = 8192
_LEAST_SHARED, _WIDTH_TOLERANCE = 128, 0.03
LARGEST = 10**14  # weights; the largest published models have some 3 x 10**12


def stated_model(
    params: int,
    *,
    name: str = "stated",
    active_params: int | None = None,
    layers: int | None = None,
    hidden_size: int | None = None,
    num_heads: int | None = None,
    num_kv_heads: int | None = None,
    head_dim: int | None = None,
    intermediate_size: int | None = None,
    vocab_size: int | None = None,
    num_experts: int | None = None,
    experts_per_token: int | None = None,
    max_position_embeddings: int | None = None,
    quantization: str | None = None,
    dtype: str | None = None,
) -> Model:
    """With as many weights as are stated. `unknown_fields` names what was taken from usual shapes.

    Raises InvalidInputError for figures that don't go together.
    """
    if not 1_000_000 <= params <= LARGEST:
        raise InvalidInputError(f"{params:,} weights is no size of a model.", "State a size such as 8B or 670B.")
    if active_params is not None and not 0 < active_params <= params:
        raise InvalidInputError(
            f"{active_params:,} weights for a token are more than the {params:,} that there are.",
            "State both, the whole first.",
        )
    given: dict[str, Any] = {
        "num_hidden_layers": layers,
        "hidden_size": hidden_size,
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_kv_heads,
        "head_dim": head_dim,
        "vocab_size": vocab_size,
        "max_position_embeddings": max_position_embeddings,
        "num_experts": num_experts,
        "num_experts_per_tok": experts_per_token,
        "intermediate_size": intermediate_size,
    }
    config = _completed(params, active_params, {key: value for key, value in given.items() if value is not None})
    guessed = tuple(sorted(key for key in config if given.get(key) is None and key not in ("model_type",)))
    model = model_from_config(config, name=name, quantization=quantization, dtype=dtype)
    return model.model_copy(update={"basis": "stated", "architecture": "unknown", "unknown_fields": guessed})


def _completed(params: int, active: int | None, given: dict[str, Any]) -> dict[str, Any]:
    is_sparse = "num_experts" in given or (active is not None and active < params)
    config: dict[str, Any] = {"model_type": "llama", **_usual(params), "max_position_embeddings": _CONTEXT}
    if (
        is_sparse
    ):  # as wide as a dense model of what a token passes, and somewhat deeper: Qwen3, DeepSeek-V3, MiniMax-M2
        passed = active or params / _EXPERTS_OVER_ACTIVE
        depth = _usual(round(passed ** (2 / 3) * params ** (1 / 3)))["num_hidden_layers"]
        config |= {**_usual(round(passed)), "num_hidden_layers": depth}
    config |= given
    config["tie_word_embeddings"] = params < 4 * config["vocab_size"] * config["hidden_size"]
    if "num_attention_heads" not in given:
        config["num_attention_heads"] = max(1, config["hidden_size"] // config["head_dim"])
    config["num_key_value_heads"] = min(config["num_key_value_heads"], config["num_attention_heads"])
    if "num_key_value_heads" not in given:
        config["num_key_value_heads"] = math.gcd(config["num_attention_heads"], config["num_key_value_heads"])
    while _without_mlp(config) >= params and "vocab_size" not in given and config["vocab_size"] > 1000:
        config["vocab_size"] //= 2
    rest = params - _without_mlp(config)
    if rest <= 0:
        raise InvalidInputError(
            f"{params:,} weights are too few for {config['num_hidden_layers']} layers of {config['hidden_size']} "
            f"with a vocabulary of {config['vocab_size']:,}.",
            "State fewer layers, a smaller hidden size or vocabulary, or more weights.",
        )
    shaped = _sparse(config, rest, params, active) if is_sparse else _dense(config, rest, given)
    return shaped if "vocab_size" in given else _with_the_rest(shaped, params)


def _with_the_rest(config: dict[str, Any], params: int) -> dict[str, Any]:
    """Widths go in steps: what they leave of the weights goes into the vocabulary."""
    experts = config.get("num_experts", 1)
    width = config["moe_intermediate_size"] * experts if "num_experts" in config else config["intermediate_size"]
    width += config.get("shared_expert_intermediate_size", 0)
    layers, hidden = config["num_hidden_layers"], config["hidden_size"]
    router = layers * hidden * experts if "num_experts" in config else 0
    left = params - _without_mlp(config) - router - 3 * hidden * layers * width
    rows = config["vocab_size"] + round(left / (hidden * (1 if config["tie_word_embeddings"] else 2)))
    return {**config, "vocab_size": rows} if rows >= _LEAST_VOCABULARY else config


def _usual(params: int) -> dict[str, int]:
    """Depth by interpolation, widths of the nearest shape."""
    size = params / 1e9
    nearest = min(_SHAPES, key=lambda shape: abs(math.log(shape[0] / size)))
    below = max((shape for shape in _SHAPES if shape[0] <= size), default=_SHAPES[0])
    above = min((shape for shape in _SHAPES if shape[0] >= size), default=_SHAPES[-1])
    share = math.log(size / below[0]) / math.log(above[0] / below[0]) if above[0] > below[0] else 0.0
    return {
        "num_hidden_layers": round(below[1] * (above[1] / below[1]) ** share) if 0 <= share <= 1 else nearest[1],
        "hidden_size": nearest[2],
        "num_attention_heads": nearest[3],
        "num_key_value_heads": nearest[4],
        "head_dim": _HEAD_DIM if nearest[2] // nearest[3] >= _HEAD_DIM else nearest[2] // nearest[3],
        "vocab_size": nearest[5],
    }


def _without_mlp(config: dict[str, Any]) -> int:
    hidden, width = config["hidden_size"], config["head_dim"]
    attention = 2 * hidden * width * (config["num_attention_heads"] + config["num_key_value_heads"])
    copies = 1 if config["tie_word_embeddings"] else 2
    size: int = copies * config["vocab_size"] * hidden + hidden + config["num_hidden_layers"] * (attention + 2 * hidden)
    return size


def _dense(config: dict[str, Any], rest: int, given: dict[str, Any]) -> dict[str, Any]:
    width = _step(rest / (3 * config["hidden_size"] * config["num_hidden_layers"]), config["hidden_size"])
    return {**config, "intermediate_size": given.get("intermediate_size", width)}


def _step(width: float, hidden: int) -> int:
    """As published widths go: llama.cpp's formats have blocks of 256, where the hidden size is made of them too."""
    step = 256 if hidden % 256 == 0 and width >= 256 else 32
    return max(step, round(width / step) * step)


def _number_of_experts(rest: int, chosen: int, active: int | None) -> int:
    """So many that those of one token take less than two thirds of what it passes."""
    number = _EXPERTS
    while active is not None and number < 1024 and rest * chosen / number > active * 2 / 3:
        number *= 2
    return number


def _sparse(config: dict[str, Any], rest: int, params: int, active: int | None) -> dict[str, Any]:
    """Experts hold what no token passes whole; what is left over of the rest is a shared expert."""
    chosen_of = config.get("num_experts_per_tok", _EXPERTS_PER_TOKEN)
    is_free = "num_experts" not in config
    number = config.setdefault("num_experts", _number_of_experts(rest, chosen_of, active))
    chosen = min(config.setdefault("num_experts_per_tok", _EXPERTS_PER_TOKEN), number)
    config["num_experts_per_tok"] = chosen
    if chosen >= number or number < 2:
        raise InvalidInputError(
            f"{chosen} of {number} experts is no choice.", "State more experts than a token passes."
        )
    layers, hidden = config["num_hidden_layers"], config["hidden_size"]
    routed = rest - layers * hidden * number
    if active is not None:
        routed = min(routed, round((params - active) / (1 - chosen / number)))
    every = routed / (3 * hidden * layers)  # the widths of all experts of one layer
    width = _step(every / number, hidden)
    if is_free:
        number = config["num_experts"] = max(2 * chosen, round(every / width))
    elif abs(width * number / every - 1) > _WIDTH_TOLERANCE:
        width = max(32, round(every / number / 32) * 32)
    shared = (rest - layers * hidden * number) / (3 * hidden * layers) - width * number
    config |= {"moe_intermediate_size": width, "intermediate_size": width}
    if shared >= _LEAST_SHARED:
        config |= {"shared_expert_intermediate_size": _step(shared, hidden), "n_shared_experts": 1}
    return config
