"""What a deployment asks of llama.cpp, with the program's own defaults for its build."""

import re
from typing import NamedTuple

from servolt.deployment import Deployment
from servolt.engines import llamacpp
from servolt.errors import InvalidInputError
from servolt.model import Model
from servolt.model.ggml import dtype_bytes
from servolt.plan.memory.llamacpp_builds import Build
from servolt.plan.memory.settings import argument, flag

__all__ = ["CELL_STEP", "Options", "Override", "options_of"]

# llama.cpp pads the cells of one sequence to this number (llama_context: n_ctx_seq).
CELL_STEP = 256

# llama-server's defaults for -b and -ub: tokens of one step, and of one pass through the layers.
DEFAULT_BATCH_TOKENS = 2048
DEFAULT_UBATCH_TOKENS = 512

MOST_LAYERS = 65536  # all of them

# What people and other engines call the types that llama.cpp knows under its own names.
KV_DTYPES = {"auto": "f16", "float16": "f16", "fp16": "f16", "half": "f16", "bfloat16": "bf16", "float32": "f32"}


class Override(NamedTuple):
    """Tensors whose name holds the pattern go to the device: a number, or None for the host."""

    pattern: re.Pattern[str]
    device: int | None


class Options(NamedTuple):
    cells: int  # of one stream
    streams: int  # 1 where all sequences share the cells
    slots: int
    batch: int
    ubatch: int
    key_dtype: str
    value_dtype: str
    flash: bool
    full_windows: bool  # sliding layers keep the whole context
    devices: int
    gpu_layers: int | None  # None: all of them
    shares: tuple[float, ...]
    split_mode: str
    main_gpu: int
    overrides: tuple[Override, ...]
    host_experts: int  # the experts of so many first layers stay on the host
    keeps_kv_on_host: bool
    mla: int | None  # ik_llama.cpp's -mla
    attention_mib: int | None  # ik_llama.cpp's -amb
    snapshots: int  # of a recurrent state, beside the state itself
    drafts_itself: bool  # by the model's own layers for it (MTP)
    projector: bool

    @property
    def tokens(self) -> int:
        return self.cells * self.streams


def options_of(deployment: Deployment, model: Model, build: Build, *, devices: int) -> Options:
    """Raises InvalidInputError for a KV data type, a split mode or an override that llama.cpp doesn't know."""
    slots = llamacpp.max_num_seqs(deployment)
    asked = llamacpp.max_model_len(deployment, model)
    unified = deployment.kv_unified is True
    total = _number(deployment, "ctx_size") or asked * slots
    cells = _padded(total if unified else -(-total // slots))
    streams = 1 if unified else slots
    batch = min(deployment.max_num_batched_tokens or DEFAULT_BATCH_TOKENS, cells * streams)
    ubatch = deployment.ubatch_size or deployment.max_num_batched_tokens or DEFAULT_UBATCH_TOKENS
    keys, values = _kv_dtypes(deployment)
    flash = build.flash_by_default if deployment.flash_attn is None else deployment.flash_attn
    return Options(
        cells=cells,
        streams=streams,
        slots=slots,
        batch=batch,
        ubatch=min(ubatch, batch),
        key_dtype=keys,
        value_dtype=values,
        flash=flash,
        full_windows=not build.window_cells or flag(deployment, "swa_full"),
        devices=devices,
        gpu_layers=_gpu_layers(deployment),
        shares=_shares(deployment, devices),
        split_mode=_split_mode(deployment),
        main_gpu=min(_number(deployment, "main_gpu") or 0, max(0, devices - 1)),
        overrides=_overrides(deployment, devices),
        host_experts=MOST_LAYERS if flag(deployment, "cpu_moe") else deployment.n_cpu_moe or 0,
        keeps_kv_on_host=flag(deployment, "no_kv_offload"),
        mla=_number(deployment, "mla") if build.has_mla_modes else None,
        attention_mib=_number(deployment, "amb"),
        snapshots=_snapshots(deployment),
        drafts_itself=deployment.speculative_config is not None and deployment.speculative_config.method == "mtp",
        projector=_text(deployment, "mmproj") is not None or any((deployment.limit_mm_per_prompt or {}).values()),
    )


def _padded(cells: int) -> int:
    return -(-cells // CELL_STEP) * CELL_STEP


def _number(deployment: Deployment, name: str) -> int | None:
    value = argument(deployment, name)
    if value is None or isinstance(value, bool):
        return None
    try:
        return int(value)
    except ValueError as error:
        raise InvalidInputError(f"engine_args has {name} {value!r}.", "Write a whole number.") from error


def _text(deployment: Deployment, name: str) -> str | None:
    value = argument(deployment, name)
    return None if value is None or value is False else str(value)


def _gpu_layers(deployment: Deployment) -> int | None:
    asked = deployment.n_gpu_layers
    return None if asked is None or asked < 0 else asked


def _shares(deployment: Deployment, devices: int) -> tuple[float, ...]:
    """Of the devices, as far as they are named; by their free memory otherwise, which is taken as equal."""
    asked = deployment.tensor_split or ()
    shares = tuple((asked + (0.0,) * devices)[:devices])
    return shares if sum(shares) > 0 else (1.0,) * devices


def _split_mode(deployment: Deployment) -> str:
    mode = _text(deployment, "split_mode") or "layer"
    if mode not in ("layer", "row", "none", "tensor", "graph"):
        raise InvalidInputError(
            f"llama.cpp has no split mode {mode!r}.", "Take one of layer, row, none, or tensor in engine_args."
        )
    return "tensor" if mode == "graph" else mode


def _kv_dtypes(deployment: Deployment) -> tuple[str, str]:
    """Of keys and of values: q8_0 for both, q8_0/f16 for one and the other."""
    keys, _, values = (deployment.kv_cache_dtype or "f16").lower().partition("/")
    keys = _text(deployment, "cache_type_k") or keys
    values = _text(deployment, "cache_type_v") or values or keys
    found = KV_DTYPES.get(keys, keys), KV_DTYPES.get(values, values)
    for dtype in found:
        if dtype_bytes(dtype) is None:
            raise InvalidInputError(
                f"llama.cpp keeps no keys and values as {dtype!r}.",
                f"Take one of {', '.join(llamacpp.KV_CACHE_DTYPES)}.",
            )
    return found


def _overrides(deployment: Deployment, devices: int) -> tuple[Override, ...]:
    """In the order of the command line: the first pattern that is found in a name decides."""
    return tuple(_override(part, devices) for part in _parts(deployment.override_tensor or ""))


def _parts(text: str) -> list[str]:
    """PATTERN=DEVICE,PATTERN=DEVICE; a comma inside a pattern belongs to it."""
    found: list[str] = []
    for part in text.split(","):
        if found and "=" not in found[-1]:
            found[-1] += f",{part}"
        else:
            found.append(part)
    return [part for part in found if part]


def _override(part: str, devices: int) -> Override:
    pattern, equals, device = part.rpartition("=")
    remedy = "Write PATTERN=DEVICE, such as exps=CPU or blk\\.[0-3]\\.ffn_.*=CUDA0."
    if not equals or not pattern:
        raise InvalidInputError(f"override_tensor has {part!r}.", remedy)
    try:
        return Override(re.compile(pattern), _device(device, devices))
    except re.error as error:
        raise InvalidInputError(f"override_tensor has the pattern {pattern!r}: {error}.", remedy) from error


def _device(name: str, devices: int) -> int | None:
    """CUDA1, Vulkan1 and ROCm1 are the second device; CPU, CUDA_Host and CUDA0 without devices are the host."""
    if name.upper().startswith("CPU") or name.lower().endswith("_host") or not devices:
        return None
    number = re.search(r"(\d+)(\[.*)?$", name)
    return min(int(number[1]), devices - 1) if number else 0


def _snapshots(deployment: Deployment) -> int:
    """To take back tokens that were guessed wrong, a recurrent state is kept once more for each of them."""
    speculation = deployment.speculative_config
    return speculation.num_speculative_tokens if speculation is not None else 0
