"""What errors are shown by: kinds of models and of deployments, so that no kind hides behind the mean of all."""

from collections.abc import Iterator, Mapping
from typing import Any

from servolt.model import RECURRENT_KINDS, Model

__all__ = ["classes_of"]

FULL_WIDTH = frozenset({"bfloat16", "float16", "float32", "f16", "f32", "bf16"})
# What a row says of its model's attention, where nothing else is known of its layers.
SAID = {
    "moe": ("moe",),
    "mla": ("mla",),
    "swa": ("sliding",),
    "gdn": ("hybrid",),
    "hybrid": ("hybrid",),
    "mamba": ("hybrid",),
    "gqa": ("gqa",),
    "mha": ("mha",),
}


def classes_of(deployment: Mapping[str, Any], model: Model | None, said: str = "") -> tuple[str, ...]:
    """`said` are the row's own words for the model's attention.

    >>> classes_of({"engine": "vllm", "tensor_parallel_size": 4, "quantization": "fp8"}, None, "gqa_moe")
    ('vllm', 'moe', 'gqa', 'quantised', 'tp')
    """
    kinds = dict.fromkeys(_of_layers(model) if model and model.layers else _of_words(said))
    named = [deployment["engine"], *kinds, *_of_deployment(deployment, model)]
    return tuple(dict.fromkeys(named))


def _of_layers(model: Model) -> Iterator[str]:
    mixers = {kind.mixer for kind in model.layers}
    attention = [kind for kind in model.layers if kind.num_kv_heads]
    if mixers & {"mla", "dsa"}:
        yield "mla"
    elif any(kind.num_kv_heads < kind.num_heads for kind in attention):
        yield "gqa"
    elif attention:
        yield "mha"
    if mixers & RECURRENT_KINDS:
        yield "hybrid"
    if mixers & {"sliding", "chunked"}:
        yield "sliding"
    yield "moe" if any(kind.experts for kind in model.layers) else "dense"
    if any(part.component == "vision" for part in model.parts):
        yield "multimodal"


def _of_words(said: str) -> Iterator[str]:
    words = said.lower()
    found = [cls for word, classes in SAID.items() if word in words for cls in classes]
    yield from found
    if found and "moe" not in found:
        yield "dense"
    if not found:
        yield "unknown model"


def _of_deployment(deployment: Mapping[str, Any], model: Model | None) -> Iterator[str]:
    quantised = deployment.get("quantization") not in (None, *FULL_WIDTH)
    if quantised or (model is not None and model.quantization not in FULL_WIDTH):
        yield "quantised"
    for field, name in (
        ("tensor_parallel_size", "tp"),
        ("pipeline_parallel_size", "pp"),
        ("data_parallel_size", "dp"),
        ("expert_parallel_size", "ep"),
    ):
        if int(deployment.get(field) or 1) > 1:
            yield name
    if deployment.get("speculative_config"):
        yield "speculative"
    if deployment.get("enable_lora"):
        yield "lora"
