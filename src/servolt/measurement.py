"""What was measured: the frozen value that is kept, compared and shared, and the meter's seam."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from pydantic import ConfigDict, Field

from servolt.deployment import Deployment
from servolt.document import Document, Problem, Value
from servolt.gpu import Accelerator
from servolt.metrics import Estimate
from servolt.model import Model
from servolt.workload import Slo, Workload

__all__ = ["Host", "Measurement", "Meter", "MeterKind", "MeterScope", "Prediction", "SampleFile", "Validity", "Window"]

MeterScope = Literal["gpu", "module", "memory", "package", "dram", "soc", "host", "wall"]
MeterKind = Literal["counter", "integrated power", "model"]


class Meter(Protocol):
    """A counter of joules that only grows. A device it cannot read is absent, never 0."""

    name: str
    scope: MeterScope
    kind: MeterKind
    period_s: float
    gain_tolerance: float | None
    step_joules: float | None
    source: str

    def read(self) -> Mapping[str, float]:
        """Joules so far for each device that can be read."""
        ...

    def why_absent(self) -> str:
        """In words, for when `read` returns nothing."""
        ...


class Host(Value):
    """The machine, without names, addresses or serial numbers."""

    cpu: str | None
    architecture: str
    physical_cores: int | None
    usable_cores: int
    memory_bytes: int
    os: str
    kernel: str
    python: str
    virtualised: bool | None = None
    governor: str | None = None


class Window(Value):
    """One stretch of load at one level, [start_ns, end_ns) of the run's clock. Joules by device where a meter read."""

    index: int
    repetition: int
    block: int = Field(description="windows of different deployments with one block number were taken side by side")
    position: int = Field(description="which place in the block")
    concurrency: int | None = None
    request_rate: float | None = None
    start_ns: int
    end_ns: int
    engine_cpu_s: float | None = Field(None, description="processor seconds of the engine's process tree")
    client_cpu_s: float | None = Field(None, description="processor seconds of the load client")
    client_busiest_cpu_s: float | None = Field(None, description="of the load client's busiest process")
    foreign_cpu_s: float | None = Field(None, description="processor seconds of everything else on the usable cores")
    usable_cores: int | None = None
    resident_bytes: int | None = Field(None, description="largest resident memory of the engine's process tree")
    clock_step_ns: int | None = Field(None, description="change of wall clock less monotonic clock over the window")
    joules: Mapping[str, float] | None = None
    engine_counters: Mapping[str, float] = Field(
        default_factory=dict, description="growth of the engine's own counters"
    )
    metrics: Mapping[str, float] = Field(default_factory=dict, description="means over this window alone, by metric")


class SampleFile(Value):
    name: str
    sha256: str
    rows: int


class Prediction(Value):
    """What the planner said before the run."""

    tool_version: str
    basis: str
    items: tuple[Estimate, ...]


class Validity(Value):
    verdict: Literal["valid", "degraded", "invalid"]
    flags: tuple[Problem, ...] = ()
    evidence: Mapping[str, float] = Field(
        default_factory=dict,
        description="figures of the worst window by which it was judged, flag or no flag: seconds (_s) and shares",
    )


class Measurement(Document):
    """One deployment under one workload. Everything in it follows from the raw files that it names."""

    model_config = ConfigDict(extra="allow")

    schema_: Literal["servolt.measurement/1"] = Field("servolt.measurement/1", alias="schema")
    id: str = Field(description="sha256 of the canonical content without this field")
    tool_version: str
    created: str = Field(description="UTC, RFC 3339; the one wall-clock time in it")
    study: str | None = Field(None, description="measurements taken together, block by block, share this")
    deployment: Deployment = Field(description="what was asked")
    deployment_digest: str
    command: tuple[str, ...] | None = Field(
        None, description="what was started, without folders; None for a server of others"
    )
    effective: Mapping[str, Any] = Field(default_factory=dict, description="what the engine says it uses")
    engine: str | None
    engine_version: str | None
    model: Model | None
    accelerators: tuple[Accelerator, ...] = ()
    host: Host
    workload: Workload
    workload_digest: str
    slo: Slo | None = None
    windows: tuple[Window, ...]
    load_time_s: float | None = None
    samples: tuple[SampleFile, ...]
    meter: Mapping[str, Any] | None = Field(None, description="name and sensor facts of the meter, None without one")
    results: tuple[Estimate, ...]
    validity: Validity
    prediction: Prediction | None = None
