"""llama.cpp: our runner over xllamacpp, or a llama-server that the user names. One set of flags for both."""

import re
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

from servolt.command import Command, Image
from servolt.deployment import Deployment
from servolt.document import Problem
from servolt.engines.llamacpp_devices import PROGRAM, device_flags, device_problems, is_elsewhere
from servolt.errors import ModelFileError
from servolt.gpu import Accelerator
from servolt.model import Model

__all__ = ["KV_CACHE_DTYPES", "LlamaCpp", "max_model_len", "max_num_seqs"]

# llama-server's list for -ctk and -ctv; bytes are the model's business, not ours.
KV_CACHE_DTYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")

# The two executables differ in their own defaults (1 slot against 4; the model's whole context), and the context
# decides how much memory is taken, so both are always said. 4 slots are llama-server's, 4,096 tokens are Ollama's.
DEFAULT_MAX_NUM_SEQS = 4
DEFAULT_MAX_MODEL_LEN = 4096

# The context of one slot is rounded up to this many tokens (llama.cpp pads the cells of the KV cache).
CONTEXT_STEP = 256

# LLAMA_MAX_SEQ of the build that is installed (xllamacpp 2026.10.11549): with one more it ends at its start.
MOST_SEQUENCES = 256
# The engine keeps the cells of all slots together as a 32-bit number.
MOST_CELLS = 2**31 - 1

# Resident memory of the runner beside weights, KV cache and compute buffers, from its RSS and the buffers it logs
# (xllamacpp 2026.10.11549, CPython 3.11, x86-64 Linux): 36 MB when quiet, 40 MB after long prompts in every slot, and
# the tokenizer's tables on top, from vocabularies of 2,000 to 150,000 tokens.
RUNNER_BYTES = 38_000_000
TOKENIZER_BYTES_PER_TOKEN = 450
# Each slot, and its sampler's list of candidates, 12 bytes for each token: from 1 to 16 slots and vocabularies of 512
# to 60,000 tokens.
SLOT_BYTES = 150_000
CANDIDATE_BYTES = 12

# The project's own images, and what they start.
INSIDE = ("/app/llama-server",)
REPOSITORY = "ghcr.io/ggml-org/llama.cpp"
IMAGES = {
    vendor: Image(name=f"{REPOSITORY}:{tag}", starts=INSIDE)
    for vendor, tag in (("cpu", "server"), ("nvidia", "server-cuda"), ("amd", "server-rocm"), ("intel", "server-intel"))
}

# llama.cpp's counters and gauges under our names.
READINGS = {
    "prompt_tokens_total": "prompt_tokens",
    "prompt_tokens_cached_total": "cached_prompt_tokens",
    "prompt_seconds_total": "prefill_s",
    "tokens_predicted_total": "output_tokens",
    "tokens_predicted_seconds_total": "decode_s",
    "n_decode_total": "decode_calls",
    "requests_processing": "requests_running",
    "requests_deferred": "requests_waiting",
}


class LlamaCpp:
    """GGUF files on the processor."""

    name = "llamacpp"

    @property
    def version(self) -> str | None:
        try:
            return version("xllamacpp")
        except PackageNotFoundError:
            return None

    def command(self, deployment: Deployment, model: Model) -> Command:
        """Raises ModelFileError for a model that is no single GGUF file."""
        if model.format != "gguf" or len(model.files) != 1:
            raise ModelFileError(f"{model.name} is no GGUF file.", "llama.cpp runs GGUF files only.")
        external = deployment.engine_executable or (PROGRAM if is_elsewhere(deployment) else None)
        start = (sys.executable, "-m", "servolt.engines.llamacpp_runner") if external is None else (external,)
        flags = _flags(deployment, model)
        return Command(
            argv=(*start, *flags),
            model=model.files[0],
            images=IMAGES,
            image_argv=(*INSIDE, *flags),
            metrics_path="/metrics",
            engine=self.name,
            deployment_digest=deployment.digest,
            api_key_variable="LLAMA_API_KEY",
            announces=external is None,
        )

    def overhead(self, deployment: Deployment, model: Model) -> int:
        slots = max_num_seqs(deployment) * (SLOT_BYTES + CANDIDATE_BYTES * model.vocab_size)
        return RUNNER_BYTES + TOKENIZER_BYTES_PER_TOKEN * model.vocab_size + slots

    def readings(self, metrics_text: str) -> Mapping[str, float]:
        samples = re.findall(r"^llamacpp:(\w+) ([-+.0-9eE]+)$", metrics_text, re.MULTILINE)
        return {READINGS[name]: float(value) for name, value in samples if name in READINGS}

    def problems(self, deployment: Deployment, model: Model, accelerators: Sequence[Accelerator]) -> list[Problem]:
        found = [_not_gguf(model), _not_installed(deployment, self.version), _unknown_kv_dtype(deployment)]
        found += [_too_many_sequences(deployment), _too_many_cells(deployment, model)]
        found += [_beyond_training(deployment, model), _padded(deployment, model)]
        found += [_too_many_threads(deployment, accelerators), _external_threads(deployment)]
        return [*(problem for problem in found if problem is not None), *device_problems(deployment)]


def max_num_seqs(deployment: Deployment) -> int:
    """Slots: sequences that run at the same time."""
    return deployment.max_num_seqs or DEFAULT_MAX_NUM_SEQS


def max_model_len(deployment: Deployment, model: Model) -> int:
    """Context of one slot, tokens, as asked; the engine rounds it up to a multiple of 256."""
    trained = model.max_position_embeddings or DEFAULT_MAX_MODEL_LEN
    return deployment.max_model_len or min(DEFAULT_MAX_MODEL_LEN, trained)


def _flags(deployment: Deployment, model: Model) -> list[str]:
    slots = max_num_seqs(deployment)
    context = max_model_len(deployment, model)
    flags = ["-m", model.files[0], "-a", _alias(deployment), "--host", "127.0.0.1", "--port", "{port}"]
    flags += ["-np", str(slots), "-c", str(context * slots)]
    # --fit would alter settings to fit the device; the host's prompt cache would take up to 8 GiB beside what is
    # planned; from level 3 on the log gets eight lines for each request.
    flags += ["--fit", "off", "--cache-ram", "0", "--metrics", "-lv", "2"]
    flags += device_flags(deployment)
    batch = deployment.max_num_batched_tokens
    if model.pooling:
        # An embedding model needs its whole input in one step.
        flags += ["--embedding", "--pooling", model.pooling]
        batch = batch or context
    if batch is not None:
        flags += ["-b", str(batch), "-ub", str(deployment.ubatch_size or batch)]
    elif deployment.ubatch_size is not None:
        flags += ["-ub", str(deployment.ubatch_size)]
    if deployment.kv_cache_dtype is not None:
        flags += ["-ctk", deployment.kv_cache_dtype, "-ctv", deployment.kv_cache_dtype]
    if deployment.enable_prefix_caching is False:
        flags += ["--no-cache-prompt"]
    if deployment.threads is not None:
        flags += ["-t", str(deployment.threads), "-tb", str(deployment.threads)]
    return flags


def _alias(deployment: Deployment) -> str:
    """What the engine calls the model in its answers: no folders, and nothing that reads as a flag or a second name."""
    called = deployment.served_model_name or deployment.label
    return called.rpartition("/")[2].replace(",", " ").lstrip("-") or "model"


def _not_gguf(model: Model) -> Problem | None:
    if model.format == "gguf":
        return None
    message = f"llama.cpp runs GGUF files, and {model.name} is {model.format}."
    return Problem(code="model_format", severity="error", message=message, remedy="Name a GGUF file or another engine.")


def _not_installed(deployment: Deployment, installed: str | None) -> Problem | None:
    if deployment.engine_executable is not None or installed is not None:
        return None
    message = "xllamacpp has no wheel for this system, so llama.cpp is not installed here."
    remedy = "Build llama-server and name it with --engine-executable."
    return Problem(code="engine_missing", severity="error", message=message, remedy=remedy)


def _unknown_kv_dtype(deployment: Deployment) -> Problem | None:
    if deployment.kv_cache_dtype in (None, *KV_CACHE_DTYPES):
        return None
    message = f"llama.cpp keeps no keys and values as {deployment.kv_cache_dtype}."
    remedy = f"Take one of {', '.join(KV_CACHE_DTYPES)}."
    return Problem(code="kv_cache_dtype", severity="error", message=message, remedy=remedy)


def _beyond_training(deployment: Deployment, model: Model) -> Problem | None:
    asked, trained = max_model_len(deployment, model), model.max_position_embeddings
    if not trained or asked <= trained:
        return None
    message = f"The context of {asked:,} tokens is longer than the {trained:,} the model was trained for."
    return Problem(
        code="context_beyond_training",
        severity="warning",
        message=message,
        remedy=f"Set max_model_len to {trained} or less, or expect answers that fall apart beyond it.",
    )


def _too_many_sequences(deployment: Deployment) -> Problem | None:
    """What a program of the user's own was built for is not known."""
    slots = max_num_seqs(deployment)
    if deployment.engine_executable is not None or slots <= MOST_SEQUENCES:
        return None
    message = f"llama.cpp runs at most {MOST_SEQUENCES} sequences at the same time, and {slots:,} are asked."
    remedy = f"Set max_num_seqs to {MOST_SEQUENCES} or less; further requests wait for their turn."
    return Problem(code="too_many_sequences", severity="error", message=message, remedy=remedy)


def _too_many_cells(deployment: Deployment, model: Model) -> Problem | None:
    slots, each = max_num_seqs(deployment), _cells(deployment, model)
    if slots * each <= MOST_CELLS:
        return None
    most = MOST_CELLS // slots // CONTEXT_STEP * CONTEXT_STEP
    message = (
        f"{slots:,} sequences of {each:,} tokens are {slots * each:,} cells of the KV cache, "
        f"and llama.cpp counts to {MOST_CELLS:,}."
    )
    remedy = f"Set max_model_len to {most} or less, or take fewer max_num_seqs."
    return Problem(code="too_many_cells", severity="error", message=message, remedy=remedy)


def _cells(deployment: Deployment, model: Model) -> int:
    """Of one sequence: its context, rounded up as the engine does."""
    return -(-max_model_len(deployment, model) // CONTEXT_STEP) * CONTEXT_STEP


def _padded(deployment: Deployment, model: Model) -> Problem | None:
    asked, given = max_model_len(deployment, model), _cells(deployment, model)
    if asked == given:
        return None
    message = f"llama.cpp gives each sequence {given:,} tokens of context where {asked:,} are asked."
    return Problem(
        code="context_rounded", severity="note", message=message, remedy=f"Ask for a multiple of {CONTEXT_STEP}."
    )


def _too_many_threads(deployment: Deployment, accelerators: Sequence[Accelerator]) -> Problem | None:
    cores = sum(accelerator.count for accelerator in accelerators if accelerator.kind == "cpu")
    if deployment.threads is None or not cores or deployment.threads < max(2, cores):
        return None
    message = (
        f"{deployment.threads} threads on {cores} cores: the threads wait for one another by spinning, "
        "and slow down many times as soon as anything else takes a core."
    )
    remedy = f"Set threads to {max(1, cores - 1)}, or leave it unset on a machine that does anything else."
    return Problem(code="threads_take_all_cores", severity="warning", message=message, remedy=remedy)


def _external_threads(deployment: Deployment) -> Problem | None:
    if deployment.engine_executable is None or deployment.threads is not None:
        return None
    message = "A llama-server of its own takes every core where no threads are set."
    remedy = "Set threads to the number of cores less one."
    return Problem(code="threads_unset", severity="warning", message=message, remedy=remedy)
