"""A fake engine whose speed and power are known exactly, since a stated law sets them. It answers nonsense in time."""

import re
import sys
from collections.abc import Mapping, Sequence

from servolt.command import Command
from servolt.deployment import Deployment
from servolt.document import Problem
from servolt.engines.replay_law import Law, read_law
from servolt.errors import InvalidInputError, ModelFileError
from servolt.gpu import Accelerator
from servolt.model import Model

__all__ = ["Replay"]

DEFAULT_MAX_NUM_SEQS = 8
DEFAULT_MAX_MODEL_LEN = 4096

# Resident memory of the fake's process after some requests: CPython 3.11 with uvicorn and orjson, x86-64 Linux.
OVERHEAD_BYTES = 29_000_000


class Replay:
    """Serves the model `replay`, or `replay?step_s=0.002&...` with the numbers of the law."""

    name = "replay"
    version = "1"  # of the law and the protocol

    def command(self, deployment: Deployment, model: Model) -> Command:
        """Raises ModelFileError for a model with weights, InvalidInputError for a law that is none."""
        if model.format != "replay":
            raise ModelFileError(f"The replay engine holds no weights and can't run {model.name}.", "Name replay.")
        law = _law(deployment)
        flags = ["-a", deployment.label, "--host", "127.0.0.1", "--port", "{port}"]
        flags += ["-np", str(deployment.max_num_seqs or DEFAULT_MAX_NUM_SEQS)]
        flags += ["-c", str(deployment.max_model_len or DEFAULT_MAX_MODEL_LEN)]
        flags += ["--no-cache-prompt"] if deployment.enable_prefix_caching is False else []
        for name, value in vars(law).items():
            flags += [f"--{name.replace('_', '-')}", f"{value:g}" if isinstance(value, float) else str(value)]
        return Command(
            argv=(sys.executable, "-m", "servolt.engines.replay_server", *flags),
            metrics_path="/metrics",
            engine=self.name,
            deployment_digest=deployment.digest,
            api_key_variable="REPLAY_API_KEY",
            announces=True,
        )

    def overhead(self, deployment: Deployment, model: Model) -> int:
        return OVERHEAD_BYTES

    def readings(self, metrics_text: str) -> Mapping[str, float]:
        samples = re.findall(r"^replay:(\w+) ([-+.0-9eE]+)$", metrics_text, re.MULTILINE)
        return {name.removesuffix("_total"): float(value) for name, value in samples}

    def problems(self, deployment: Deployment, model: Model, accelerators: Sequence[Accelerator]) -> list[Problem]:
        found = [
            Problem(
                code="fake_engine",
                severity="note",
                message="The replay engine runs no model: its speed and power are a stated law.",
                remedy="Take another engine to learn anything about this machine.",
            )
        ]
        unused = [name for name in ("kv_cache_dtype", "threads", "max_num_batched_tokens") if getattr(deployment, name)]
        if unused:
            message = f"The replay engine makes no use of {', '.join(unused)}."
            found.append(Problem(code="unused_setting", severity="warning", message=message, remedy="Leave it out."))
        if model.format != "replay":
            message = f"The replay engine holds no weights and can't run {model.name}."
            found.append(Problem(code="model_format", severity="error", message=message, remedy="Name replay."))
        return found


def _law(deployment: Deployment) -> Law:
    try:
        return read_law(deployment.model)
    except ValueError as error:
        raise InvalidInputError(f"{deployment.model}: {error}.", "Write replay?step_s=0.002 and the like.") from error
