"""What a choice must keep, and by how much a configuration misses it."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from pydantic import Field

from servolt.document import Value
from servolt.workload import Slo

__all__ = ["Constraints", "Miss", "Objective", "fixed_misses", "misses_of"]

# What is made as good as can be: USD per million output tokens, seconds of a request, output tokens/s of a device, or J
# per output token.
Objective = Literal["cost", "latency", "throughput", "energy"]


class Constraints(Value):
    """None is no bound. The load to be served is the workload's."""

    slo: Slo | None = None
    usd_per_hour: float | None = Field(None, gt=0, description="of all devices")
    power_w: float | None = Field(None, gt=0, description="of all devices, mean under the load")
    max_devices: int | None = Field(None, ge=1)
    min_bits: float | None = Field(None, gt=0, description="of a weight, and of an element of keys and values")
    min_output_throughput: float | None = Field(None, gt=0, description="tokens/s, all devices together")
    min_chance: float | None = Field(None, gt=0, lt=1, description="that times and throughput keep their bounds")


class Miss(NamedTuple):
    """A bound that is not kept. `grows` with the time that a token takes, so that a faster truth may keep it."""

    name: str
    value: float | None  # None: not known, which keeps no bound
    bound: float
    unit: str
    grows: bool = False

    @property
    def excess(self) -> float:
        """How many times too much; 1 at the bound."""
        if self.value is None:
            return 10.0
        if self.is_floor:
            return self.bound / self.value if self.value > 0 else 1e9
        return self.value / self.bound

    @property
    def is_floor(self) -> bool:
        return self.name in ("min_bits", "min_output_throughput", "request_rate", "pool", "min_chance")


def misses_of(
    limits: Constraints,
    *,
    ttft: float,
    tpot: float,
    e2el: float,
    output_throughput: float,
    usd_per_hour: float | None,
    power_w: float | None,
) -> Iterator[Miss]:
    """Of one configuration under one load. What its devices and its bits miss is known without it."""
    slo = limits.slo
    if slo is not None:
        for name, value, bound in (("ttft", ttft, slo.ttft), ("tpot", tpot, slo.tpot), ("e2el", e2el, slo.e2el)):
            if bound is not None and value > bound:
                yield Miss(name, value, bound, "s", grows=True)
    least = limits.min_output_throughput
    if least is not None and output_throughput < least:
        yield Miss("min_output_throughput", output_throughput, least, "tokens/s", grows=True)
    if limits.usd_per_hour is not None and (usd_per_hour is None or usd_per_hour > limits.usd_per_hour):
        yield Miss("usd_per_hour", usd_per_hour, limits.usd_per_hour, "USD/h")
    if limits.power_w is not None and (power_w is None or power_w > limits.power_w):
        yield Miss("power_w", power_w, limits.power_w, "W")


def fixed_misses(limits: Constraints, *, devices: int, bits: float) -> Iterator[Miss]:
    """What no load changes."""
    if limits.max_devices is not None and devices > limits.max_devices:
        yield Miss("max_devices", float(devices), float(limits.max_devices), "devices")
    if limits.min_bits is not None and bits < limits.min_bits:
        yield Miss("min_bits", bits, limits.min_bits, "bits")
