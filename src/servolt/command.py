"""What is to be run, and the seams of those who make it and run it."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field

from servolt.deployment import Deployment
from servolt.document import Document, Problem, Value
from servolt.gpu import Accelerator
from servolt.model import Model

__all__ = ["Command", "Devices", "Engine", "Image", "Joining", "Launcher", "Server"]


class Devices(Value):
    """What a command takes of the machines it runs on."""

    name: str | None = Field(None, description="as the catalogue calls one of them")
    vendor: str | None = Field(None, description="nvidia, amd, intel ...; cpu where none is taken; None: not known")
    count: int = Field(1, ge=0, description="over all machines")
    machines: int = Field(1, ge=1)

    @property
    def per_machine(self) -> int:
        return -(-self.count // self.machines)


class Image(Value):
    """A container image that holds the engine."""

    name: str = Field(description="with its tag")
    starts: tuple[str, ...] = Field((), description="what it starts by itself; empty where it is to be told")


class Joining(Value):
    """What the parts on several machines are told. {machines}, {rank} and {leader} stand for what is known there."""

    every: tuple[str, ...]
    others: tuple[str, ...] = Field((), description="all but the first")


class Command(Document):
    """One process to start. The launcher picks the port: `{port}` stands in argv until then."""

    schema_: Literal["servolt.command/1"] = Field("servolt.command/1", alias="schema")
    argv: tuple[str, ...]
    env: Mapping[str, str] = Field(default_factory=dict, description="set beside the inherited environment; no secrets")
    host: str = "127.0.0.1"
    port: int | None = Field(None, ge=1, le=65535, description="None until the launcher has picked one")
    ready_path: str = Field("/health", description="answers 200 once the engine can answer")
    metrics_path: str | None = None
    api_key_variable: str | None = Field(None, description="environment variable in which the engine takes its key")
    announces: bool = Field(False, description="prints one line of JSON with its settings once it can answer")
    engine: str
    deployment_digest: str
    accelerators: tuple[str, ...] = ()
    engine_version: str | None = Field(None, description="whose options argv is written for")
    model: str | None = Field(None, description="as the engine is told: a Hub id, or an absolute path")
    served_model_name: str | None = None
    options: Mapping[str, Any] = Field(
        default_factory=dict, description="what argv sets, under the engine's names without dashes; not host and port"
    )
    files: Mapping[str, str] = Field(
        default_factory=dict, description="text of each small file that argv calls {files}/NAME"
    )
    images: Mapping[str, Image] = Field(default_factory=dict, description="by the vendor of the devices")
    image_argv: tuple[str, ...] = Field((), description="what to start in the image, where that is not argv")
    ulimits: Mapping[str, int] = Field(default_factory=dict, description="of the process, as a container sets them")
    devices: Devices | None = None
    joining: Joining | None = Field(None, description="None where the engine can't spread over machines by itself")
    load_s: float | None = Field(None, gt=0, description="predicted, from the start to the first answer")
    header: tuple[str, ...] = Field((), description="lines of comment for the head of an export")

    def at(self, port: int) -> "Command":
        """The same command on this port."""
        argv = tuple(part.replace("{port}", str(port)) for part in self.argv)
        inside = tuple(part.replace("{port}", str(port)) for part in self.image_argv)
        return self.model_copy(update={"argv": argv, "image_argv": inside, "port": port})

    def on(self, accelerator: Accelerator) -> "Command":
        """The same command, knowing whose devices these are."""
        vendor = "cpu" if accelerator.kind == "cpu" else (accelerator.vendor or "").lower() or None
        count = 0 if vendor == "cpu" else max(1, self.devices.count if self.devices else 1)
        machines = self.devices.machines if self.devices else 1
        found = Devices(name=accelerator.name, vendor=vendor, count=count, machines=machines)
        return self.model_copy(update={"devices": found})

    def with_files_in(self, folder: str) -> "Command":
        """The same command, once its files lie in this folder."""
        argv = tuple(part.replace("{files}", folder) for part in self.argv)
        return self.model_copy(update={"argv": argv})

    def shell(self) -> str:
        """One line for a POSIX shell, every value quoted."""
        env = [f"{name}={shlex.quote(value)}" for name, value in sorted(self.env.items())]
        return " ".join([*env, *(shlex.quote(part) for part in self.argv)])


class Engine(Protocol):
    """Pure: says what is to be run, never imports the engine, never starts it."""

    name: str

    @property
    def version(self) -> str | None:
        """The installed engine's version, None where it is not installed or not known."""
        ...

    def command(self, deployment: Deployment, model: Model) -> Command: ...

    def overhead(self, deployment: Deployment, model: Model) -> int:
        """Bytes of the engine's process beside weights, KV cache and compute buffers."""
        ...

    def readings(self, metrics_text: str) -> Mapping[str, float]:
        """Counters and gauges of the engine's metrics page under our names; absent ones are left out."""
        ...

    def problems(self, deployment: Deployment, model: Model, accelerators: Sequence[Accelerator]) -> list[Problem]: ...


class Server(Protocol):
    """One running command. Whoever started it stops it."""

    command: Command
    log_path: Path | None

    @property
    def pid(self) -> int | None: ...

    @property
    def url(self) -> str: ...

    def exit_code(self) -> int | None:
        """None while it runs; negative signal number when a signal ended it."""
        ...

    async def wait(self) -> int:
        """Returns its exit code as soon as it has ended."""
        ...

    async def stop(self, grace_s: float) -> None:
        """SIGTERM to the process group, SIGKILL after `grace_s`. Returns when no process of the group is left."""
        ...


class Launcher(Protocol):
    name: Literal["process"] | str

    def render(self, command: Command) -> str:
        """The same start as text: for a shell, a manifest."""
        ...

    async def start(self, command: Command, *, secrets: Mapping[str, str], log_path: Path) -> Server:
        """Raises EngineError if nothing could be started. Ready is for the caller to find out."""
        ...
