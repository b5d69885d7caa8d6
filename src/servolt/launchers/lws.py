"""A LeaderWorkerSet: one deployment over several machines, whose pods come and go together."""

from typing import Any, ClassVar

from servolt.command import Command
from servolt.launchers.manifest import Manifest, kubernetes_name, refusal, yaml_text
from servolt.launchers.pods import LABEL, config_map, pod, service
from servolt.launchers.shell import on_machine

__all__ = ["LeaderWorkerSet"]

# What the controller puts into each pod's environment, as Kubernetes writes variables in a command.
SIZE, INDEX, LEADER = "$(LWS_GROUP_SIZE)", "$(LWS_WORKER_INDEX)", "$(LWS_LEADER_ADDRESS)"


class LeaderWorkerSet(Manifest):
    name = "lws"
    started_by: ClassVar[str] = "apply it with `kubectl apply -f FILE`, where the LeaderWorkerSet controller runs"

    def body(self, command: Command) -> str:
        machines = command.devices.machines if command.devices else 1
        if machines > 1 and command.joining is None:
            raise refusal(
                self.name, f"{command.engine} on {machines} machines", "Plan for fewer devices, or another engine."
            )
        name = kubernetes_name(command)
        labels = {LABEL: name, "role": "leader"}
        template: dict[str, Any] = {
            "size": machines,
            "restartPolicy": "RecreateGroupOnPodRestart",
            "leaderTemplate": {"metadata": {"labels": labels}, "spec": self._pod(command, machines, first=True)},
            "workerTemplate": {
                "metadata": {"labels": {LABEL: name}},
                "spec": self._pod(command, machines, first=machines == 1),
            },
        }
        group = {
            "apiVersion": "leaderworkerset.x-k8s.io/v1",
            "kind": "LeaderWorkerSet",
            "metadata": {"name": name, "labels": {LABEL: name}},
            "spec": {"replicas": 1, "leaderWorkerTemplate": template},
        }
        selector = {"leaderworkerset.sigs.k8s.io/name": name, "role": "leader"}
        return yaml_text(*config_map(command), group, service(command, selector))

    def _pod(self, command: Command, machines: int, *, first: bool) -> dict[str, Any]:
        """On one machine there is nobody to join."""
        added = on_machine(command, SIZE, INDEX, LEADER, first=first) if machines > 1 else []
        return pod(command, self.name, added=added, serves=first)
