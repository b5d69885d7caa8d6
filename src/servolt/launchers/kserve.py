"""KServe's LLMInferenceService, which starts vLLM by itself and adds the arguments it is given."""

import math
import shlex
from typing import Any, ClassVar

from servolt.command import Command
from servolt.launchers.manifest import (
    HUB_TOKEN,
    Manifest,
    is_local,
    kubernetes_name,
    name_of,
    only,
    refusal,
    start_limit_s,
    yaml_text,
)
from servolt.launchers.pods import PERIOD_S, environment, limits, literal

__all__ = ["KServe"]

# The controller passes these on itself, from other fields.
FIELDS = {"tensor-parallel-size", "served-model-name"}


class KServe(Manifest):
    """Its images are the cluster's: the version that was planned for stands in the head only."""

    name = "kserve"
    started_by: ClassVar[str] = "apply it with `kubectl apply -f FILE`, where KServe's LLMInferenceService is installed"

    def body(self, command: Command) -> str:
        only(command, self.name, "vllm")
        if is_local(command):
            raise refusal(
                self.name, f"the folder {command.model}", "Put the model on the Hub or into a volume, and name that."
            )
        if command.devices is not None and command.devices.machines > 1:
            raise refusal(self.name, f"a start on {command.devices.machines} machines", "Export lws.")
        tensor = int(command.options.get("tensor-parallel-size", 1))
        container: dict[str, Any] = {"name": "main", "env": self._environment(command)}
        # Whether it speaks TLS is the cluster's choice, and vLLM opens its port only when it is ready.
        tries = math.ceil(start_limit_s(command) / PERIOD_S)
        container["startupProbe"] = {
            "tcpSocket": {"port": 8000},
            "periodSeconds": PERIOD_S,
            "failureThreshold": tries,
        }
        limit = limits(command, self.name)
        if limit:
            container["resources"] = {"limits": limit, "requests": limit}
        document = {
            "apiVersion": "serving.kserve.io/v1alpha2",
            "kind": "LLMInferenceService",
            "metadata": {"name": kubernetes_name(command)},
            "spec": {
                "model": {"uri": f"hf://{command.model}", "name": command.served_model_name or name_of(command)},
                "replicas": 1,
                **({"parallelism": {"tensor": tensor}} if tensor > 1 else {}),
                "router": {"scheduler": {}, "route": {}, "gateway": {}},
                "template": {"containers": [container]},
            },
        }
        return yaml_text(document)

    def _environment(self, command: Command) -> list[dict[str, Any]]:
        """The controller's script evaluates the arguments as a shell does, hence the quotes."""
        told = literal(shlex.join(_arguments(command)))
        return [
            *(entry for entry in environment(command) if entry["name"] == HUB_TOKEN or "value" in entry),
            *([{"name": "VLLM_ADDITIONAL_ARGS", "value": told}] if told else []),
        ]


def _arguments(command: Command) -> list[str]:
    """argv after the model, without what stands in fields of its own."""
    words = list(command.image_argv or command.argv)
    rest = words[words.index("--port") + 2 :]
    kept: list[str] = []
    while rest:
        word = rest.pop(0)
        if word.removeprefix("--").partition("=")[0] in FIELDS:
            if "=" not in word:
                rest.pop(0)
        else:
            kept.append(word)
    return kept
