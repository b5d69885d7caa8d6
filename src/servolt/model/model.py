"""The frozen description of a model: sizes, not weights."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from servolt.document import Document, Value
from servolt.model.layers import LayerKind, Part

__all__ = ["Model", "TensorGroup"]


class TensorGroup(Value):
    """All tensors of one component with one data type."""

    component: Literal["embedding", "attention", "mlp", "norm", "output", "other"]
    dtype: str
    tensors: int
    elements: int
    bytes: int


class Model(Document):
    """Sizes are exact where `basis` is header. Totals leave out parts for `mtp`, which few engines load unasked."""

    schema_: Literal["servolt.model/1"] = Field("servolt.model/1", alias="schema")
    name: str
    architecture: str
    basis: Literal["header", "config", "catalogue", "card", "stated"] = "header"
    format: Literal["gguf", "safetensors", "config", "replay"]
    files: tuple[str, ...] = Field((), description="absolute paths; empty for the replay engine's model")
    file_bytes: int = Field(ge=0)
    total_params: int = Field(ge=0)
    active_params: int | None = Field(None, ge=0, description="that one token passes; None where not known")
    weights_bytes: int = Field(ge=0, description="sum over the tensors")
    quantization: str = Field(description="data type that holds most of the elements of the weight matrices")
    dtype: str | None = Field(None, description="data type that the engine computes in by default, such as bfloat16")
    tensors: tuple[TensorGroup, ...] = ()
    layers: tuple[LayerKind, ...] = Field((), description="what the layers are made of; empty where it is not known")
    layer_order: tuple[int, ...] = Field((), description="for each layer, in order, its index in `layers`")
    parts: tuple[Part, ...] = Field((), description="weights outside the layers: embedding, head, towers, extra heads")
    unknown_fields: tuple[str, ...] = Field((), description="of the config that were not understood: plan wider")
    num_layers: int = Field(ge=0)
    hidden_size: int = Field(ge=0)
    intermediate_size: int = Field(ge=0)
    num_heads: int = Field(ge=0)
    num_kv_heads: int = Field(ge=0)
    head_dim_k: int = Field(ge=0)
    head_dim_v: int = Field(ge=0)
    vocab_size: int = Field(ge=0)
    max_position_embeddings: int = Field(ge=0, description="the context it was trained for, tokens")
    rotary_elements: int = Field(
        0, ge=0, description="of the tables of sines and cosines that engines build for all positions"
    )
    sliding_window: int | None = None
    varied: tuple[str, ...] = Field(
        (), description="header keys whose value differs from layer to layer; the largest stands here"
    )
    tied_embeddings: bool = False
    pooling: str | None = Field(None, description="an embedding model's pooling; None for a generative model")
    chat_template: str | None = None
    metadata: Mapping[str, str | int | float | bool] = Field(
        default_factory=dict, description="the header's own keys, without arrays"
    )

    @property
    def capabilities(self) -> tuple[str, ...]:
        return ("embedding",) if self.pooling else ("completion",)
