"""The facts of one run, as they stand in `run.json` beside the raw tables."""

from collections.abc import Mapping
from pathlib import PurePath, PureWindowsPath
from typing import Any, Literal

from pydantic import Field, field_validator

from servolt.deployment import Deployment
from servolt.document import Document
from servolt.gpu import Accelerator
from servolt.measure.energy import IdlePower
from servolt.measurement import Host, Prediction, Window
from servolt.model import Model
from servolt.workload import Slo, Workload

__all__ = ["RawRun"]


class RawRun(Document):
    """One deployment under one workload, before anything is computed: the measurement's facts beside its tables."""

    schema_: Literal["servolt.run/1"] = Field("servolt.run/1", alias="schema")
    tool_version: str
    created: str = Field(description="UTC, RFC 3339")
    study: str | None = None
    deployment: Deployment
    deployment_digest: str | None = Field(
        None, description="with the folders that are left out here; None if none were"
    )
    command: tuple[str, ...] | None = Field(None, description="what was started; None for a server of others")
    effective: Mapping[str, Any] = Field(default_factory=dict)
    engine: str | None
    engine_version: str | None
    model: Model | None
    accelerators: tuple[Accelerator, ...] = ()
    host: Host
    workload: Workload
    slo: Slo | None = None
    windows: tuple[Window, ...]
    load_time_s: float | None = None
    meter: Mapping[str, Any] | None = Field(None, description="name and sensor facts, None without a meter")
    meter_note: str = Field(description="what reads energy, or why nothing does")
    idle_empty: IdlePower | None = Field(None, description="before the engine was started")
    idle_loaded: IdlePower | None = Field(None, description="model loaded, no request")
    prediction: Prediction | None = None

    @property
    def devices(self) -> frozenset[str]:
        """Whose joules were read in any window."""
        return frozenset(device for window in self.windows for device in window.joules or ())

    @field_validator("deployment")
    @classmethod
    def _without_places(cls, deployment: Deployment) -> Deployment:
        """What is on disk is what is shared: files are named, folders of this machine are not."""
        named = _without_absolute_paths(deployment.model_dump(exclude_none=True))
        named["model"] = _file_name(deployment.model)
        if deployment.engine_executable is not None:
            named["engine_executable"] = _file_name(deployment.engine_executable)
        return Deployment.model_validate(named)

    @field_validator("model")
    @classmethod
    def _without_folders(cls, model: Model | None) -> Model | None:
        """A measurement is shared as it is on disk, so it names files and not this machine's folders."""
        if model is None:
            return None
        return model.model_copy(update={"files": tuple(PurePath(file).name for file in model.files)})

    @field_validator("command")
    @classmethod
    def _bare(cls, command: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if command is None:
            return None
        return tuple(PurePath(part).name if PurePath(part).is_absolute() else part for part in command)


def _file_name(model: str) -> str:
    """Of a path, with either separator. A name has none and stays."""
    return PureWindowsPath(model).name if "/" in model or "\\" in model else model


def _without_absolute_paths(value: Any) -> Any:
    """Of any option, however deep: a draft model, a chat template that an engine is handed."""
    if isinstance(value, Mapping):
        return {key: _without_absolute_paths(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_absolute_paths(part) for part in value]
    if isinstance(value, str) and (value.startswith(("/", "~")) or PureWindowsPath(value).is_absolute()):
        return PureWindowsPath(value).name
    return value
