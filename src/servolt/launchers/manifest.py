"""What the launchers that only write have in common: a command as text for somebody else to start."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml

from servolt import __version__
from servolt.command import Command, Devices, Image, Server
from servolt.errors import EngineError, InvalidInputError

__all__ = [
    "CACHE",
    "FETCH_S",
    "HUB_TOKEN",
    "INSIDE",
    "PORT",
    "Manifest",
    "devices",
    "image",
    "inside",
    "is_local",
    "kubernetes_name",
    "name_of",
    "one_machine",
    "only",
    "refusal",
    "secrets",
    "start_limit_s",
    "yaml_text",
]

PORT = 8000  # where a command has none: vLLM's own
INSIDE = "/etc/servolt"  # where a command's files lie in a container
CACHE = "/root/.cache/huggingface"  # the Hub's folder, in containers that run as root
HUB_TOKEN = "HF_TOKEN"  # its name; the value is never known here

# To fetch 140 GB (a 70B model at 16 bits) at 250 MB/s, from the Hub or a network disk.
FETCH_S = 560.0

# Characters with a meaning to a shell, to YAML or to a template. A model's name needs none of them.
UNSAFE = frozenset(";&|<>$`\\\"'*?!(){}[]#~%\n\r\t")


class Manifest:
    """Renders; nothing is started from here."""

    name: ClassVar[str]
    started_by: ClassVar[str]  # what people do with the text
    mark: ClassVar[str] = "#"  # of a comment

    def render(self, command: Command) -> str:
        """Raises InvalidInputError for what this form has no place for, and for names that are no plain names."""
        check_names(command)
        placed = command if command.port is not None else command.at(PORT)
        return "\n".join([*self._head(placed), self.body(placed).rstrip("\n")])

    def body(self, command: Command) -> str:
        raise NotImplementedError

    async def start(self, command: Command, *, secrets: Mapping[str, str], log_path: Path) -> Server:
        raise EngineError(
            f"{self.name} is text for others to start; servolt starts nothing from it.",
            f"Write it with --export {self.name}, and {self.started_by}.",
        )

    def _head(self, command: Command) -> list[str]:
        version = f" {command.engine_version}" if command.engine_version else ""
        lines = [f"servolt {__version__}: {command.engine}{version}, deployment {command.deployment_digest[:12]}"]
        return [f"{self.mark} {_printable(line)}".rstrip() for line in [*lines, *command.header]]


def check_names(command: Command) -> None:
    for name in (command.model, command.served_model_name):
        if name is None:
            continue
        found = sorted({character for character in name if character in UNSAFE or not character.isprintable()})
        if found or name.startswith("-"):
            why = f"holds {' '.join(map(repr, found))}" if found else "starts like an option"
            raise InvalidInputError(
                f"{name!r} {why}, which must not stand in a command that others run.",
                "Rename the model, or give it a plain served_model_name.",
            )


def refusal(target: str, what: str, remedy: str) -> InvalidInputError:
    return InvalidInputError(f"{target} can't hold {what}.", remedy)


def only(command: Command, target: str, *engines: str) -> None:
    if command.engine not in engines:
        raise refusal(
            target,
            f"a start of {command.engine}",
            f"It is for {' and '.join(engines)}: plan for one, or export another.",
        )


def devices(command: Command, target: str) -> Devices:
    """Raises InvalidInputError where it is not known whose devices the command takes."""
    found = command.devices
    if found is None or found.vendor is None:
        raise refusal(target, "devices of an unknown vendor", "Plan for a named accelerator: hardware.accelerator.")
    return found


def one_machine(command: Command, target: str) -> None:
    if command.devices is not None and command.devices.machines > 1:
        many = command.devices.machines
        raise refusal(target, f"a start on {many} machines", "Export lws, skypilot or shell, or plan for one machine.")


def image(command: Command, target: str) -> Image:
    vendor = devices(command, target).vendor or ""
    found = command.images.get(vendor)
    if found is None:
        raise refusal(
            target,
            f"{command.engine} on {vendor}: no image of its own is known",
            "Name one with --image, or export shell or systemd.",
        )
    return found


def inside(command: Command) -> list[str]:
    """argv in a container: it listens to all, since the container has an address of its own, and finds its files."""
    words = list(command.image_argv or command.argv)
    for place, word in enumerate(words[:-1]):
        if word == "--host" and words[place + 1] == command.host:
            words[place + 1] = "0.0.0.0"
    return [word.replace("{files}", INSIDE) for word in words]


def start_limit_s(command: Command) -> int:
    """After so long, a start has failed: twice the predicted time to load, and the time to fetch what is not there.

    Without a prediction, loading is taken to be as long as fetching.
    """
    fetching = 0.0 if is_local(command) else FETCH_S
    return math.ceil(2 * (command.load_s or FETCH_S) + fetching)


def is_local(command: Command) -> bool:
    return command.model is not None and command.model.startswith("/")


def secrets(command: Command) -> list[str]:
    """Names of the environment variables that hold secrets."""
    hub = [] if is_local(command) else [HUB_TOKEN]
    return [*hub, *([command.api_key_variable] if command.api_key_variable else [])]


def name_of(command: Command) -> str:
    """What people call the model: no folders."""
    told = command.served_model_name or str(command.options.get("alias") or command.model or command.engine)
    return told.rstrip("/").rpartition("/")[2] or command.engine


def kubernetes_name(command: Command, most: int = 40) -> str:
    """A DNS label, short enough for the endings that controllers add."""
    plain = re.sub(r"[^a-z0-9]+", "-", name_of(command).lower()).strip("-")[:most].strip("-")
    return plain if plain[:1].isalpha() else f"m-{plain}" if plain else "model"


class _Plain(yaml.SafeDumper):
    """For people to read: what is the same in two places is written twice, and lines of text stay lines."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Plain.add_representer(str, _Plain.represent_text)


def yaml_text(*documents: Any) -> str:
    return "---\n".join(
        yaml.dump(document, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=120) for document in documents
    )


def _printable(line: str) -> str:
    return "".join(character if character.isprintable() else " " for character in line)
