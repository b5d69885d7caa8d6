"""vLLM's paged pool: which layers share a block, how many blocks there are, and how many a request takes.

Layers that need the same pages are one class. Classes are cut into groups of equal size, and one pool of blocks serves
all groups: a block is one page of each layer of a group. Source: vllm 0.33.0 vllm/v1/core/kv_cache_planning.py and
vllm/v1/kv_cache_interface.py; 0.19.0 vllm/v1/core/kv_cache_utils.py.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from servolt.model.layers import LayerKind
from servolt.plan.memory.kv import keeps_tokens, state_bytes, token_bytes
from servolt.plan.memory.profiles import Profile

__all__ = ["Group", "Pages", "Request", "blocks_of_request", "logged_tokens", "longest_request", "pages_of"]

ALIGNMENT_TOKENS = 16  # blocks of attention beside recurrent layers are a multiple of this; 64 with a latent
LATENT_ALIGNMENT_TOKENS = 64


class Request(NamedTuple):
    """What the arithmetic needs to know of a deployment. `kept_states`: slots that one request holds."""

    tp: int
    dcp: int
    block_size: int
    in_flight_tokens: int
    kept_states: int
    dtype: str | None
    kv_cache_dtype: str | None
    state_dtype: str | None = None
    drafted: int = 0
    hybrid_groups: bool = True


class Group(NamedTuple):
    """Layers with one block table. `layers` are their places in the model, in order."""

    kind: tuple[str, int]  # how its need grows: full; sliding and chunked with their window; state
    block_size: int
    layers: tuple[int, ...]


class Pages(NamedTuple):
    """`block_bytes` by pipeline stage: of the stage's own layers."""

    groups: tuple[Group, ...]
    block_bytes: tuple[float, ...]
    block_size: int
    notes: tuple[str, ...] = ()


class _Layer(NamedTuple):
    kind: tuple[str, int]
    token_bytes: float
    fixed_bytes: float  # of a state, which is one page whatever the block
    place: int


def pages_of(
    kinds: Sequence[LayerKind],
    order: Sequence[int],
    spans: Sequence[tuple[int, int]],
    request: Request,
    profile: Profile,
    draft_layers: int = 0,
) -> Pages:
    """`draft_layers` are further layers of the last kind of attention, on the last stage: heads that guess tokens."""
    layers = _layers(kinds, order, request, request.hybrid_groups, draft_layers)
    spans = [*spans[:-1], (spans[-1][0], spans[-1][1] + draft_layers)]
    states = max((layer.fixed_bytes for layer in layers), default=0.0)
    block = request.block_size
    if states:
        block = max(block, _block_for_states(kinds, request, layers, states))
    pages = {layer.place: _page(layer, block, states) for layer in layers}
    classes: dict[tuple[tuple[str, int], float], list[_Layer]] = {}
    for layer in layers:
        classes.setdefault((layer.kind, pages[layer.place]), []).append(layer)
    if len({kind for kind, _ in classes}) <= 1:
        groups = [Group(next(iter(classes))[0], block, tuple(layer.place for layer in layers))] if layers else []
        stages = tuple(
            sum(pages[layer.place] for layer in layers if start <= layer.place < end) for start, end in spans
        )
        return Pages(tuple(groups), stages, block)
    return _grouped(classes, spans, block, profile)


def blocks_of_request(group: Group, tokens: int, request: Request) -> int:
    """Blocks that one request of so many tokens holds in this group at most."""
    name, window = group.kind
    if name == "state":
        return request.kept_states
    if name == "sliding":
        return -(-min(window - 1 + request.in_flight_tokens, tokens) // group.block_size) + 1
    if name == "chunked":
        return -(-min(window + request.in_flight_tokens, tokens) // group.block_size)
    return math.ceil(math.ceil(tokens / request.dcp) / group.block_size)


def logged_tokens(pages: Pages, blocks: int, max_model_len: int, request: Request, meaning: str) -> tuple[int, float]:
    """Tokens as the engine's log counts them, and how many requests of full length fit."""
    needed = sum(blocks_of_request(group, max_model_len, request) for group in pages.groups)
    concurrency = blocks / needed if needed else 0.0
    if meaning == "concurrency" or not pages.groups:
        return int(concurrency * max_model_len), concurrency
    smallest = min(group.block_size for group in pages.groups)
    return blocks // len(pages.groups) * smallest * request.dcp, concurrency


def longest_request(pages: Pages, blocks: int, longest: int, request: Request) -> int:
    """The most tokens of which one request fits, at most `longest`; 0 where none does."""

    def fits(tokens: int) -> bool:
        return sum(blocks_of_request(group, tokens, request) for group in pages.groups) <= blocks

    if not fits(1):
        return 0
    low, high = 1, longest
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _layers(
    kinds: Sequence[LayerKind], order: Sequence[int], request: Request, hybrid: bool, draft_layers: int
) -> list[_Layer]:
    per_kind = [_layer(kind, request, hybrid) for kind in kinds]
    found = [per_kind[kind]._replace(place=place) for place, kind in enumerate(order) if per_kind[kind].kind[0]]
    attention = [layer for layer in found if not layer.fixed_bytes]
    if attention and draft_layers:
        draft = next((layer for layer in reversed(attention) if layer.kind == ("full", 0)), attention[-1])
        found += [draft._replace(place=len(order) + number) for number in range(draft_layers)]
    return found


def _layer(kind: LayerKind, request: Request, hybrid: bool) -> _Layer:
    if keeps_tokens(kind):
        size = token_bytes(kind, tp=request.tp, kv_cache_dtype=request.kv_cache_dtype, dtype=request.dtype)
        name = kind.mixer if hybrid and kind.mixer in ("sliding", "chunked") and kind.window else "full"
        return _Layer((name, kind.window or 0 if name != "full" else 0), size, 0.0, 0)
    state = state_bytes(
        kind, tp=request.tp, dtype=request.dtype, state_dtype=request.state_dtype, drafted=request.drafted
    )
    return _Layer(("state", 0) if state else ("", 0), 0.0, state, 0)


def _block_for_states(kinds: Sequence[LayerKind], request: Request, layers: Sequence[_Layer], state: float) -> int:
    """The fewest tokens whose page holds a whole state."""
    per_token = max((layer.token_bytes for layer in layers), default=0.0)
    if not per_token:
        return request.block_size
    has_latent = any(kind.mixer in ("mla", "dsa") for kind in kinds)
    step = LATENT_ALIGNMENT_TOKENS if has_latent else ALIGNMENT_TOKENS
    return step * -(-int(state) // int(step * per_token))


def _page(layer: _Layer, block: int, states: float) -> float:
    if not layer.fixed_bytes:
        return layer.token_bytes * block
    return states


def _grouped(
    classes: dict[tuple[tuple[str, int], float], list[_Layer]],
    spans: Sequence[tuple[int, int]],
    block: int,
    profile: Profile,
) -> Pages:
    """Pages are made alike first: smaller ones hold more tokens, or are padded where that does not come out even."""
    page = max(size for _, size in classes)
    merged: dict[tuple[tuple[str, int], int], list[int]] = {}
    padded = False
    for (kind, size), layers in classes.items():
        times = int(page // size) if kind[0] != "state" and size else 1
        padded = padded or (kind[0] != "state" and page % size != 0)
        key = kind, block * times if kind[0] != "state" and page % size == 0 else block
        merged.setdefault(key, []).extend(layer.place for layer in layers)
    counts = [len(places) for places in merged.values()]
    size = max(counts) if max(counts) < min(counts) * profile.number("group_ratio") else min(counts)
    groups = []
    for (kind, tokens), places in merged.items():
        number = -(-len(places) // size)
        places = sorted(places)
        groups += [Group(kind, tokens, tuple(places[first::number])) for first in range(number)]
    stages = tuple(
        page * max(sum(start <= place < end for place in group.layers) for group in groups) for start, end in spans
    )
    notes = ("Layers differ in what they keep of a token: smaller pages are padded.",) if padded else ()
    return Pages(tuple(groups), stages, block, notes)
