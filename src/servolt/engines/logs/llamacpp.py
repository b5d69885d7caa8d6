"""llama.cpp's start-up log: buffers of each device, the context it made, and what `--fit` changed.

Wordings: llama.cpp of 2024 to 2026, src/llama-model.cpp, llama-context.cpp, llama-kv-cache.cpp,
llama-memory-recurrent.cpp, common/fit.cpp.
"""

import re
from collections.abc import Sequence
from typing import Any

from servolt.engines.logs.startup import MIB, RankLog, StartupLog
from servolt.engines.logs.text import Line, number

__all__ = ["SIGNS", "WORDS", "parse"]

SIGNS = ("llama_model_loader:", "model buffer size", "KV buffer size", "llama_context:", "llm_load_tensors:")

# Of all lines that are read.
WORDS = re.compile(
    r"MiB|build|version|loading model|loaded meta data|Device \d|GPU name|offloaded|n_ctx|n_batch|n_ubatch|n_seq_max"
    r"|flash_attn|kv_unified|fitting params|successfully fit"
)
# `... buffer size is` only compares; what is allocated has an equals sign.
_BUFFER = re.compile(
    r"(\S{1,60}) {1,40}(model|KV|RS|compute|output|LoRA|DSV4 [\w ]{1,40}?)? {0,40}"
    r"buffer size {0,9}= {0,40}([\d.]{1,16}) MiB"
)
_FIELDS = {"model": "weights_bytes", "KV": "kv_cache_bytes", "RS": "state_bytes", "LoRA": "weights_bytes"}
_WORK = "activation_bytes"  # compute buffers, and the logits that go out
_FITTED = re.compile(r"fitting params to free memory took|successfully fit params")
_LOADING = re.compile(r"loading model '([^']+)'|loaded meta data .{0,80} from (.{1,4096}?) \(version")
_BUILD = re.compile(r"(?:build|build_info|version)(?: =|:) b?(\d+)[ -]\(?[0-9a-f]{7,}")
_USING = re.compile(r"using device (\w{1,40}?)\d* \((.{1,200}?)\)(?: \([^)]{0,80}\))? - ([\d.]{1,16}) MiB free")
_FOUND = re.compile(
    r"Device \d+: (.{1,200}?), compute capability|GPU name: {1,40}(.{1,200})$|Device \d+: (.{1,200}?), gfx\w+"
)
_OFFLOADED = re.compile(r"offloaded (\d+)/(\d+) layers to GPU")
_CELLS = re.compile(r"size {1,9}= {1,40}[\d.]{1,16} MiB.{0,200}?K \((\w+)\):.{0,80}?V \((\w+)\)")
_CONTEXT = re.compile(
    r"(?:llama_context|llama_new_context_with_model|llama_init_from_model): (\w{1,60}) {1,60}= (\S{1,60})"
)
_PROJECTED = re.compile(r"projected to use ([\d.]+) MiB of \w+ memory vs\. ([\d.]+) MiB of (?:free|total) \w+ memory")
_CHANGED = re.compile(r"_impl: (context size reduced from \d+ to \d+[^.]*)")
_SLOT = re.compile(r"n_ctx_(?:seq|slot)\w{0,20} {1,60}= (\d+)")


class _Reader:
    """What the lines of one start have said so far."""

    def __init__(self) -> None:
        self.version: str | None = None
        self.model: str | None = None
        self.used: list[str] = []
        self.present: list[str] = []
        self.free = 0.0
        self.notes: list[str] = []
        self.projected: tuple[float, float] | None = None
        self.clear()

    def clear(self) -> None:
        """A dry run before the real one logs its buffers too."""
        self.buffers: dict[str, dict[str, float]] = {}
        self.context: dict[str, str] = {}
        self.dtypes: tuple[str, str] | None = None
        self.offloaded: tuple[int, int] | None = None

    def read(self, text: str) -> None:
        self._start(text)
        if found := _BUFFER.search(text):
            self._buffer(found[1], found[2], number(found[3]))
        if found := _CELLS.search(text):
            self.dtypes = self.dtypes or (found[1], found[2])
        if found := _OFFLOADED.search(text):
            self.offloaded = self.offloaded or (int(found[1]), int(found[2]))
        if found := _CONTEXT.search(text):
            self.context.setdefault(found[1], found[2])
        elif found := _SLOT.search(text):
            self.context.setdefault("n_ctx_seq", found[1])
        if found := _PROJECTED.search(text):
            self.projected = (number(found[1]), number(found[2]))
        if found := _CHANGED.search(text):
            self.notes.append(f"--fit: {found[1].strip()}")

    def _start(self, text: str) -> None:
        if _FITTED.search(text) or "load_model: loading model '" in text:
            self.clear()
        if (found := _LOADING.search(text)) and self.model is None:
            self.model = (found[1] or found[2]).strip()
        if found := _BUILD.search(text):
            self.version = f"b{found[1]}"
        if found := _USING.search(text):
            self.used.append(found[2])
        elif found := _FOUND.search(text):
            self.present.append((found[1] or found[2] or found[3]).strip())

    def _buffer(self, device: str, kind: str | None, size: float) -> None:
        """Several caches, and buffers of a draft model, add up. Old logs say `CUDA0 buffer size` for the weights."""
        field = _FIELDS.get(kind or "model") or ("state_bytes" if (kind or "").startswith("DSV4") else _WORK)
        here = self.buffers.setdefault("host" if _is_host(device) else device, {})
        here[field] = here.get(field, 0.0) + size


def parse(lines: Sequence[Line]) -> StartupLog:
    """Of the last start that the log holds."""
    reader = _Reader()
    for line in lines:
        reader.read(line.text)
    ranks = [
        RankLog(
            rank=device,
            is_host=device == "host",
            **{field: round(size * MIB) for field, size in sizes.items()},
        )
        for device, sizes in reader.buffers.items()
    ]
    names = reader.used or reader.present
    devices = sum(not rank.is_host for rank in ranks)
    return StartupLog(
        engine="llamacpp",
        engine_version=reader.version,
        model=reader.model,
        accelerator=names[0] if names else None,
        devices=devices or None,
        settings=_settings(reader),
        ranks=tuple(sorted(ranks, key=lambda rank: (rank.is_host, rank.rank))),
        kv_cache_tokens=_whole(reader.context.get("n_ctx")),
        projected_bytes=round(reader.projected[0] * MIB) if reader.projected else None,
        free_bytes=round(reader.projected[1] * MIB) if reader.projected else None,
        notes=tuple(dict.fromkeys(reader.notes)),
    )


def _is_host(device: str) -> bool:
    """CPU, CPU_Mapped, CPU_REPACK, AMX, CUDA_Host."""
    return device.startswith(("CPU", "AMX", "BLAS")) or device.endswith("_Host")


def _settings(reader: _Reader) -> dict[str, Any]:
    said = reader.context
    slots, cells = _whole(said.get("n_seq_max")), _whole(said.get("n_ctx"))
    unified = {"true": True, "1": True, "false": False, "0": False}.get(said.get("kv_unified", ""))
    each = _whole(said.get("n_ctx_seq")) or _whole(said.get("n_ctx_per_seq"))
    if each is None and cells is not None:
        each = cells // slots if slots and not unified else cells
    found: dict[str, Any] = {
        "max_model_len": each,
        "max_num_seqs": slots,
        "max_num_batched_tokens": _whole(said.get("n_batch")),
        "ubatch_size": _whole(said.get("n_ubatch")),
        "kv_unified": unified,
        "flash_attn": {"1": True, "enabled": True, "0": False, "disabled": False}.get(said.get("flash_attn", "")),
    }
    if reader.dtypes is not None:
        found["kv_cache_dtype"] = reader.dtypes[0] if reader.dtypes[0] == reader.dtypes[1] else None
    if reader.offloaded is not None:
        found["n_gpu_layers"] = -1 if reader.offloaded[0] == reader.offloaded[1] else reader.offloaded[0]
    return {name: value for name, value in found.items() if value is not None}


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
