"""A compose file."""

from typing import Any, ClassVar

from servolt.command import Command
from servolt.launchers.docker import split_entrypoint
from servolt.launchers.manifest import (
    CACHE,
    INSIDE,
    Manifest,
    devices,
    image,
    inside,
    is_local,
    kubernetes_name,
    one_machine,
    refusal,
    secrets,
    start_limit_s,
    yaml_text,
)

__all__ = ["Compose"]


class Compose(Manifest):
    name = "compose"
    started_by: ClassVar[str] = "start it with `docker compose -f FILE up`"

    def body(self, command: Command) -> str:
        one_machine(command, self.name)
        found = image(command, self.name)
        entrypoint, words = split_entrypoint(inside(command), found.starts)
        service: dict[str, Any] = {"image": found.name}
        if entrypoint:
            service["entrypoint"] = [_said(entrypoint)]
        service |= {
            "command": [_said(word) for word in words],
            "ipc": "host",
            "ports": [f"127.0.0.1:{command.port}:{command.port}"],
            "volumes": [_volume(command)],
            "environment": [*secrets(command), *(_said(f"{name}={value}") for name, value in sorted(_env(command)))],
            "restart": "unless-stopped",
            "healthcheck": {
                "test": ["CMD", "curl", "-f", f"http://127.0.0.1:{command.port}{command.ready_path}"],
                "interval": "10s",
                "timeout": "5s",
                "retries": 3,
                "start_period": f"{start_limit_s(command)}s",
            },
            **_devices(command),
        }
        if command.ulimits:
            service["ulimits"] = dict(command.ulimits)
        document: dict[str, Any] = {"services": {kubernetes_name(command): service}}
        if command.files:
            named = {_config(name): name for name in command.files}
            service["configs"] = [{"source": key, "target": f"{INSIDE}/{name}"} for key, name in named.items()]
            document["configs"] = {key: {"content": _said(command.files[name])} for key, name in named.items()}
        return yaml_text(document)


def _said(text: str) -> str:
    """A dollar sign would be read as a variable."""
    return text.replace("$", "$$")


def _config(name: str) -> str:
    return name.replace(".", "_")


def _env(command: Command) -> list[tuple[str, str]]:
    taken = devices(command, "compose")
    numbers = ",".join(map(str, range(taken.count)))
    own = {"amd": [("HIP_VISIBLE_DEVICES", numbers)], "intel": [("ZE_AFFINITY_MASK", numbers)]}
    return [*command.env.items(), *own.get(taken.vendor or "", [])]


def _volume(command: Command) -> str:
    if is_local(command):
        return f"{command.model}:{command.model}:ro"
    return f"${{HOME}}/.cache/huggingface:{CACHE}"


def _devices(command: Command) -> dict[str, Any]:
    taken = devices(command, "compose")
    if taken.vendor == "cpu":
        return {}
    if taken.vendor == "nvidia":
        wanted = {"driver": "nvidia", "device_ids": [str(one) for one in range(taken.count)], "capabilities": ["gpu"]}
        return {"deploy": {"resources": {"reservations": {"devices": [wanted]}}}}
    if taken.vendor == "amd":
        return {
            "devices": ["/dev/kfd:/dev/kfd", "/dev/dri:/dev/dri"],
            "group_add": ["video"],
            "security_opt": ["seccomp=unconfined"],
        }
    if taken.vendor == "intel":
        return {"devices": ["/dev/dri:/dev/dri"]}
    raise refusal("compose", f"devices of {taken.vendor}", "Export shell, and run it on the machine itself.")
