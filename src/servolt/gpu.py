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
    vendor: str | None = None
    architecture: str | None = Field(None, description="the vendor's name for it: Hopper, CDNA3, M2 ...")
    compute_capability: str | None = Field(None, description="NVIDIA's, such as 9.0; AMD's gfx name")
    memory_bytes: int = Field(ge=0, description="installed, or the container's limit")
    visible_memory_bytes: int | None = Field(None, ge=0, description="of one device, as its driver shows it to engines")
    unified_memory: bool = Field(False, description="shared with the processor")
    available_bytes: int | None = Field(None, ge=0, description="free for a new process now")
    bandwidth_bytes_per_s: float | None = Field(None, gt=0, description="memory read rate at all used cores")
    flops_per_s: Mapping[str, float] = Field(
        default_factory=dict,
        description="dense FLOP/s for each data type: float32, tf32, float16, bfloat16, fp8, int8, fp4",
    )
    tdp_w: float | None = Field(None, gt=0, description="board power limit of one device")
    idle_w: float | None = Field(None, ge=0, description="of one device without a process")
    link: str | None = Field(None, description="between devices of one machine: NVLink4, XGMI, PCIe ...")
    link_bytes_per_s: float | None = Field(None, gt=0, description="of one device in one direction, all links together")
    host_link_bytes_per_s: float | None = Field(None, gt=0, description="between device and host, one direction")
    aliases: tuple[str, ...] = Field((), description="as drivers, logs and vendors write the name")
    source: str = Field(description="where the figures come from, with the date")
