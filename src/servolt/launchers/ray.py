"""Ray Serve LLM: its configuration file, and KubeRay's RayService around it."""

from typing import Any, ClassVar

from servolt.command import Command
from servolt.launchers.accelerators import ray_name
from servolt.launchers.manifest import HUB_TOKEN, Manifest, kubernetes_name, name_of, only, yaml_text
from servolt.launchers.pods import environment, limits

__all__ = ["RayServe", "RayService"]

# As KubeRay's own sample of a RayService for LLMs has them. The image has a vLLM of its own, and not the version that
# was planned for.
RAY = "2.52.0"
RAY_IMAGE = f"rayproject/ray-llm:{RAY}-py311-cu128"


class RayServe(Manifest):
    name = "ray-serve"
    started_by: ClassVar[str] = "start it with `serve run FILE` on a Ray cluster"

    def body(self, command: Command) -> str:
        return yaml_text(serve_config(command, self.name))


class RayService(Manifest):
    name = "rayservice"
    started_by: ClassVar[str] = "apply it with `kubectl apply -f FILE`, where KubeRay runs"

    def body(self, command: Command) -> str:
        config = serve_config(command, self.name)
        machines = command.devices.machines if command.devices else 1
        worker = {
            "groupName": "devices",
            "replicas": machines,
            "minReplicas": machines,
            "maxReplicas": machines,
            "rayStartParams": {},
            "template": {"spec": {"containers": [self._container(command, "worker", devices=True)]}},
        }
        head = {
            # Its devices, if it has any, are not for models.
            "rayStartParams": {"dashboard-host": "0.0.0.0", "num-gpus": "0"},
            "template": {"spec": {"containers": [self._container(command, "head", devices=False)]}},
        }
        document = {
            "apiVersion": "ray.io/v1",
            "kind": "RayService",
            "metadata": {"name": kubernetes_name(command)},
            "spec": {
                "serveConfigV2": yaml_text(config),
                "rayClusterConfig": {"rayVersion": RAY, "headGroupSpec": head, "workerGroupSpecs": [worker]},
            },
        }
        return yaml_text(document)

    def _container(self, command: Command, role: str, *, devices: bool) -> dict[str, Any]:
        hub = [entry for entry in environment(command) if entry["name"] == HUB_TOKEN]
        container: dict[str, Any] = {"name": f"ray-{role}", "image": RAY_IMAGE, "env": hub}
        if devices:
            container["resources"] = {"limits": limits(command, self.name)}
        else:
            container["ports"] = [
                {"name": "gcs", "containerPort": 6379},
                {"name": "dashboard", "containerPort": 8265},
                {"name": "serve", "containerPort": 8000},
            ]
        return container


def serve_config(command: Command, target: str) -> dict[str, Any]:
    only(command, target, "vllm")
    options = {name.replace("-", "_"): value for name, value in command.options.items() if name != "served-model-name"}
    sequences = options.get("max_num_seqs")
    deployment: dict[str, Any] = {"autoscaling_config": {"min_replicas": 1, "max_replicas": 1}}
    if sequences is not None:
        deployment["autoscaling_config"]["target_ongoing_requests"] = sequences
        deployment["max_ongoing_requests"] = sequences
    device = ray_name(command)
    config: dict[str, Any] = {
        "model_loading_config": {
            "model_id": command.served_model_name or name_of(command),
            "model_source": command.model,
        },
        **({"accelerator_type": device} if device else {}),
        "engine_kwargs": options,
        "deployment_config": deployment,
        **({"runtime_env": {"env_vars": dict(command.env)}} if command.env else {}),
    }
    application = {
        "name": kubernetes_name(command),
        "route_prefix": "/",
        "import_path": "ray.serve.llm:build_openai_app",
        "args": {"llm_configs": [config]},
    }
    return {"applications": [application]}
