"""What a model runs on. A CPU host is an accelerator too."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from servolt.document import Document

__all__ = ["Accelerator"]


class Accelerator(Document):
    """One device, or one CPU host. What is not known is None."""

    schema_: Literal["servolt.accelerator/1"] = Field("servolt.accelerator/1", alias="schema")
    name: str
    kind: Literal["cpu", "gpu"]
    count: int = Field(1, ge=1, description="devices; for a CPU host the physical cores that may be used")
    memory_bytes: int = Field(ge=0, description="installed, or the container's limit")
    available_bytes: int | None = Field(None, ge=0, description="free for a new process now")
    bandwidth_bytes_per_s: float | None = Field(None, gt=0, description="memory read rate at all used cores")
    flops_per_s: Mapping[str, float] = Field(default_factory=dict, description="dense FLOP/s for each data type")
    source: str = Field(description="where the figures come from, with the date")
