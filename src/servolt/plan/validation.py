"""What is wrong with a deployment before anything is computed: each with its numbers, and with the value to set.

An error is what the engine refuses, or what can't be meant; with a warning it runs, but not as well as it reads.
"""

from collections.abc import Callable, Iterator

from servolt.deployment import Deployment
from servolt.document import Problem
from servolt.gpu import Accelerator
from servolt.model import LayerKind, Model
from servolt.plan.memory.shape import shape_of
from servolt.plan.memory.sharding import pad_vocab, ranks_of
from servolt.plan.validation_formats import format_problems
from servolt.plan.validation_options import option_problems
from servolt.workload import Workload

__all__ = ["problems_of"]

# Engines that split each layer's weights over tensor parallel ranks.
SPLITTING = ("vllm", "sglang", "tensorrt_llm", "transformers")

# More than anything that exists, so a slip of the hand: tokens of a context, requests times context, devices.
MOST_CONTEXT, MOST_CACHED, MOST_DEVICES = 2**27, 2**34, 16384

# vLLM takes these ranks only (vllm/config/lora.py).
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


def problems_of(
    deployment: Deployment, model: Model, accelerator: Accelerator, workload: Workload | None = None
) -> list[Problem]:
    """Errors first."""
    found = [
        *_sizes(deployment),
        *_devices(deployment, accelerator),
        *_heads(deployment, model),
        *_context_parallel(deployment, model),
        *_vocabulary(deployment, model),
        *_stages(deployment, model),
        *_experts(deployment, model),
        *_steps(deployment, model),
        *_context(deployment, model),
        *_lora(deployment),
        *_speculation(deployment, model),
        *_too_long(deployment, model, workload),
        *format_problems(deployment, model, accelerator),
        *option_problems(deployment, model, accelerator),
    ]
    order = {"error": 0, "warning": 1, "note": 2}
    return sorted(found, key=lambda problem: order[problem.severity])


def _error(code: str, message: str, remedy: str) -> Problem:
    return Problem(code=code, severity="error", message=message, remedy=remedy)


def _warning(code: str, message: str, remedy: str) -> Problem:
    return Problem(code=code, severity="warning", message=message, remedy=remedy)


def _sizes(deployment: Deployment) -> Iterator[Problem]:
    length, requests = deployment.max_model_len or 0, deployment.max_num_seqs or 1
    if length > MOST_CONTEXT:
        yield _error(
            "absurd_size",
            f"A context of {length:,} tokens is more than any model has.",
            "Set max_model_len to what the longest request needs.",
        )
    elif length * requests > MOST_CACHED:
        most = max(1, MOST_CACHED // max(1, length))
        yield _error(
            "absurd_size",
            f"{requests:,} requests of {length:,} tokens are {length * requests:,} tokens at the same time.",
            f"Set max_num_seqs to {most} or less.",
        )
    devices = ranks_of(deployment).devices
    if devices > MOST_DEVICES:
        yield _error(
            "absurd_size",
            f"tensor x pipeline x data parallel sizes ask for {devices:,} devices.",
            "Set tensor_parallel_size, pipeline_parallel_size and data_parallel_size to what one deployment has.",
        )


def _devices(deployment: Deployment, accelerator: Accelerator) -> Iterator[Problem]:
    ranks = ranks_of(deployment)
    if accelerator.kind == "cpu" or deployment.engine not in SPLITTING:
        return
    present = max(accelerator.count, deployment.hardware.count if deployment.hardware else 1)
    product = " x ".join(
        f"{name} {size}"
        for name, size in (("tensor", ranks.tp), ("pipeline", ranks.pp), ("data", ranks.dp))
        if size > 1
    )
    if ranks.devices > present:
        yield _error(
            "too_few_devices",
            f"{product} parallel needs {ranks.devices} devices, and there are {present}.",
            f"Set hardware.count to {ranks.devices}, or the sizes so that their product is {present}.",
        )
    elif ranks.devices < present:
        yield _warning(
            "idle_devices",
            f"{present - ranks.devices} of {present} devices are not used: {product or 'nothing'} parallel is "
            f"{ranks.devices}.",
            f"Set tensor_parallel_size to {_fitting(present, lambda size: present % size == 0)}, or data_parallel_size "
            f"to {present // max(1, ranks.tp * ranks.pp)}.",
        )
    if ranks.dp_attention and ranks.tp % ranks.dp:
        yield _error(
            "dp_attention",
            f"DP attention can't split {ranks.tp} tensor parallel ranks into {ranks.dp} equal groups.",
            f"Set data_parallel_size to {_fitting(ranks.dp, lambda size: ranks.tp % size == 0)}.",
        )
    if ranks.dcp > 1 and ranks.tp % ranks.dcp:
        yield _error(
            "context_parallel",
            f"{ranks.dcp} context parallel ranks don't divide {ranks.tp} tensor parallel ones.",
            f"Set decode_context_parallel_size to {_fitting(ranks.dcp, lambda size: ranks.tp % size == 0)}.",
        )


def _fitting(limit: int, holds: Callable[[int], bool]) -> int:
    """The largest size up to the limit."""
    return next((size for size in range(max(1, limit), 0, -1) if holds(size)), 1)


def _context_parallel(deployment: Deployment, model: Model) -> Iterator[Problem]:
    """vLLM splits a sequence over ranks that would hold the same keys and values (vllm/config/model.py, 0.33.0)."""
    ranks = ranks_of(deployment)
    heads = max((1 if kind.kv_lora_rank else kind.num_kv_heads for kind in shape_of(model).kinds), default=0)
    if ranks.dcp <= 1 or deployment.engine != "vllm" or not heads or ranks.dcp * heads <= ranks.tp:
        return
    most = ranks.tp // heads
    yield _error(
        "context_parallel",
        f"{ranks.tp} tensor parallel ranks hold {heads} KV heads {max(1, most)} times over, so a sequence can be split "
        f"in {max(1, most)}, and decode_context_parallel_size asks for {ranks.dcp}.",
        f"Set decode_context_parallel_size to {max(1, most)}, or tensor_parallel_size to {ranks.dcp * heads}.",
    )


def _heads(deployment: Deployment, model: Model) -> Iterator[Problem]:
    tp = ranks_of(deployment).attention_tp
    kinds = [kind for kind in shape_of(model).kinds if kind.num_heads and kind.num_kv_heads]
    if tp == 1 or deployment.engine not in SPLITTING or not kinds:
        return

    def divides(size: int) -> bool:
        return all(kind.num_heads % size == 0 and _keys_divide(kind, size) for kind in kinds)

    uneven = next((kind for kind in kinds if kind.num_heads % tp), None)
    if uneven is not None:
        yield _error(
            "heads_per_rank",
            f"{uneven.num_heads} attention heads can't be divided over {tp} tensor parallel ranks.",
            f"Set tensor_parallel_size to {_fitting(tp, divides)}.",
        )
        return
    ragged = next((kind for kind in kinds if not _keys_divide(kind, tp)), None)
    if ragged is not None:
        yield _error(
            "kv_heads_per_rank",
            f"{ragged.num_kv_heads} KV heads can neither be divided over {tp} ranks nor repeated evenly.",
            f"Set tensor_parallel_size to {_fitting(tp, divides)}.",
        )
        return
    few = min((kind.num_kv_heads for kind in kinds if not kind.kv_lora_rank), default=tp)
    if few < tp:
        yield _warning(
            "kv_heads_repeated",
            f"{few} KV heads on {tp} ranks: each is kept {tp // few} times, so the cache shrinks no more.",
            f"Set tensor_parallel_size to {few}, and data_parallel_size to {tp // few}, for more tokens in all.",
        )


def _keys_divide(kind: LayerKind, size: int) -> bool:
    """A latent has no heads to divide."""
    return bool(kind.kv_lora_rank) or kind.num_kv_heads % size == 0 or size % kind.num_kv_heads == 0


def _vocabulary(deployment: Deployment, model: Model) -> Iterator[Problem]:
    tp = ranks_of(deployment).tp
    if deployment.engine not in SPLITTING or not model.vocab_size:
        return
    padded = pad_vocab(model.vocab_size)
    if padded % tp:
        yield _error(
            "vocabulary_per_rank",
            f"A vocabulary of {model.vocab_size:,}, padded to {padded:,}, can't be divided over {tp} ranks.",
            f"Set tensor_parallel_size to {_fitting(tp, lambda size: padded % size == 0)}.",
        )


def _stages(deployment: Deployment, model: Model) -> Iterator[Problem]:
    pp, layers = ranks_of(deployment).pp, len(shape_of(model).order)
    if pp > layers:
        yield _error(
            "stages",
            f"{layers} layers can't fill {pp} pipeline stages.",
            f"Set pipeline_parallel_size to {layers} or less.",
        )
    elif pp > 1 and layers % pp and layers // pp < 8:
        yield _warning(
            "uneven_stages",
            f"{layers} layers on {pp} stages: the fullest has {-(-layers // pp)}, and every step waits for it.",
            f"Set pipeline_parallel_size to {_fitting(pp, lambda size: layers % size == 0)}.",
        )


def _experts(deployment: Deployment, model: Model) -> Iterator[Problem]:
    ranks = ranks_of(deployment)
    counts = {kind.experts.num_experts for kind in model.layers if kind.experts is not None}
    if (deployment.enable_expert_parallel or deployment.expert_parallel_size) and not counts and model.layers:
        yield _warning("no_experts", f"{model.name} has no experts to distribute.", "Leave expert parallelism unset.")
    if ranks.ep <= 1 or not counts:
        return
    least = min(counts)
    if ranks.ep > least:
        yield _error(
            "experts_per_rank",
            f"{least} experts can't fill {ranks.ep} expert parallel ranks.",
            f"Set expert_parallel_size to {_fitting(least, lambda size: least % size == 0)}, or fewer ranks.",
        )
    elif any(count % ranks.ep for count in counts):
        yield (_error if deployment.engine in ("sglang", "tensorrt_llm") else _warning)(
            "experts_per_rank",
            f"{least} experts on {ranks.ep} ranks: some have {-(-least // ranks.ep)} and others {least // ranks.ep}.",
            f"Take {_fitting(ranks.ep, lambda size: not any(count % size for count in counts))} expert parallel ranks.",
        )
    if deployment.expert_parallel_size and ranks.tp % ranks.ep and ranks.ep % ranks.tp:
        yield _error(
            "expert_parallel_size",
            f"{ranks.ep} expert parallel ranks don't divide {ranks.tp} tensor parallel ones.",
            f"Set expert_parallel_size to {_fitting(ranks.ep, lambda size: ranks.tp % size == 0)}.",
        )


def _steps(deployment: Deployment, model: Model) -> Iterator[Problem]:
    tokens, requests = deployment.max_num_batched_tokens, deployment.max_num_seqs
    if tokens is None or deployment.engine == "llamacpp":
        return
    length = deployment.max_model_len or model.max_position_embeddings
    if deployment.enable_chunked_prefill is False and tokens < length:
        yield _error(
            "step_too_short",
            f"Without chunked prefill a prompt of {length:,} tokens doesn't fit a step of {tokens:,}.",
            f"Set max_num_batched_tokens to {length}, or enable_chunked_prefill to true.",
        )
    if requests is not None and tokens < requests and deployment.engine == "vllm":
        yield _error(
            "step_too_short",
            f"A step of {tokens:,} tokens can't take one token of each of {requests:,} sequences.",
            f"Set max_num_batched_tokens to {requests}, or max_num_seqs to {tokens}.",
        )


def _context(deployment: Deployment, model: Model) -> Iterator[Problem]:
    asked, trained = deployment.max_model_len, model.max_position_embeddings
    if asked is None or not trained or asked <= trained or deployment.engine == "llamacpp":
        return
    severity = _error if deployment.engine in ("vllm", "sglang") else _warning
    yield severity(
        "context_beyond_training",
        f"The context of {asked:,} tokens is longer than the {trained:,} the model was trained for.",
        f"Set max_model_len to {trained}, or lengthen the positions by a factor of {asked / trained:.2g} (YaRN).",
    )


def _lora(deployment: Deployment) -> Iterator[Problem]:
    rank = deployment.max_lora_rank
    if not deployment.enable_lora:
        if deployment.max_loras or rank:
            yield _warning(
                "lora_off",
                "Slots for adapters are set, and adapters are off.",
                "Set enable_lora to true, or unset them.",
            )
        return
    if rank is not None and deployment.engine == "vllm" and rank not in LORA_RANKS:
        larger = next((known for known in LORA_RANKS if known >= rank), LORA_RANKS[-1])
        yield _error(
            "lora_rank",
            f"vLLM keeps adapters of rank {', '.join(map(str, LORA_RANKS))}, and {rank} is asked.",
            f"Set max_lora_rank to {larger}.",
        )


def _speculation(deployment: Deployment, model: Model) -> Iterator[Problem]:
    speculation = deployment.speculative_config
    if speculation is None:
        return
    has_mtp = any(part.component == "mtp" for part in model.parts)
    if speculation.method == "mtp" and model.layers and not has_mtp:
        yield _error(
            "no_mtp",
            f"{model.name} has no layers of its own to guess tokens with.",
            "Take eagle3 or ngram as method, or leave speculative_config unset.",
        )
    if speculation.acceptance is None:
        yield _warning(
            "acceptance_unknown",
            f"How many of {speculation.num_speculative_tokens} guessed tokens {speculation.method} has right is not "
            "stated: memory counts it, and times are those without speculation.",
            "Set speculative_config.acceptance to the mean of accepted tokens a step that was measured on such text.",
        )
    if speculation.method in ("draft_model", "eagle", "eagle3", "medusa") and speculation.model is None:
        yield _warning(
            "draft_not_named",
            f"{speculation.method} needs a second model, and none is named: its memory is "
            f"{'not counted' if speculation.method == 'draft_model' else 'that of the usual head'}.",
            "Set speculative_config.model.",
        )


def _too_long(deployment: Deployment, model: Model, workload: Workload | None) -> Iterator[Problem]:
    length = deployment.max_model_len or model.max_position_embeddings
    needed = workload.input_len + workload.output_len if workload is not None else 0
    if length and needed > length:
        yield _warning(
            "workload_exceeds_context",
            f"A request of {needed:,} tokens is longer than the context of {length:,}.",
            f"Set max_model_len to at least {needed}, or shorten the workload.",
        )
