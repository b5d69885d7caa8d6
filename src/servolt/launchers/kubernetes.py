"""A Deployment and a Service."""

from typing import Any, ClassVar

from servolt.command import Command
from servolt.launchers.manifest import Manifest, kubernetes_name, one_machine, yaml_text
from servolt.launchers.pods import LABEL, config_map, pod, service

__all__ = ["Kubernetes"]


class Kubernetes(Manifest):
    name = "kubernetes"
    started_by: ClassVar[str] = "apply it with `kubectl apply -f FILE`"

    def body(self, command: Command) -> str:
        one_machine(command, self.name)
        labels = {LABEL: kubernetes_name(command)}
        deployment: dict[str, Any] = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": kubernetes_name(command), "labels": labels},
            "spec": {
                "replicas": 1,
                # A second pod beside the first would wait for devices that the first one holds.
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod(command, self.name)},
            },
        }
        return yaml_text(*config_map(command), deployment, service(command, labels))
