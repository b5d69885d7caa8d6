"""What a deployment takes in memory under llama.cpp on a CPU host, part by part."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from pydantic import Field

from servolt.deployment import Deployment
from servolt.document import Value
from servolt.engines import llamacpp, replay
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.plan.kv_cache import KvCache, kv_cache_of
from servolt.plan.memory.budget import Budget, RankMemory, Term, TermName
from servolt.workload import Workload

__all__ = [
    "CELL_STEP",
    "Memory",
    "MemoryPart",
    "activation_bytes",
    "batch_sizes",
    "context_cells",
    "host_budgets",
    "memory_of",
    "resident_bytes",
    "slots_of",
]

# llama.cpp pads the cells of one sequence to this number (llama_context: n_ctx_seq, build of xllamacpp 2026.10.11549).
CELL_STEP = 256

# llama-server's defaults for -b and -ub: tokens of one step, and of one pass through the layers.
DEFAULT_BATCH_TOKENS = 2048
DEFAULT_UBATCH_TOKENS = 512

# Inputs of the graph for each token of a pass: token, position, KV indices. Read from the engine's log: 0.0176 MiB at
# 512 tokens, for every shape.
INPUT_BYTES_PER_TOKEN = 36

# The layers' scratch: 5 rows of hidden_size and 3 of intermediate_size, f32. Reproduces the compute buffer that
# xllamacpp 2026.10.11549 logs for Llama shapes (hidden 192-768, ffn 512-2,048, 1-16 sequences, 256-8,192 cells) to the
# last digit, and is an upper bound where intermediate_size is under twice hidden_size.
HIDDEN_ROWS = 5
INTERMEDIATE_ROWS = 3

# Types of which the wheel's build for x86-64 with AVX2 keeps a second copy in another order ("CPU_REPACK model buffer"
# in its log), while the pages of the file stay resident until something needs them. All matrices but the embedding.
REPACKED = ("q4_0", "q4_k", "iq4_nl", "mxfp4")

# How far compute buffers and the process's own memory were seen off: other architectures keep other scratch, and
# allocators keep what they once had.
ACTIVATION_TOLERANCE = 0.5
OVERHEAD_TOLERANCE = 0.15


class MemoryPart(Value):
    """Bytes of one part; low and high are equal where the figure is exact."""

    name: Literal["weights", "repacked_weights", "kv_cache", "activation", "overhead"]
    bytes: int
    low: int
    high: int
    basis: Literal["exact", "formula"]
    formula: str


class Memory(Value):
    """Where the memory goes. `total_bytes` is what the engine takes at its fullest."""

    parts: tuple[MemoryPart, ...]
    weights_bytes: int
    repacked_weights_bytes: int = Field(0, description="a second copy of weights in the order the processor likes")
    kv_cache_bytes: int
    activation_bytes: int = Field(description="compute buffers and logits")
    overhead_bytes: int = Field(description="the engine's process itself")
    total_bytes: int
    low_bytes: int
    high_bytes: int
    available_bytes: int | None = Field(None, description="free for a new process; None where the machine does not say")
    kv_bytes_per_token: int
    kv_cache_tokens: int = Field(description="over all sequences")
    max_model_len: int = Field(description="of one sequence, rounded up as the engine does")
    max_num_seqs: int


class _Passes(NamedTuple):
    batch: int
    ubatch: int


def memory_of(deployment: Deployment, model: Model, *, overhead_bytes: int, available_bytes: int | None) -> Memory:
    """Raises InvalidInputError for a KV data type whose size is not known."""
    slots, cells = slots_of(deployment), context_cells(deployment, model)
    cache = kv_cache_of(model, deployment.kv_cache_dtype, slots=slots, cells=cells)
    tokens = cells * slots
    passes = batch_sizes(deployment, tokens)
    weights = _exact("weights", model.weights_bytes, "sum over the tensors of the file's header")
    kv = _kv_cache(cache, slots, cells)
    scratch = activation_bytes(model, slots=slots, cells=cells, tokens=passes.ubatch)
    activation = _soft("activation", scratch, ACTIVATION_TOLERANCE, f"scratch of one pass of {passes.ubatch} tokens")
    overhead = _soft("overhead", overhead_bytes, OVERHEAD_TOLERANCE, "the engine's process, measured for this build")
    repacked = _repacked(model)
    parts = (weights, *([repacked] if repacked.bytes else []), kv, activation, overhead)
    return Memory(
        parts=parts,
        weights_bytes=weights.bytes,
        repacked_weights_bytes=repacked.bytes,
        kv_cache_bytes=kv.bytes,
        activation_bytes=activation.bytes,
        overhead_bytes=overhead.bytes,
        total_bytes=sum(part.bytes for part in parts),
        low_bytes=sum(part.low for part in parts),
        high_bytes=sum(part.high for part in parts),
        available_bytes=available_bytes,
        kv_bytes_per_token=cache.bytes_per_token,
        kv_cache_tokens=tokens,
        max_model_len=cells,
        max_num_seqs=slots,
    )


def context_cells(deployment: Deployment, model: Model) -> int:
    """Cells of one sequence: its context, rounded up. The fake engine rounds nothing."""
    if deployment.engine == "replay":
        return deployment.max_model_len or replay.DEFAULT_MAX_MODEL_LEN
    return -(-llamacpp.max_model_len(deployment, model) // CELL_STEP) * CELL_STEP


def slots_of(deployment: Deployment) -> int:
    """Sequences that run at the same time, by the engine's own default where none is set."""
    if deployment.engine == "replay":
        return deployment.max_num_seqs or replay.DEFAULT_MAX_NUM_SEQS
    return llamacpp.max_num_seqs(deployment)


def activation_bytes(model: Model, *, slots: int, cells: int, tokens: int) -> int:
    """Compute buffer of a pass of `tokens` tokens, with flash attention: the layers' scratch and the attention mask.

    The last pass instead holds one row of logits for each sequence, where that is more. Beside it stand the rows that
    are handed out.
    """
    rows = HIDDEN_ROWS * model.hidden_size + INTERMEDIATE_ROWS * model.intermediate_size
    mask = 2 * cells
    logits = 4 * slots * model.vocab_size
    return max(tokens * (4 * rows + INPUT_BYTES_PER_TOKEN + mask), logits) + logits


def batch_sizes(deployment: Deployment, context_tokens: int) -> _Passes:
    """Tokens of one step and of one pass, never more than the whole context holds."""
    asked = deployment.max_num_batched_tokens
    batch = min(asked or DEFAULT_BATCH_TOKENS, context_tokens)
    return _Passes(batch, min(asked or DEFAULT_UBATCH_TOKENS, batch))


def _budget(memory: Memory, batch_tokens: int) -> Budget:
    """The same in the form that all engines share: one rank, and what the sequences take in place of a pool."""
    parts = {part.name: part for part in memory.parts}
    names: Mapping[TermName, tuple[str, ...]] = {
        "weights": ("weights", "repacked_weights"),
        "kv_cache": ("kv_cache",),
        "activation": ("activation",),
        "overhead": ("overhead",),
    }
    terms = {name: _term([parts[one] for one in some if one in parts]) for name, some in names.items()}
    rank = RankMemory.of(
        "host",
        terms,
        available_bytes=memory.available_bytes,
        low_bytes=memory.low_bytes,
        high_bytes=memory.high_bytes,
    )
    tokens, seqs = memory.kv_cache_tokens, float(memory.max_num_seqs)
    return Budget(
        per_rank=(rank,),
        pooled=False,
        kv_bytes_per_token=memory.kv_bytes_per_token,
        kv_cache_tokens=tokens,
        kv_cache_tokens_low=tokens,
        kv_cache_tokens_high=tokens,
        max_concurrency=seqs,
        max_concurrency_low=seqs,
        max_concurrency_high=seqs,
        max_model_len=memory.max_model_len,
        max_num_seqs=memory.max_num_seqs,
        max_num_batched_tokens=batch_tokens,
        binding="host",
    )


def host_budgets(overhead: Callable[[Deployment], int]) -> Callable[[Deployment, Model, Accelerator], Budget]:
    """The budget of any deployment here, as remedies recompute it; `overhead` is of the engine's process."""

    def budget_of(deployment: Deployment, model: Model, accelerator: Accelerator) -> Budget:
        memory = memory_of(
            deployment,
            model,
            overhead_bytes=overhead(deployment),
            available_bytes=accelerator.available_bytes,
        )
        return _budget(memory, batch_sizes(deployment, memory.kv_cache_tokens).batch)

    return budget_of


def _term(parts: Sequence[MemoryPart]) -> Term:
    return Term(
        bytes=sum(part.bytes for part in parts),
        low=sum(part.low for part in parts),
        high=sum(part.high for part in parts),
        basis="exact" if all(part.basis == "exact" for part in parts) else "formula",
        formula="; ".join(part.formula for part in parts),
    )


def resident_bytes(memory: Memory, deployment: Deployment, model: Model, workload: Workload, concurrency: int) -> int:
    """What is in memory under this load: all of weights, KV cache (the engine fills it with zeros) and process, and as
    much of the compute buffer as the largest pass of the workload touches.
    """
    running = min(concurrency, memory.max_num_seqs)
    largest = min(batch_sizes(deployment, memory.kv_cache_tokens).ubatch, running * workload.input_len)
    scratch = activation_bytes(model, slots=memory.max_num_seqs, cells=memory.max_model_len, tokens=largest)
    return memory.total_bytes - memory.activation_bytes + min(scratch, memory.activation_bytes)


def _repacked(model: Model) -> MemoryPart:
    number = sum(
        group.bytes
        for group in model.tensors
        if group.dtype in REPACKED and group.component not in ("embedding", "norm")
    )
    formula = "a second copy; the first can be dropped from memory"
    return MemoryPart(name="repacked_weights", bytes=number, low=0, high=number, basis="formula", formula=formula)


def _kv_cache(cache: KvCache, slots: int, cells: int) -> MemoryPart:
    formula = f"{slots} sequences x {cells:,} cells x {cache.bytes_per_token:,} B"
    if not cache.bounds:
        return _exact("kv_cache", cache.bytes, formula)
    most = f"at most {formula}{' and a state' if 'recurrent_state' in cache.bounds else ''}"
    return MemoryPart(
        name="kv_cache", bytes=cache.bytes, low=cache.low, high=cache.bytes, basis="formula", formula=most
    )


def _exact(name: Literal["weights", "kv_cache"], number: int, formula: str) -> MemoryPart:
    return MemoryPart(name=name, bytes=number, low=number, high=number, basis="exact", formula=formula)


def _soft(name: Literal["activation", "overhead"], number: int, tolerance: float, formula: str) -> MemoryPart:
    low, high = round(number / (1 + tolerance)), round(number * (1 + tolerance))
    return MemoryPart(name=name, bytes=number, low=low, high=high, basis="formula", formula=formula)
