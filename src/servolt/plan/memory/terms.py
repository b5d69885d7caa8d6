"""Terms of a budget with their intervals, as every engine's arithmetic needs them."""

import math
from collections.abc import Iterable, Mapping

from servolt.model import Model
from servolt.model.layers import ATTENTION_KINDS
from servolt.plan.memory.budget import Term, TermName
from servolt.plan.memory.kv import dtype_bytes
from servolt.plan.memory.sharding import GIB, StageWeights

__all__ = ["Known", "around", "bytes_of", "measured", "rotary_bytes", "spread", "weights_term"]

# Terms of the first stage's device that need no formula: bytes as logged, or with an interval.
Known = Mapping[TermName, float | Term]

# How far the sum over a model's weights was seen off what engines log, as a share, by where the sizes come from; and
# what loading adds and takes, whatever the size.
WEIGHTS_TOLERANCE = {"header": 0.002, "config": 0.006, "catalogue": 0.01, "card": 0.1, "stated": 0.1}
WEIGHTS_LESS_BYTES, WEIGHTS_MORE_BYTES = 0.02 * GIB, 0.06 * GIB

EXTRA_TOLERANCE = 0.3  # of what loading computes beside the tensors

# Scalings that lengthen the table of positions by their factor; others keep the model's own length.
LENGTHENING = ("linear", "dynamic", "yarn", "longrope")


def around(size: float, less: float, more: float, formula: str) -> Term:
    """A formula that may be off by so many bytes."""
    return Term(
        bytes=max(0, round(size)),
        low=max(0, round(size - less)),
        high=max(0, round(size + more)),
        basis="formula",
        formula=formula,
    )


def measured(known: float | Term) -> Term:
    """What is known from elsewhere: bytes as logged, or a term that says itself how sure it is."""
    if isinstance(known, Term):
        return known
    return Term(bytes=round(known), low=round(known), high=round(known), basis="measured", formula="as logged")


def bytes_of(known: float | Term) -> float:
    return float(known.bytes if isinstance(known, Term) else known)


def spread(parts: Iterable[float]) -> float:
    """Of a sum of terms that have nothing to do with one another."""
    return math.sqrt(sum(part * part for part in parts))


def weights_term(model: Model, weights: StageWeights, extra_bytes: float = 0.0) -> Term:
    """Tensors by the engine's own split; `extra_bytes` is what loading computes beside them."""
    size = weights.bytes + extra_bytes
    tolerance = WEIGHTS_TOLERANCE[model.basis] * weights.bytes + EXTRA_TOLERANCE * extra_bytes
    layers = f"layers {weights.start} to {weights.end - 1}" if weights.layers else "no layers"
    formula = f"{layers}: {', '.join(f'{name} {size / GIB:.2f}' for name, size in _largest(weights))} GiB"
    return around(size, tolerance + WEIGHTS_LESS_BYTES, tolerance + WEIGHTS_MORE_BYTES, formula)


def rotary_bytes(model: Model, dtype: str | None) -> float:
    """Tables of sines and cosines: positions x rotated width x bytes, one for each base. 0 where nothing rotates.

    Llama-3.1-8B: 131,072 x 128 x 2 = 32 MiB, which is what vLLM loads beyond the tensors.
    """
    width = max(
        (kind.rope_head_dim or kind.head_dim_k for kind in model.layers if kind.mixer in ATTENTION_KINDS), default=0
    )
    positions = model.max_position_embeddings
    factor, share = _number(model, "rope.factor", 1.0), _number(model, "rope.partial_rotary_factor", 1.0)
    original, caches = _number(model, "rope.original_max_position_embeddings", 0), _number(model, "rope.caches", 1)
    scaled = float(positions)
    if model.metadata.get("rope.type") in LENGTHENING:
        scaled = original * factor if original else positions * factor
    return (scaled + (caches - 1) * positions) * width * share * dtype_bytes(dtype)


def _largest(weights: StageWeights) -> list[tuple[str, float]]:
    return sorted(weights.components.items(), key=lambda item: -item[1])[:3]


def _number(model: Model, name: str, otherwise: float) -> float:
    value = model.metadata.get(name)
    return float(value) if isinstance(value, int | float) else otherwise
