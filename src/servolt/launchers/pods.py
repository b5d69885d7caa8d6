"""What Kubernetes' launchers have in common: the pod in which a command runs."""

import math
from collections.abc import Sequence
from typing import Any

from servolt.command import Command
from servolt.launchers.manifest import (
    CACHE,
    HUB_TOKEN,
    INSIDE,
    devices,
    image,
    inside,
    is_local,
    kubernetes_name,
    refusal,
    secrets,
    start_limit_s,
)

__all__ = [
    "HUB_SECRET",
    "LABEL",
    "PERIOD_S",
    "SHARED_MEMORY",
    "config_map",
    "environment",
    "limits",
    "literal",
    "pod",
    "probes",
    "service",
]

LABEL = "app.kubernetes.io/name"
PERIOD_S = 10  # between two looks of a probe
# How device plug-ins call one device: NVIDIA's, AMD's, Intel's for its xe driver.
RESOURCES = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu", "intel": "gpu.intel.com/xe"}
# Memory that ranks share; NCCL and the engines' queues stay well below.
SHARED_MEMORY = "16Gi"
HUB_SECRET = "hf-token"


def pod(command: Command, target: str, *, added: Sequence[str] = (), serves: bool = True) -> dict[str, Any]:
    """`added` to argv; a pod that serves has a port and probes."""
    words = [*map(literal, inside(command)), *added]
    container: dict[str, Any] = {
        "name": command.engine.replace("_", "-"),
        "image": image(command, target).name,
        "command": words[:1],
        "args": words[1:],
        "env": environment(command),
        "resources": {"limits": limits(command, target)},
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}, _model_mount(command)],
    }
    volumes = [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": SHARED_MEMORY}}, _model_volume(command)]
    if serves:
        container |= {"ports": [{"name": "http", "containerPort": command.port}], **probes(command)}
    if command.files:
        container["volumeMounts"].append({"name": "files", "mountPath": INSIDE, "readOnly": True})
        volumes.append({"name": "files", "configMap": {"name": kubernetes_name(command)}})
    if not container["resources"]["limits"]:
        del container["resources"]
    return {"containers": [container], "volumes": volumes}


def literal(word: str) -> str:
    """As Kubernetes hands it on: `$(NAME)` would be replaced by a variable."""
    return word.replace("$(", "$$(")


def environment(command: Command) -> list[dict[str, Any]]:
    """Secrets by reference. Each may be absent, since models that are open need none."""
    found: list[dict[str, Any]] = []
    for name in secrets(command):
        key = {"name": HUB_SECRET, "key": "token"} if name == HUB_TOKEN else _own_secret(command)
        found.append({"name": name, "valueFrom": {"secretKeyRef": {**key, "optional": True}}})
    return found + [{"name": name, "value": literal(value)} for name, value in sorted(command.env.items())]


def limits(command: Command, target: str) -> dict[str, str]:
    """Devices of one machine."""
    taken = devices(command, target)
    if taken.vendor == "cpu":
        return {}
    resource = RESOURCES.get(taken.vendor or "")
    if resource is None:
        raise refusal(target, f"devices of {taken.vendor}", "Export shell, and run it on the machine itself.")
    return {resource: str(taken.per_machine)}


def probes(command: Command) -> dict[str, Any]:
    """Started: at most twice the time that loading is meant to take. Then ready or not, and alive or not."""
    asked = {"httpGet": {"path": command.ready_path, "port": "http"}, "periodSeconds": PERIOD_S}
    tries = math.ceil(start_limit_s(command) / PERIOD_S)
    return {
        "startupProbe": {**asked, "failureThreshold": tries},
        "readinessProbe": {**asked, "timeoutSeconds": 5, "failureThreshold": 3},
        "livenessProbe": {**asked, "timeoutSeconds": 30, "failureThreshold": 6},
    }


def service(command: Command, selector: dict[str, str]) -> dict[str, Any]:
    name = kubernetes_name(command)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": {LABEL: name}},
        "spec": {"selector": selector, "ports": [{"name": "http", "port": command.port, "targetPort": "http"}]},
    }


def config_map(command: Command) -> list[dict[str, Any]]:
    if not command.files:
        return []
    name = kubernetes_name(command)
    return [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": dict(command.files)}]


def _own_secret(command: Command) -> dict[str, str]:
    return {"name": f"{kubernetes_name(command)}-api-key", "key": "key"}


def _model_mount(command: Command) -> dict[str, Any]:
    if is_local(command):
        return {"name": "model", "mountPath": command.model, "readOnly": True}
    return {"name": "model", "mountPath": CACHE}


def _model_volume(command: Command) -> dict[str, Any]:
    """A folder of the machine: what one pod has fetched, the next one finds there."""
    path = command.model if command.model is not None and is_local(command) else "/var/cache/huggingface"
    kind = "DirectoryOrCreate" if path != command.model else "File" if path.endswith(".gguf") else "Directory"
    return {"name": "model", "hostPath": {"path": path, "type": kind}}
