"""`docker run`, and podman's, which takes the same."""

import shlex
from typing import ClassVar

from servolt.command import Command
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
)
from servolt.launchers.shell import here_document

__all__ = ["Docker", "split_entrypoint"]


class Docker(Manifest):
    name = "docker"
    started_by: ClassVar[str] = "run it in a shell"

    def body(self, command: Command) -> str:
        one_machine(command, self.name)
        found = image(command, self.name)
        entrypoint, words = split_entrypoint(inside(command), found.starts)
        lines = [
            "docker run --rm",
            f"--name {kubernetes_name(command)}",
            *_devices(command),
            *(f"--ulimit {name}={value}" for name, value in command.ulimits.items()),
            # On this machine only: not every engine asks for a key.
            f"--publish 127.0.0.1:{command.port}:{command.port}",
            *_volumes(command),
            *(f"--env {name}" for name in secrets(command)),
            *(f"--env {shlex.quote(f'{name}={value}')}" for name, value in sorted(command.env.items())),
            *([f"--entrypoint {shlex.quote(entrypoint)}"] if entrypoint else []),
            " ".join([shlex.quote(found.name), *map(shlex.quote, words)]),
        ]
        files = [here_document(name, text) for name, text in command.files.items()]
        return "\n".join([*files, " \\\n  ".join(lines)])


def split_entrypoint(words: list[str], starts: tuple[str, ...]) -> tuple[str | None, list[str]]:
    """What the image starts by itself is left out; any other program replaces it."""
    if starts and tuple(words[: len(starts)]) == starts:
        return None, words[len(starts) :]
    return words[0], words[1:]


def _devices(command: Command) -> list[str]:
    """Ranks share memory with one another, which Docker gives 64 MB of: hence the host's."""
    taken = devices(command, "docker")
    numbers = ",".join(map(str, range(taken.count)))
    if taken.vendor == "cpu":
        return ["--ipc host"]
    if taken.vendor == "nvidia":
        return [f"--gpus {shlex.quote(f'{chr(34)}device={numbers}{chr(34)}')}", "--ipc host"]
    if taken.vendor == "amd":
        return [
            "--device /dev/kfd --device /dev/dri --group-add video --security-opt seccomp=unconfined",
            f"--env HIP_VISIBLE_DEVICES={numbers}",
            "--ipc host",
        ]
    if taken.vendor == "intel":
        return ["--device /dev/dri", f"--env ZE_AFFINITY_MASK={numbers}", "--ipc host"]
    raise refusal("docker", f"devices of {taken.vendor}", "Export shell, and run it on the machine itself.")


def _volumes(command: Command) -> list[str]:
    found = [f'--volume "$PWD"/{shlex.quote(f"{name}:{INSIDE}/{name}:ro")}' for name in command.files]
    if is_local(command):
        return [*found, f"--volume {shlex.quote(f'{command.model}:{command.model}:ro')}"]
    return [*found, f'--volume "$HOME/.cache/huggingface":{CACHE}']
