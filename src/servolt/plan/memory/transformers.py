"""What `transformers serve --continuous-batching` takes of a device, and what generate() takes without a pool.

With continuous batching the sizes of the pool (N tokens) and of a step (M tokens) solve one equation, so that the
largest of two moments fits a share of what the weights leave:

    available = c_n N + c_m M + c_mn M N + c_mm M^2

where masks, which only attention without flash kernels needs, are the last two terms.
Source: src/transformers/generation/continuous_batching/cache.py, PagedAttentionMemoryHandler (4.57, 5).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from servolt.deployment import Deployment
from servolt.gpu import Accelerator
from servolt.model import LayerKind, Model
from servolt.plan.memory.budget import Budget, Term, TermName
from servolt.plan.memory.kv import dtype_bytes, keeps_tokens, state_bytes, token_bytes
from servolt.plan.memory.pools import Asked, Pool, Stage, budget_of_pools
from servolt.plan.memory.profiles import Profile
from servolt.plan.memory.ranks import binding_of, rank_memory
from servolt.plan.memory.settings import argument, longest_context, visible_memory
from servolt.plan.memory.shape import Shape, shape_of
from servolt.plan.memory.sharding import GIB, StageWeights, ranks_of, weights_of_rank
from servolt.plan.memory.terms import Known, around, measured, rotary_bytes, weights_term
from servolt.plan.memory.widths import widest_layer

__all__ = ["transformers_budget"]

INT_BYTES, LONG_BYTES = 4, 8
LOGIT_BYTES = 4  # always float32
ROWS_OF_INPUT = 7  # of a step, packed into one tensor
MASK_BYTES = 2

# Of activations and of what a growing cache copies, beside what the formulas count.
TOLERANCE = 0.5


class _Equation(NamedTuple):
    """Bytes for each token of the pool, of a step, and of both together."""

    of_pool: float
    of_step: float
    of_both: float

    def pool(self, available: float, step: float) -> float:
        return (available - self.of_step * step - self.of_both * step**2) / (self.of_pool + self.of_both * step)

    def both(self, available: float, share: float) -> float:
        """Tokens of the pool where a step is a share of it."""
        square, linear = self.of_both * (share + share**2), self.of_pool + self.of_step * share
        if not square:
            return available / linear
        return (-linear + math.sqrt(linear**2 + 4 * square * available)) / (2 * square)


class _Groups(NamedTuple):
    """Layers of one kind of attention, in groups of equal size."""

    size: int
    number: int
    windows: tuple[int | None, ...]


def transformers_budget(
    deployment: Deployment, model: Model, accelerator: Accelerator, profile: Profile, known: Known
) -> Budget:
    """`continuous_batching: false` in engine_args plans generate()."""
    shape, weights = shape_of(model), weights_of_rank(model, deployment)[0]
    terms = _terms(deployment, model, profile, weights) | {
        name: measured(size) for name, size in known.items() if name != "kv_cache"
    }
    if argument(deployment, "continuous_batching") is False:
        return _generated(deployment, model, accelerator, shape, terms)
    return _batched(deployment, model, accelerator, profile, shape, terms)


def _terms(deployment: Deployment, model: Model, profile: Profile, weights: StageWeights) -> dict[TermName, Term]:
    low, middle, high = (GIB * size for size in profile.value("context_gib"))
    return {
        "weights": weights_term(model, weights, rotary_bytes(model, deployment.dtype or model.dtype)),
        "overhead": Term(
            bytes=round(middle), low=round(low), high=round(high), basis="formula", formula="context and libraries"
        ),
    }


def _batched(
    deployment: Deployment,
    model: Model,
    accelerator: Accelerator,
    profile: Profile,
    shape: Shape,
    terms: dict[TermName, Term],
) -> Budget:
    visible, context = visible_memory(deployment, accelerator), _context(deployment, model)
    groups, block = _groups(shape), deployment.block_size or int(profile.number("block_size"))
    equations = _equations(deployment, model, shape, groups)
    share = _share(deployment, profile)
    slack = visible.tolerance * visible.bytes
    sizes = terms["weights"]
    available = [
        max(0.0, share * (visible.bytes + more - size))
        for size, more in ((sizes.bytes, 0.0), (sizes.high, -slack), (sizes.low, slack))
    ]
    step = deployment.max_num_batched_tokens or _step(equations, available[0], profile)
    most = profile.number("most_blocks") * block
    pools = [min(most, *(max(0.0, one.pool(room, step)) for one in equations)) // block * block for room in available]
    of_token = 2.0 * groups.size * _page(shape) * dtype_bytes(deployment.dtype or model.dtype)
    activation = max(equations, key=lambda one: one.of_step * step + (one.of_pool - of_token) * pools[0])
    beside = (
        activation.of_step * step
        + (activation.of_pool - of_token) * pools[0]
        + activation.of_both * step * (step + pools[0])
    )
    # The engine leaves room for the worst step there can be, so it seldom takes all of it.
    terms["activation"] = around(beside, beside / 2, beside / 10, f"the fullest moment of a step of {step:,.0f} tokens")
    # A token lies once in each group of layers; a request's windows take no more than their length.
    of_request = of_token * sum(min(context, window or context) for window in groups.windows)
    stage = Stage(terms, Pool(*(size * of_token for size in pools)), of_token * groups.number, of_request)
    asked = Asked(
        context=context,
        requests=deployment.max_num_seqs or int(profile.number("max_requests")),
        tokens=int(step),
        block=block,
        available_bytes=visible.bytes,
        ranks=ranks_of(deployment).devices,
        tolerance=shape.tolerance,
    )
    recurrent = [kind for kind in shape.kinds if kind.state_elements or kind.conv_elements]
    more = ["Continuous batching doesn't run recurrent layers: generate() would have to."] if recurrent else []
    return budget_of_pools([stage], asked, (*profile.notes, *visible.notes, *shape.notes, *more))


def _share(deployment: Deployment, profile: Profile) -> float:
    for name in ("cb_max_memory_percent", "max_memory_percent"):
        asked = argument(deployment, name)
        if isinstance(asked, int | float) and not isinstance(asked, bool):
            return float(asked)
    return deployment.gpu_memory_utilization or profile.number("memory_fraction")


def _step(equations: Sequence[_Equation], available: float, profile: Profile) -> float:
    """Tokens of a step, by default: the most, unless that is more than a share of the pool."""
    share = profile.number("cache_share_of_a_batch")
    bound = min(int(share * one.both(available, share)) for one in equations)
    return max(profile.number("least_batch_tokens"), min(profile.number("most_batch_tokens"), float(bound)))


def _equations(deployment: Deployment, model: Model, shape: Shape, groups: _Groups) -> tuple[_Equation, _Equation]:
    """When hidden states become logits, and when attention reads the pool."""
    width, page = dtype_bytes(deployment.dtype or model.dtype), _page(shape)
    queries = max((kind.num_heads * kind.head_dim_k for kind in shape.kinds), default=0)
    has_flash = "flash" in str(argument(deployment, "attn_implementation") or "")
    inputs = 2 if has_flash else 1  # both of asynchronous batching
    masks = 0 if has_flash else 1 + any(window is not None for window in groups.windows)
    of_pool = 2.0 * groups.size * page * width + inputs * groups.number * LONG_BYTES
    of_step = inputs * ((ROWS_OF_INPUT + 1) * INT_BYTES + 2 * groups.number * LONG_BYTES)
    of_both = float(inputs * masks * MASK_BYTES)
    head = model.hidden_size * width + model.vocab_size * LOGIT_BYTES
    attention = width * (model.hidden_size + queries + 2 * page)
    return (
        _Equation(of_pool, of_step + head, of_both),
        _Equation(of_pool + 2 * page * width, of_step + attention, of_both),
    )


def _page(shape: Shape) -> int:
    """Keys of one token in one layer, in elements. A latent is expanded to all its heads."""
    return max((kind.num_kv_heads * kind.head_dim_k for kind in shape.kinds if keeps_tokens(kind)), default=0)


def _groups(shape: Shape) -> _Groups:
    """Groups hold as many layers as divide all kinds of attention evenly."""
    counts: dict[int | None, int] = {}
    for index in shape.order:
        kind = shape.kinds[index]
        if keeps_tokens(kind):
            window = kind.window if kind.mixer == "sliding" else None
            counts[window] = counts.get(window, 0) + 1
    if not counts:
        return _Groups(0, 1, (None,))
    size = math.gcd(*counts.values())
    windows = tuple(window for window, count in counts.items() for _ in range(count // size))
    return _Groups(size, len(windows), windows)


def _generated(
    deployment: Deployment, model: Model, accelerator: Accelerator, shape: Shape, terms: dict[TermName, Term]
) -> Budget:
    """Keys and values of the whole batch at its full length; a layer's are copied when they grow."""
    visible, context = visible_memory(deployment, accelerator), _context(deployment, model)
    requests, ranks = deployment.max_num_seqs or 1, ranks_of(deployment)
    dtype = deployment.dtype or model.dtype
    each = [token_bytes(_expanded(kind), tp=1, kv_cache_dtype="auto", dtype=dtype) for kind in shape.kinds]
    kept = [min(context, kind.window or context) if kind.mixer == "sliding" else context for kind in shape.kinds]
    of_request = sum(each[index] * kept[index] for index in shape.order)
    states = sum(state_bytes(shape.kinds[index], tp=1, dtype=dtype) for index in shape.order)
    copy = max((size * length for size, length in zip(each, kept, strict=True)), default=0.0)
    width = max((widest_layer(kind, model, ranks) for kind in shape.kinds), default=0.0)
    beside = requests * (copy + LOGIT_BYTES * model.vocab_size + width * context * dtype_bytes(dtype))
    whole: dict[TermName, Term] = {
        **terms,
        "kv_cache": Term.soft(requests * of_request, shape.tolerance, f"{requests} x {context:,} tokens"),
        "state": Term.exact(requests * states, f"{requests} sequences") if states else Term.exact(0, "none"),
        "activation": Term.soft(
            beside, TOLERANCE, "the widest layer over the prompt, logits, a copy of one layer's cache"
        ),
    }
    rank = rank_memory("gpu0" if accelerator.kind == "gpu" else "host", whole, visible.bytes, ranks=ranks.devices)
    return Budget(
        per_rank=(rank,),
        pooled=False,
        kv_bytes_per_token=round(sum(each[index] for index in shape.order)),
        kv_cache_tokens=requests * context,
        kv_cache_tokens_low=requests * context,
        kv_cache_tokens_high=requests * context,
        max_concurrency=requests,
        max_concurrency_low=requests,
        max_concurrency_high=requests,
        max_model_len=context,
        max_num_seqs=requests,
        max_num_batched_tokens=requests * context,
        binding=binding_of([rank]),
        notes=(*visible.notes, *shape.notes),
    )


def _expanded(kind: LayerKind) -> LayerKind:
    """Latent attention keeps keys and values of all heads here."""
    return kind.model_copy(update={"mixer": "full"}) if kind.kv_lora_rank else kind


def _context(deployment: Deployment, model: Model) -> int:
    asked = longest_context(deployment, model)
    return asked if asked > 0 else model.max_position_embeddings
