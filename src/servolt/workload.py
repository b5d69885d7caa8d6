"""What is asked of a server: lengths, arrivals, seed; and the bounds that a good answer keeps."""

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field, model_validator

from servolt.document import Document, digest
from servolt.units import parse_count

__all__ = ["LoadPoint", "Slo", "Workload"]


def _counted(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"{value} is no number")
    return parse_count(value) if isinstance(value, str) else value


# In a file as on the command line: 8192, or 8k (8,000) and 8K (8,192).
Count = Annotated[int, BeforeValidator(_counted, json_schema_input_type=int | str)]


SHORT = {"input_tokens": "input_len", "output_tokens": "output_len", "rate": "request_rate"}


class LoadPoint(NamedTuple):
    """One level of load: streams in flight (closed loop) or requests per second (open loop)."""

    concurrency: int | None
    request_rate: float | None

    def __str__(self) -> str:
        return f"c={self.concurrency}" if self.request_rate is None else f"{self.request_rate:g}/s"


class Slo(Document):
    """Bounds in seconds. A request is good when it keeps all that are set."""

    schema_: Literal["servolt.slo/1"] = Field("servolt.slo/1", alias="schema")
    ttft: float | None = Field(None, gt=0)
    tpot: float | None = Field(None, gt=0)
    e2el: float | None = Field(None, gt=0)


class Workload(Document):
    """Requests of fixed lengths, in a closed loop at each concurrency or in an open loop at each request rate."""

    schema_: Literal["servolt.workload/1"] = Field("servolt.workload/1", alias="schema")
    arrival: Literal["closed", "poisson", "constant"] = "closed"
    concurrency: tuple[int, ...] = Field((1,), description="closed loop: streams in flight, one window for each level")
    request_rate: tuple[float, ...] = Field((), description="open loop: requests per second, one window for each level")
    input_len: Count = Field(64, ge=1, le=2**20, description="prompt tokens of each request")
    output_len: Count = Field(64, ge=1, le=2**20, description="output tokens of each request")
    length_control: Literal["fixed", "natural"] = Field(
        "fixed", description="fixed: exactly output_len tokens; natural: the model stops by itself, at most output_len"
    )
    duration_s: float = Field(5.0, gt=0, le=86400, description="length of one window")
    warmup_requests: int = Field(2, ge=0, le=10000, description="requests before each window that count for nothing")
    repetitions: int = Field(1, ge=1, le=1000, description="windows at each level")
    temperature: float = Field(0.0, ge=0, le=10)
    seed: int = Field(1, ge=0, le=2**63 - 1)

    @model_validator(mode="before")
    @classmethod
    def _in_short(cls, plain: Any) -> Any:
        """Also {"input_tokens": 1024, "output_tokens": 256, "concurrency": 8}, or a "rate" in requests per second."""
        if not isinstance(plain, dict):
            return plain
        named = {SHORT.get(name, name): value for name, value in plain.items()}
        for name in ("concurrency", "request_rate"):
            if name in named and isinstance(named[name], int | float | str):
                named[name] = (named[name],)
        if named.get("request_rate") and "arrival" not in named:
            named |= {"arrival": "poisson", "concurrency": ()}
        return named

    @model_validator(mode="after")
    def _has_levels(self) -> "Workload":
        if self.arrival == "closed" and not self.concurrency:
            raise ValueError("a closed loop needs at least one concurrency")
        if self.arrival != "closed" and not self.request_rate:
            raise ValueError(f"{self.arrival} arrivals need at least one request_rate")
        if any(level < 1 or level > 65536 for level in self.concurrency):
            raise ValueError("concurrency lies between 1 and 65536")
        if any(rate <= 0 for rate in self.request_rate):
            raise ValueError("request_rate is above 0")
        return self

    @property
    def points(self) -> tuple[LoadPoint, ...]:
        if self.arrival == "closed":
            return tuple(LoadPoint(level, None) for level in self.concurrency)
        return tuple(LoadPoint(None, rate) for rate in self.request_rate)

    @property
    def digest(self) -> str:
        """Two workloads with one digest send the same requests in the same order."""
        return digest(self.model_dump(mode="json"))

    @property
    def shape_digest(self) -> str:
        """Two workloads with one shape ask for the same at each load point, for however long and however often."""
        shape = ("arrival", "input_len", "output_len", "length_control", "temperature")
        return digest(self.model_dump(mode="json", include=set(shape)))
