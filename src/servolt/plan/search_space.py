"""The configurations that a search tries: what a deployment leaves open, in all ways that can run."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from servolt.deployment import Deployment, Hardware, Speculation
from servolt.errors import InvalidInputError
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.model.quantization import bits_per_weight, requantized
from servolt.plan.room import GGUF_ENGINES, lower_formats
from servolt.plan.validation_formats import SMALLER_KV

__all__ = ["COUNTS", "LOADS", "Candidate", "Layout", "Space", "bits_of", "cache_bits", "candidates_of", "layouts_of"]

COUNTS = (1, 2, 4, 8)
# Streams that are tried where the load is not given: what published sweeps step through.
LOADS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
SERVERS = ("vllm", "sglang", "tensorrt_llm")
LOCAL = ("llamacpp",)
# Engines that run copies of the model behind one address, and those that divide layers or their weights.
COPYING = ("vllm", "sglang")
DIVIDING = ("vllm", "sglang", "tensorrt_llm")
# Answers in 8 bits are as those in 16 (Kurtic et al. 2024, arXiv:2411.02355); below it they are not taken unasked.
USUAL_BITS = 8.0
KV_BITS = {"fp8": 8.0, "q8_0": 8.5, "u8": 8.0, "i8": 8.0, "int8": 8.0, "q4_0": 4.5, "nvfp4": 4.5, "fp4": 4.0}


class Space(NamedTuple):
    """`deployment` is what stays: an axis that it sets is not searched. Empty axes take what is usual."""

    deployment: Deployment
    model: Model
    accelerators: Sequence[Accelerator]
    counts: Sequence[int] = ()
    engines: Sequence[str] = ()
    quantizations: Sequence[str | None] = ()  # None is the model's own
    kv_cache_dtypes: Sequence[str | None] = ()  # None is the engine's default
    max_num_seqs: Sequence[int | None] = (None,)
    speculations: Sequence[Speculation | None] = ()  # whose acceptance somebody states; None is without
    loads: Sequence[int] = ()  # streams in flight; empty where the workload says the load
    min_bits: float | None = None


class Candidate(NamedTuple):
    deployment: Deployment
    model: Model
    accelerator: Accelerator  # with its count
    layout: "Layout"


class Layout(NamedTuple):
    """Whole numbers of ranks; `ep` says whether experts stay whole."""

    tp: int = 1
    pp: int = 1
    dp: int = 1
    ep: bool = False

    @property
    def devices(self) -> int:
        return self.tp * self.pp * self.dp


def candidates_of(space: Space) -> Iterator[Candidate]:
    """In a fixed order. What an engine would refuse is among them: `problems_of` says why."""
    models: dict[str | None, Model] = {None: space.model}
    for accelerator in space.accelerators:
        for engine in _engines(space, accelerator):
            base = space.deployment.model_copy(update={"engine": engine})
            for name in _formats(space, base, accelerator):
                if name is not None and name not in models:
                    models[name] = requantized(space.model, name)
                for count in _counts(space):
                    machine = accelerator.model_copy(update={"count": count})
                    yield from _of_machine(space, base, models[name], name, machine)


def _of_machine(
    space: Space, base: Deployment, model: Model, quantization: str | None, accelerator: Accelerator
) -> Iterator[Candidate]:
    hardware = (base.hardware or Hardware()).model_copy(
        update={"accelerator": accelerator.name, "count": accelerator.count}
    )
    fixed: dict[str, Any] = {"hardware": hardware}
    if quantization is not None:
        fixed["quantization"] = quantization
    for layout in layouts_of(base, model, accelerator.count):
        parallel = _parallel(base.engine, layout)
        for kv_cache_dtype in _caches(space, base, accelerator):
            for requests in _requests(space):
                for speculation in _speculations(space):
                    changed = {
                        "kv_cache_dtype": kv_cache_dtype,
                        "max_num_seqs": requests,
                        "speculative_config": speculation,
                        **fixed,
                        **parallel,
                    }
                    yield Candidate(base.model_copy(update=changed), model, accelerator, layout)


def layouts_of(deployment: Deployment, model: Model, count: int) -> list[Layout]:
    """All ways to put one deployment on so many devices; sizes that it sets itself stay."""
    if deployment.engine not in DIVIDING:
        return [Layout()] if count == 1 or deployment.engine in GGUF_ENGINES else []
    asked = deployment.tensor_parallel_size, deployment.pipeline_parallel_size, deployment.data_parallel_size
    has_experts = any(kind.experts is not None for kind in model.layers)
    found = []
    for tp in _divisors(count):
        for pp in _divisors(count // tp):
            sizes = (tp, pp, count // tp // pp)
            kept = all(wanted is None or wanted == size for wanted, size in zip(asked, sizes, strict=True))
            if kept and (sizes[2] == 1 or deployment.engine in COPYING):
                found += [Layout(*sizes, ep=ep) for ep in _expert_ways(deployment, has_experts, sizes)]
    return found


def bits_of(model: Model) -> float:
    """Of a weight, by the format's name where it has one, else on average."""
    try:
        return bits_per_weight(model.quantization)
    except InvalidInputError:
        return 8 * model.weights_bytes / max(1, model.total_params)


def _expert_ways(deployment: Deployment, has_experts: bool, sizes: tuple[int, int, int]) -> tuple[bool, ...]:
    if deployment.enable_expert_parallel or deployment.expert_parallel_size:
        return (True,)
    return (False, True) if has_experts and sizes[0] * sizes[2] > 1 else (False,)


def _parallel(engine: str, layout: Layout) -> dict[str, Any]:
    """One rank is what engines take by default, so it is not said."""
    sizes = {"tensor_parallel_size": layout.tp, "pipeline_parallel_size": layout.pp, "data_parallel_size": layout.dp}
    found: dict[str, Any] = {name: size for name, size in sizes.items() if size > 1}
    if layout.ep and engine == "vllm":
        found["enable_expert_parallel"] = True
    elif layout.ep:
        found["expert_parallel_size"] = layout.tp
    return found


def _divisors(number: int) -> list[int]:
    return [size for size in range(number, 0, -1) if number % size == 0]


def _counts(space: Space) -> Sequence[int]:
    hardware = space.deployment.hardware
    if space.counts:
        return space.counts
    if hardware is not None and "count" in hardware.model_fields_set:
        return (hardware.count,)
    return COUNTS


def _engines(space: Space, accelerator: Accelerator) -> Sequence[str]:
    if space.engines:
        return space.engines
    if "engine" in space.deployment.model_fields_set:
        return (space.deployment.engine,)
    is_local = accelerator.kind == "cpu" or (accelerator.vendor or "").lower() == "apple"
    return LOCAL if is_local or space.model.format == "gguf" else SERVERS


def _formats(space: Space, deployment: Deployment, accelerator: Accelerator) -> list[str | None]:
    if space.quantizations:
        own = space.model.quantization
        return list(dict.fromkeys(None if name in (None, own) else name for name in space.quantizations))
    if deployment.quantization is not None:
        return [None]
    least = USUAL_BITS if space.min_bits is None else space.min_bits
    lower = [name for name in lower_formats(deployment, space.model, accelerator) if bits_per_weight(name) >= least]
    return [None, *lower]


def _caches(space: Space, deployment: Deployment, accelerator: Accelerator) -> Sequence[str | None]:
    if space.kv_cache_dtypes:
        smaller = SMALLER_KV.get(deployment.engine)
        spelled: Mapping[str, str | None] = {"auto": None, "fp8": smaller}
        return list(dict.fromkeys(spelled.get(name, name) if name else None for name in space.kv_cache_dtypes))
    if deployment.kv_cache_dtype is not None:
        return (deployment.kv_cache_dtype,)
    has_fp8 = "fp8" in accelerator.flops_per_s and deployment.engine in DIVIDING
    return (None, SMALLER_KV[deployment.engine]) if has_fp8 else (None,)


def _requests(space: Space) -> Sequence[int | None]:
    return (space.deployment.max_num_seqs,) if space.deployment.max_num_seqs else space.max_num_seqs or (None,)


def _speculations(space: Space) -> Sequence[Speculation | None]:
    """What was never measured to be accepted is not tried: it would neither gain nor lose."""
    own = space.deployment.speculative_config
    return space.speculations or (own,)


def cache_bits(dtype: str | None) -> float:
    """Of an element of keys and values."""
    if dtype is None:
        return 16.0
    return next((bits for name, bits in KV_BITS.items() if dtype.startswith(name)), 16.0)
