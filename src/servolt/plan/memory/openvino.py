"""What OpenVINO GenAI's continuous batching takes: the converted weights, and keys and values as its options say.

With `cache_size` (GiB) or `num_kv_blocks` the cache is fixed; with neither it grows as requests need it, so it is
planned at its fullest. Source: openvino/genai/scheduler_config.hpp of 2026.4. The rest of its plug-ins is an estimate.
"""

from servolt.deployment import Deployment
from servolt.errors import InvalidInputError
from servolt.gpu import Accelerator
from servolt.model import RECURRENT_KINDS, LayerKind, Model
from servolt.plan.memory.budget import Budget, Term, TermName
from servolt.plan.memory.profiles import Profile
from servolt.plan.memory.ranks import binding_of, rank_memory
from servolt.plan.memory.settings import argument, longest_context, visible_memory
from servolt.plan.memory.shape import Shape, shape_of
from servolt.plan.memory.sharding import GIB, ranks_of, weights_of_rank
from servolt.plan.memory.terms import Known, measured, weights_term
from servolt.plan.memory.widths import widest_layer

__all__ = ["openvino_budget"]

ELEMENT_BYTES = {"u8": 1.0, "i8": 1.0, "u4": 0.5, "i4": 0.5, "f16": 2.0, "bf16": 2.0, "f32": 4.0}
NAMES = {"int8": "u8", "fp16": "f16", "float16": "f16", "bfloat16": "bf16", "float32": "f32", "int4": "u4"}
SCALED = ("u8", "i8", "u4", "i4")

# Processors compute in f32 or bf16, GPUs in f16; a state of recurrent layers is f32.
ACTIVATION_BYTES, STATE_BYTES, LOGIT_BYTES = 4, 4, 4

# A plug-in may keep a second copy of weights in its own order beside the file's pages.
SECOND_COPY = 1.0


def openvino_budget(
    deployment: Deployment, model: Model, accelerator: Accelerator, profile: Profile, known: Known
) -> Budget:
    """Raises InvalidInputError for a KV data type that it doesn't keep."""
    shape, visible = shape_of(model), visible_memory(deployment, accelerator)
    context = longest_context(deployment, model)
    context = context if context > 0 else model.max_position_embeddings
    requests = deployment.max_num_seqs or int(profile.number("max_num_seqs"))
    tokens = deployment.max_num_batched_tokens or int(profile.number("max_num_batched_tokens"))
    block = int(profile.number("block_size_cpu" if accelerator.kind == "cpu" else "block_size_gpu"))
    of_token = _token_bytes(deployment, shape, profile)
    fixed = _fixed_cache(deployment, of_token, block)
    held = -(-context // block) * block
    # Without a stated number of requests a growing cache is planned for one, which is what it takes to answer.
    grown = of_token * held * (deployment.max_num_seqs or 1)
    cache = grown if fixed is None else fixed
    terms = _terms(deployment, model, accelerator, profile, shape, tokens, requests if fixed else 1)
    cache_term = Term.soft(cache, shape.tolerance, _cache_formula(fixed, held, deployment.max_num_seqs or 1))
    whole: dict[TermName, Term] = {**terms, "kv_cache": cache_term} | {
        name: measured(size) for name, size in known.items()
    }
    name = "host" if accelerator.kind == "cpu" else "gpu0"
    available = (
        accelerator.available_bytes if accelerator.kind == "cpu" and accelerator.available_bytes else visible.bytes
    )
    rank = rank_memory(name, whole, available)
    room = rank.available_bytes or 0
    left = max(0.0, room - (rank.total_bytes - cache))
    pool = cache if fixed is not None else max(cache, left)
    count = int(pool // (of_token * block)) * block if of_token else 2**31
    return Budget(
        per_rank=(rank,),
        pooled=False,
        kv_bytes_per_token=round(of_token),
        kv_cache_tokens=count,
        kv_cache_tokens_low=int(count / (1 + shape.tolerance)),
        kv_cache_tokens_high=int(count * (1 + shape.tolerance)),
        num_gpu_blocks=count // block,
        max_concurrency=count / held,
        max_concurrency_low=count / held / (1 + shape.tolerance),
        max_concurrency_high=count / held * (1 + shape.tolerance),
        max_model_len=context,
        max_num_seqs=requests,
        max_num_batched_tokens=tokens,
        binding=binding_of([rank]),
        notes=(*profile.notes, *visible.notes, *shape.notes, *_notes(deployment, fixed)),
    )


def _fixed_cache(deployment: Deployment, of_token: float, block: int) -> float | None:
    blocks, size = argument(deployment, "num_kv_blocks"), argument(deployment, "cache_size")
    if isinstance(blocks, int) and not isinstance(blocks, bool) and blocks > 0:
        return blocks * block * of_token
    if isinstance(size, int | float) and not isinstance(size, bool) and size > 0:
        return size * GIB
    return float(deployment.kv_cache_memory_bytes) if deployment.kv_cache_memory_bytes else None


def _cache_formula(fixed: float | None, held: int, requests: int) -> str:
    return f"grows up to {requests} x {held:,} tokens" if fixed is None else "as the options fix it"


def _token_bytes(deployment: Deployment, shape: Shape, profile: Profile) -> float:
    asked = (deployment.kv_cache_dtype or str(profile.value("kv_cache_dtype"))).lower()
    dtype = NAMES.get(asked, asked)
    dtype = str(profile.value("kv_cache_dtype")) if dtype == "auto" else dtype
    if dtype not in ELEMENT_BYTES:
        raise InvalidInputError(
            f"OpenVINO keeps no keys and values as {asked!r}.", f"Take one of {', '.join(ELEMENT_BYTES)}."
        )
    scales = 2 * profile.number("scale_bytes") if dtype in SCALED else 0.0
    each = [_layer_bytes(kind, ELEMENT_BYTES[dtype], scales) for kind in shape.kinds]
    return sum(each[index] for index in shape.order)


def _layer_bytes(kind: LayerKind, width: float, scales: float) -> float:
    """Windows aren't cut, and a latent is expanded to all its heads."""
    if kind.shares_kv or kind.mixer in (*RECURRENT_KINDS, "none"):
        return 0.0
    return kind.num_kv_heads * ((kind.head_dim_k + kind.head_dim_v) * width + scales)


def _terms(
    deployment: Deployment,
    model: Model,
    accelerator: Accelerator,
    profile: Profile,
    shape: Shape,
    tokens: int,
    requests: int,
) -> dict[TermName, Term]:
    weights = weights_term(model, weights_of_rank(model, deployment)[0])
    if accelerator.kind == "cpu":
        most = round(weights.high * (1 + SECOND_COPY))
        weights = weights.model_copy(update={"high": most, "formula": f"{weights.formula}; at most twice"})
    width = max((widest_layer(kind, model, ranks_of(deployment)) for kind in shape.kinds), default=0.0)
    active = ACTIVATION_BYTES * width * tokens + LOGIT_BYTES * model.vocab_size * min(tokens, requests)
    low, middle, high = (GIB * size for size in profile.value("process_gib"))
    states = sum(
        STATE_BYTES * (max(0, kind.conv_kernel - 1) * kind.conv_elements + kind.state_elements)
        for kind in (shape.kinds[index] for index in shape.order)
    )
    return {
        "weights": weights,
        "activation": Term.soft(active, profile.number("activation_tolerance"), f"the widest layer, {tokens:,} tokens"),
        "overhead": Term(
            bytes=round(middle), low=round(low), high=round(high), basis="formula", formula="plug-in and runtime"
        ),
        "state": Term.exact((deployment.max_num_seqs or 1) * states, "f32, one for each sequence"),
    }


def _notes(deployment: Deployment, fixed: float | None) -> list[str]:
    found = ["OpenVINO's plug-ins were not measured: weights beside the file and activations are wide."]
    if fixed is None and deployment.max_num_seqs is None:
        found.append("The cache grows with the load: it is planned for one request of the longest context.")
    return found
