"""transformers: `transformers serve` with continuous batching, the reference that reads every new model first."""

from collections.abc import Mapping, Sequence

from servolt.command import Command
from servolt.deployment import Deployment
from servolt.document import Problem
from servolt.engines.flags import Known
from servolt.engines.folder_models import check_model, devices_of, told_model
from servolt.engines.options import Options, Special, fill
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.model.quantization import words_of

__all__ = ["Transformers"]

# Not measured: torch and the server in one process.
PROCESS_BYTES = 900_000_000

SIMPLE = {
    "max_num_batched_tokens": ("--cb-max-batch-tokens",),
    "dtype": ("--dtype",),
    "free_gpu_memory_fraction": ("--cb-max-memory-percent",),
    "block_size": ("--cb-block-size",),
    "trust_remote_code": ("--trust-remote-code",),
}

ON_LOAD = {"nf4": "bnb-4bit", "int8": "bnb-8bit"}


class Transformers:
    """Folders of safetensors and models on the Hub."""

    name = "transformers"

    @property
    def version(self) -> str | None:
        """It is never part of this environment."""
        return None

    def command(self, deployment: Deployment, model: Model) -> Command:
        """Raises InvalidInputError for a setting that this version can't have."""
        options = _options(deployment, model)
        options.checked()
        told = told_model(deployment, model)
        words = ["serve", told, "--host", "127.0.0.1", "--port", "{port}", *options.argv()]
        return Command(
            argv=(deployment.engine_executable or "transformers", *words),
            env=options.env,
            engine=self.name,
            deployment_digest=deployment.digest,
            engine_version=options.known.version,
            model=told,
            options=options.named(),
            image_argv=("transformers", *words),
            devices=devices_of(deployment, 1),
        )

    def overhead(self, deployment: Deployment, model: Model) -> int:
        return PROCESS_BYTES

    def readings(self, metrics_text: str) -> Mapping[str, float]:
        """It has no page of metrics."""
        return {}

    def problems(self, deployment: Deployment, model: Model, accelerators: Sequence[Accelerator]) -> list[Problem]:
        options = _options(deployment, model)
        options.note(
            "ignored_requests",
            "transformers serve answers 200 to response_format, tool_choice, logprobs and n, and does none of them.",
            "Take vllm or llamacpp where requests need them.",
        )
        options.note(
            "no_key",
            "transformers serve asks nobody for a key.",
            "Let the gateway ask for keys, and keep the engine's port to this machine.",
        )
        return options.problems


def _options(deployment: Deployment, model: Model) -> Options:
    options = Options("transformers serve", Known("transformers", deployment.engine_version))
    check_model(options, deployment, model)
    options.put("batching", True, "--continuous-batching")
    fill(options, deployment, SIMPLE, SPECIAL)
    return options


def _quantization(options: Options, value: str, deployment: Deployment) -> None:
    form = words_of(value) or ""
    if form in ("float16", "bfloat16", "float32"):
        if deployment.dtype is None:
            options.put("quantization", form, "--dtype")
    elif form != words_of(deployment.model.rpartition("/")[2]):
        method = value if value in ON_LOAD.values() else ON_LOAD.get(form)
        if method is not None:
            options.put("quantization", method, "--quantization")
        else:
            options.warn(
                "checkpoint_quantization",
                f"transformers serve makes 4- and 8-bit weights by bitsandbytes; {value} has to be in the checkpoint.",
                f"Name a checkpoint of {deployment.model} that is in {value} already.",
            )


def _eager(options: Options, value: bool, deployment: Deployment) -> None:
    options.put("enforce_eager", not value, "--cb-use-cuda-graph")


def _threads(options: Options, value: int, deployment: Deployment) -> None:
    options.env["OMP_NUM_THREADS"] = str(value)


SPECIAL: Mapping[str, Special] = {
    "quantization": _quantization,
    "enforce_eager": _eager,
    "threads": _threads,
}
