"""A SkyPilot task, which `sky launch` starts once and `sky serve up` keeps running."""

import shlex
from typing import Any, ClassVar

from servolt.command import Command
from servolt.launchers.accelerators import skypilot_name
from servolt.launchers.manifest import (
    Manifest,
    devices,
    image,
    is_local,
    kubernetes_name,
    only,
    refusal,
    secrets,
    start_limit_s,
    yaml_text,
)
from servolt.launchers.shell import here_document, on_machine

__all__ = ["SkyPilot"]

# What pip calls the engines that it can install; the others bring an image.
PACKAGES = {"vllm": "vllm=={}", "sglang": "sglang[all]=={}", "transformers": "transformers[serving]=={}"}


class SkyPilot(Manifest):
    name = "skypilot"
    started_by: ClassVar[str] = "start it with `sky launch FILE` or `sky serve up FILE`"

    def body(self, command: Command) -> str:
        only(command, self.name, "vllm", "sglang", "transformers", "tensorrt_llm")
        if is_local(command):
            raise refusal(self.name, f"the folder {command.model}, which no cloud has", "Name a model on the Hub.")
        taken = devices(command, self.name)
        if taken.vendor == "cpu":
            raise refusal(self.name, "a plan for a processor", "Plan for an accelerator that a cloud has.")
        if taken.machines > 1 and command.joining is None:
            raise refusal(self.name, f"{command.engine} on {taken.machines} machines", "Plan for fewer devices.")
        package = PACKAGES.get(command.engine)
        task: dict[str, Any] = {
            "name": kubernetes_name(command),
            "resources": {
                "accelerators": {skypilot_name(command): taken.per_machine},
                "ports": command.port,
                **({} if package else {"image_id": f"docker:{image(command, self.name).name}"}),
            },
            "num_nodes": taken.machines,
            **({"envs": dict(sorted(command.env.items()))} if command.env else {}),
            # Given with --secret NAME, which takes the value from where sky is called.
            "secrets": dict.fromkeys(secrets(command)),
        }
        if package:
            task["setup"] = f"pip install {shlex.quote(package.format(command.engine_version))}\n"
        task["run"] = self._run(command, taken.machines)
        task["service"] = {
            "readiness_probe": {
                "path": command.ready_path,
                "initial_delay_seconds": start_limit_s(command),
            },
            "replicas": 1,
        }
        return yaml_text(task)

    def _run(self, command: Command, machines: int) -> str:
        files = [here_document(name, text) for name, text in command.files.items()]
        words = shlex.join(_open(command))
        if machines == 1:
            return "\n".join([*files, words]) + "\n"
        lines = [*files, 'LEADER="$(echo "$SKYPILOT_NODE_IPS" | head -n1)"', 'if [ "$SKYPILOT_NODE_RANK" = 0 ]; then']
        for first, then in ((True, "else"), (False, "fi")):
            added = on_machine(command, "$SKYPILOT_NUM_NODES", "$SKYPILOT_NODE_RANK", "$LEADER", first=first)
            lines += ["  " + " ".join([words, *(f'"{word}"' if "$" in word else word for word in added)]), then]
        return "\n".join(lines) + "\n"


def _open(command: Command) -> list[str]:
    """Open to the outside: the cloud's rules let nothing in but the port."""
    words = list(command.with_files_in(".").argv)
    return [
        "0.0.0.0" if word == command.host and words[place - 1] == "--host" else word for place, word in enumerate(words)
    ]
