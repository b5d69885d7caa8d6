"""Values for the chart of vLLM's production stack."""

import math
from typing import Any, ClassVar

from servolt.command import Command
from servolt.launchers.manifest import (
    Manifest,
    devices,
    image,
    is_local,
    kubernetes_name,
    one_machine,
    only,
    refusal,
    start_limit_s,
    yaml_text,
)
from servolt.launchers.pods import HUB_SECRET, PERIOD_S, SHARED_MEMORY

__all__ = ["ProductionStack"]

# What the chart has fields for; all else goes through extraArgs.
FIELDS = {
    "dtype": "dtype",
    "max-model-len": "maxModelLen",
    "max-num-seqs": "maxNumSeqs",
    "tensor-parallel-size": "tensorParallelSize",
    "gpu-memory-utilization": "gpuMemoryUtilization",
    "enable-prefix-caching": "enablePrefixCaching",
    "enable-chunked-prefill": "enableChunkedPrefill",
}
# Helm reads numbers as floating point, and writes those from a million on as 1e+06, which vLLM does not read.
MOST = 1_000_000
# For each device, beside its own memory. The chart asks for both; they are not planned.
CORES, MEMORY_GIB = 4, 32


class ProductionStack(Manifest):
    name = "production-stack"
    started_by: ClassVar[str] = "install it with `helm install NAME vllm/vllm-stack -f FILE`"

    def body(self, command: Command) -> str:
        only(command, self.name, "vllm")
        one_machine(command, self.name)
        taken = devices(command, self.name)
        if taken.vendor not in ("nvidia", "amd"):
            raise refusal(self.name, f"a start on {taken.vendor}", "Export kubernetes.")
        if is_local(command):
            raise refusal(self.name, f"the folder {command.model}", "Name a model on the Hub, or export kubernetes.")
        repository, _, tag = image(command, self.name).name.rpartition(":")
        model: dict[str, Any] = {
            "name": kubernetes_name(command),
            "repository": repository,
            "tag": tag,
            "modelURL": command.model,
            "replicaCount": 1,
            "requestCPU": CORES * taken.count,
            "requestMemory": f"{MEMORY_GIB * taken.count}Gi",
            "requestGPU": taken.count,
            "requestGPUType": f"{taken.vendor}.com/gpu",
            "shmSize": SHARED_MEMORY,
            "hf_token": {"secretName": HUB_SECRET, "secretKey": "token"},
            **(
                {"env": [{"name": key, "value": value} for key, value in sorted(command.env.items())]}
                if command.env
                else {}
            ),
            "vllmConfig": _config(command),
        }
        # The chart's reference can't be optional: without the secret no pod starts.
        need = f"# the secret {HUB_SECRET} with the Hub's token under the key token has to be there\n"
        engine = {
            "enableEngine": True,
            "startupProbe": _startup(command),
            # A second pod beside the first would wait for devices that the first one holds.
            "strategy": {"type": "Recreate"},
            "modelSpec": [model],
        }
        return need + yaml_text({"servingEngineSpec": engine})


def _startup(command: Command) -> dict[str, Any]:
    """The chart's own gives every model ten minutes."""
    return {
        "httpGet": {"path": command.ready_path, "port": 8000},  # the chart's port, whatever was planned
        "initialDelaySeconds": PERIOD_S,
        "periodSeconds": PERIOD_S,
        "failureThreshold": math.ceil(start_limit_s(command) / PERIOD_S),
    }


def _config(command: Command) -> dict[str, Any]:
    """Left out, prefix caching would be switched off by the chart, which vLLM has on."""
    config: dict[str, Any] = {"enablePrefixCaching": bool(command.options.get("enable-prefix-caching", True))}
    words = list(command.image_argv or command.argv)
    rest, extra = words[words.index("--port") + 2 :], []
    while rest:
        word = rest.pop(0)
        name, equals, _ = word.removeprefix("--").partition("=")
        name = name.removeprefix("no-")
        value = command.options.get(name)
        taken = [] if equals or isinstance(value, bool) or not rest or rest[0].startswith("--") else [rest.pop(0)]
        if name in FIELDS and not (isinstance(value, int) and value >= MOST):
            config[FIELDS[name]] = value
        else:
            extra += [word, *taken]
    return {**config, **({"extraArgs": extra} if extra else {})}
