"""A second model that guesses tokens: its figures travel with the model that it guesses for."""

import math
from typing import NamedTuple

from servolt.model import Model
from servolt.plan.memory.kv import keeps_tokens
from servolt.plan.memory.shape import shape_of

__all__ = ["Draft", "draft_layers_of", "draft_of", "with_draft"]

BYTES, ELEMENTS = "draft.weights_bytes", "draft.kv_elements"


class Draft(NamedTuple):
    """`kv_elements` are of one token in all layers, on one device."""

    weights_bytes: float
    kv_elements: float


def with_draft(model: Model, draft: Model) -> Model:
    """The model, with what its draft takes."""
    found = {BYTES: draft.weights_bytes, ELEMENTS: round(_elements(draft))}
    return model.model_copy(update={"metadata": {**model.metadata, **found}})


def draft_of(model: Model) -> Draft | None:
    """None where no draft is known."""
    size, elements = model.metadata.get(BYTES), model.metadata.get(ELEMENTS)
    return Draft(float(size), float(elements or 0)) if isinstance(size, int | float) else None


def draft_layers_of(model: Model) -> int:
    """As many layers of the model's own as keep what all of its draft keeps."""
    draft = draft_of(model)
    shape = shape_of(model)
    keeping = [kind for kind in shape.kinds if keeps_tokens(kind)]
    own = max((kind.num_kv_heads * (kind.head_dim_k + kind.head_dim_v) for kind in keeping), default=0)
    return math.ceil(draft.kv_elements / own) if draft is not None and own else 0


def _elements(model: Model) -> float:
    shape = shape_of(model)
    kinds = [shape.kinds[index] for index in shape.order]
    return float(sum(kind.num_kv_heads * (kind.head_dim_k + kind.head_dim_v) for kind in kinds if keeps_tokens(kind)))
