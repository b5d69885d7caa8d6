"""What llama.cpp takes on each device and on the host, by its own rules: layers, cells, compute buffers.

Unlike engines that fill a pool, it takes the cells of the asked context, and no more.
"""

from collections.abc import Mapping

from servolt.deployment import Deployment
from servolt.engines.llamacpp import LlamaCpp
from servolt.gpu import Accelerator
from servolt.model import Model, Part
from servolt.model.ggml import dtype_bytes
from servolt.plan.memory.budget import Budget, RankMemory, Term, TermName
from servolt.plan.memory.draft import draft_of
from servolt.plan.memory.llamacpp_builds import Build, build_of
from servolt.plan.memory.llamacpp_cells import Kept, kept_by_device
from servolt.plan.memory.llamacpp_compute import KNOWN_TOLERANCE, Moment, compute_by_device
from servolt.plan.memory.llamacpp_options import Options, options_of
from servolt.plan.memory.llamacpp_placement import (
    HOST,
    Device,
    Layers,
    Weights,
    layers_of,
    placement_of,
    weights_by_device,
)
from servolt.plan.memory.profiles import Profile
from servolt.plan.memory.ranks import binding_of, rank_memory
from servolt.plan.memory.terms import Known, measured

__all__ = ["llamacpp_budget"]

MIB = 2**20

# What a device's driver takes for a process beside the buffers: low, middle, high. NVIDIA: 153 MiB for the context
# alone, 750 MiB "unaccounted" by llama.cpp on an RTX PRO 6000 (issues 27953 and 24175 of ggml-org/llama.cpp, 2026).
# Metal accounts for all it takes.
DRIVER_MIB = {"nvidia": (150, 350, 800), "apple": (0, 50, 200)}
OTHER_DRIVER_MIB = (50, 250, 800)

# A build with GPU libraries keeps more of itself in the host's memory than the processor's alone.
HOST_TOLERANCE = 0.5

# Files differ from the mix of types that their name stands for; a header says it exactly.
UNREAD_TOLERANCE = 0.03

# A second copy in another order is made of these types for a processor (see plan.memory.host).
REPACKED = ("q4_0", "q4_k", "iq4_nl", "mxfp4")

# Of the memory that a Mac shares, this much may be a device's until iogpu.wired_limit_mb is raised: Metal recommends
# two thirds of up to 32 GiB, and three quarters of more. Of other machines' as much.
SHARED_PORTION, SMALL_SHARED_PORTION, SMALL_SHARED_BYTES = 0.75, 0.67, 33 * 2**30


def llamacpp_budget(
    deployment: Deployment,
    model: Model,
    accelerator: Accelerator,
    profile: Profile,
    known: Known,
) -> Budget:
    """Raises InvalidInputError for an option that llama.cpp doesn't know. `known` is of the first device."""
    build = build_of(deployment.engine, deployment.engine_version)
    options = options_of(deployment, model, build, devices=_devices(deployment, accelerator))
    layers = layers_of(model)
    placement = placement_of(options, len(layers.order), build)
    weights = weights_by_device(options, model, layers, placement)
    kept = kept_by_device(options, layers, placement, build)
    compute = compute_by_device(options, model, layers, placement, weights, build)
    _add_draft(deployment, model, options, weights, kept, placement.output)
    if build.number is None and not build.has_mla_modes:
        older = compute_by_device(options, model, layers, placement, weights, build._replace(all_logits=True))
        compute = {device: _or_as_large(moment, older[device]) for device, moment in compute.items()}
    ranks = tuple(
        rank_memory(
            _name(device),
            _terms(device, options, model, weights, kept, compute, accelerator, deployment)
            | {name: measured(size) for name, size in known.items() if device == 0},
            _available(device, deployment, accelerator, weights, kept, compute),
        )
        for device in (*range(options.devices), HOST)
    )
    return _budget(deployment, model, options, kept, ranks, _notes(deployment, model, accelerator, build, layers))


def _add_draft(
    deployment: Deployment, model: Model, options: Options, weights: Weights, kept: Kept, place: Device
) -> None:
    """A model that guesses stands with the output layer, with a context as long as its target's."""
    draft, speculation = draft_of(model), deployment.speculative_config
    if draft is None or speculation is None or speculation.method != "draft_model":
        return
    width = sum(dtype_bytes(name) or 0.0 for name in (options.key_dtype, options.value_dtype)) / 2
    weights.by_device[place] += draft.weights_bytes
    kept.keys_and_values[place] += draft.kv_elements * width * options.tokens


def _or_as_large(moment: Moment, older: Moment) -> Moment:
    """A build that is not stated may be one that keeps room for the logits of every token of a pass."""
    high = max(moment.bytes * (1 + moment.tolerance), older.bytes * (1 + KNOWN_TOLERANCE))
    return moment._replace(tolerance=high / moment.bytes - 1 if moment.bytes else moment.tolerance)


def _devices(deployment: Deployment, accelerator: Accelerator) -> int:
    if accelerator.kind == "cpu" or (deployment.n_gpu_layers == 0 and not deployment.override_tensor):
        return 0
    return max(accelerator.count, deployment.hardware.count if deployment.hardware else 1)


def _name(device: Device) -> str:
    return "host" if device is HOST else f"gpu{device}"


def _terms(
    device: Device,
    options: Options,
    model: Model,
    weights: Weights,
    kept: Kept,
    compute: Mapping[Device, Moment],
    accelerator: Accelerator,
    deployment: Deployment,
) -> dict[TermName, Term]:
    moment = compute[device]
    values, states = kept.keys_and_values[device], kept.states[device]
    return {
        "weights": _weights(weights.by_device[device], model),
        "kv_cache": Term.exact(values, f"{options.streams} x {options.cells:,} cells as {_dtypes(options)}"),
        "state": Term.exact(states, f"{options.slots} slots, {1 + options.snapshots} states each, f32"),
        "activation": Term.soft(moment.bytes, moment.tolerance, moment.formula),
        "overhead": _overhead(device, options, model, accelerator, deployment),
    }


def _weights(number: float, model: Model) -> Term:
    formula = "tensors by layer, device and pattern"
    if model.basis == "header":
        return Term.exact(number, formula)
    return Term.soft(number, UNREAD_TOLERANCE, f"{formula}; sizes by the name of the mix of types")


def _repacked(model: Model) -> float:
    def of(parts: tuple[Part, ...]) -> float:
        return sum(
            part.bytes for part in parts if part.dtype in REPACKED and part.component not in ("embedding", "norm")
        )

    layers = layers_of(model)
    inside = sum(of(kind.parts) * layers.order.count(index) for index, kind in enumerate(layers.kinds))
    return inside + of(model.parts)


def _dtypes(options: Options) -> str:
    same = options.key_dtype == options.value_dtype
    return options.key_dtype if same else f"{options.key_dtype} and {options.value_dtype}"


def _overhead(device: Device, options: Options, model: Model, accelerator: Accelerator, deployment: Deployment) -> Term:
    if device is HOST:
        process = Term.soft(
            LlamaCpp().overhead(deployment, model), HOST_TOLERANCE, "the process, measured without a GPU"
        )
        copy = round(_repacked(model)) if not options.devices and deployment.engine == "llamacpp" else 0
        if not copy:
            return process
        formula = f"{process.formula}; a second copy of weights in the processor's order"
        return Term(
            bytes=process.bytes + copy, low=process.low, high=process.high + copy, basis="formula", formula=formula
        )
    low, middle, high = DRIVER_MIB.get((accelerator.vendor or "").lower(), OTHER_DRIVER_MIB)
    return Term(
        bytes=middle * MIB,
        low=low * MIB,
        high=high * MIB,
        basis="formula",
        formula=f"the driver's own for a process, {low} to {high} MiB",
    )


def _available(
    device: Device,
    deployment: Deployment,
    accelerator: Accelerator,
    weights: Weights,
    kept: Kept,
    compute: Mapping[Device, Moment],
) -> float | None:
    hardware = deployment.hardware
    if accelerator.kind == "cpu":
        stated = hardware.host_memory_bytes or hardware.memory_bytes if hardware else None
        return stated or accelerator.available_bytes or (accelerator.memory_bytes or None)
    if device is HOST and accelerator.unified_memory:
        taken = (
            weights.by_device.get(0, 0.0) + kept.keys_and_values.get(0, 0.0) + compute[0].bytes if 0 in compute else 0
        )
        return max(0.0, accelerator.memory_bytes - taken)
    if device is HOST:
        return hardware.host_memory_bytes if hardware else None
    own = hardware.memory_bytes if hardware else None
    shown = own or accelerator.available_bytes or accelerator.visible_memory_bytes
    if shown or not accelerator.unified_memory:
        return shown or accelerator.memory_bytes
    is_small = accelerator.memory_bytes < SMALL_SHARED_BYTES
    return accelerator.memory_bytes * (SMALL_SHARED_PORTION if is_small else SHARED_PORTION)


def _budget(
    deployment: Deployment,
    model: Model,
    options: Options,
    kept: Kept,
    ranks: tuple[RankMemory, ...],
    notes: tuple[str, ...],
) -> Budget:
    length = options.cells if options.streams > 1 or options.slots == 1 else options.cells // options.slots
    concurrency = options.tokens / max(1, length)
    return Budget(
        per_rank=ranks,
        pooled=False,
        kv_bytes_per_token=round(kept.per_token),
        kv_cache_tokens=options.tokens,
        kv_cache_tokens_low=options.tokens,
        kv_cache_tokens_high=options.tokens,
        max_concurrency=concurrency,
        max_concurrency_low=concurrency,
        max_concurrency_high=concurrency,
        max_model_len=length,
        max_num_seqs=options.slots,
        max_num_batched_tokens=options.batch,
        binding=binding_of(ranks),
        notes=notes,
    )


def _notes(
    deployment: Deployment, model: Model, accelerator: Accelerator, build: Build, layers: Layers
) -> tuple[str, ...]:
    found = []
    if build.number is None and not build.has_mla_modes:
        found.append("No build of llama.cpp is stated: planned as the newest one known, with wider compute buffers.")
    if build.has_mla_modes:
        found.append("ik_llama.cpp has kernels of its own: its compute buffers are rough.")
    hardware = deployment.hardware
    if accelerator.kind == "cpu" and not (hardware and (hardware.host_memory_bytes or hardware.memory_bytes)):
        found.append("The machine's memory is not stated: what the processor's entry has is assumed.")
    if model.unknown_fields:
        why = (
            "Not known, and taken as usual"
            if model.basis in ("card", "stated")
            else "Not understood in the model's config"
        )
        found.append(f"{why}: {', '.join(model.unknown_fields)}.")
    speculation = deployment.speculative_config
    counted = speculation is not None and speculation.method == "draft_model" and draft_of(model) is not None
    if speculation is not None and not counted and speculation.method not in ("mtp", "ngram"):
        found.append("The draft model's own memory is not counted: plan it beside this one.")
    if deployment.enable_lora:
        found.append("Adapters are not counted: each takes its file's size.")
    if any(kind.mixer == "chunked" for kind in layers.kinds):
        found.append("Chunked layers are planned as sliding ones of the same width.")
    return tuple(found)
