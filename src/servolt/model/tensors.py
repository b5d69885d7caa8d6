"""Tensors by name, put into groups of one component and one data type."""

from collections import Counter
from collections.abc import Iterable
from typing import Literal, NamedTuple

from servolt.model.model import TensorGroup

__all__ = ["Tensor", "groups", "main_dtype"]

Component = Literal["embedding", "attention", "mlp", "norm", "output", "other"]


class Tensor(NamedTuple):
    name: str
    dtype: str
    shape: tuple[int, ...]
    elements: int
    bytes: int


def groups(tensors: Iterable[Tensor]) -> tuple[TensorGroup, ...]:
    """One group for each component and data type, in the order in which they first come."""
    members: dict[tuple[Component, str], list[Tensor]] = {}
    for tensor in tensors:
        members.setdefault((component(tensor.name), tensor.dtype), []).append(tensor)
    return tuple(
        TensorGroup(
            component=kind,
            dtype=dtype,
            tensors=len(group),
            elements=sum(tensor.elements for tensor in group),
            bytes=sum(tensor.bytes for tensor in group),
        )
        for (kind, dtype), group in members.items()
    )


def main_dtype(tensors: Iterable[Tensor]) -> str:
    """The data type that holds most elements of the weight matrices.

    >>> main_dtype([Tensor("blk.0.ffn_up.weight", "q8_0", (32, 64), 2048, 2176)])
    'q8_0'
    """
    elements: Counter[str] = Counter()
    for tensor in tensors:
        elements[tensor.dtype] += tensor.elements if len(tensor.shape) > 1 else 0
    return max(elements, key=lambda dtype: elements[dtype], default="unknown")


def component(name: str) -> Component:
    """llama.cpp's names: token_embd.weight, blk.3.attn_q.weight, blk.3.ffn_norm.weight, output.weight ..."""
    part = name.removeprefix("blk.").partition(".")[2] if name.startswith("blk.") else name
    stem = part.partition(".")[0]
    if stem.endswith("norm"):
        return "norm"
    if stem == "output":
        return "output"
    if stem.endswith("embd") or stem.startswith(("token_", "position_")):
        return "embedding"
    if stem.startswith("attn_"):
        return "attention"
    return "mlp" if stem.startswith("ffn_") else "other"
