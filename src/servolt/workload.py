"""What is asked of a server: lengths, arrivals, seed; and the bounds that a good answer keeps."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field, model_validator

from servolt.document import Document, digest
from servolt.lengths import Lengths, Trace, TraceRequest
from servolt.units import parse_count

__all__ = ["SHORT", "Lengths", "LoadPoint", "Slo", "Trace", "TraceRequest", "Workload"]


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
    """Requests in a closed loop at each concurrency, or in an open loop at each request rate."""

    schema_: Literal["servolt.workload/1"] = Field("servolt.workload/1", alias="schema")
    arrival: Literal["closed", "poisson", "constant", "burst", "gamma", "trace"] = "closed"
    concurrency: tuple[int, ...] = Field((1,), description="closed loop: streams in flight, one window for each level")
    request_rate: tuple[float, ...] = Field((), description="open loop: requests per second, one window for each level")
    max_concurrency: Count | None = Field(
        None, ge=1, le=65536, description="open loop: the client sends no more at once"
    )
    burst_size: int | None = Field(None, ge=1, le=65536, description="of burst: requests that come at the same moment")
    arrival_cv: float | None = Field(None, gt=0, le=100, description="of gamma: of the times between requests")
    trace: Trace | None = Field(None, description="of trace: the requests that are played again")
    input_len: Count = Field(64, ge=1, le=2**20, description="prompt tokens of each request, or their mean")
    output_len: Count = Field(64, ge=1, le=2**20, description="output tokens of each request, or their mean")
    input_lengths: Lengths | None = Field(None, description="how prompt tokens are spread; None is all alike")
    output_lengths: Lengths | None = Field(None, description="how output tokens are spread; None is all alike")
    length_control: Literal["fixed", "natural"] = Field(
        "fixed", description="fixed: exactly output_len tokens; natural: the model stops by itself, at most output_len"
    )
    slo: Slo | None = Field(None, description="bounds that a good answer keeps")
    duration_s: float = Field(5.0, gt=0, le=86400, description="length of one window")
    warmup_requests: int = Field(2, ge=0, le=10000, description="requests before each window that count for nothing")
    repetitions: int = Field(1, ge=1, le=1000, description="windows at each level")
    temperature: float = Field(0.0, ge=0, le=10)
    seed: int = Field(1, ge=0, le=2**63 - 1)

    @model_validator(mode="before")
    @classmethod
    def _in_short(cls, plain: Any) -> Any:
        """Also {"input_tokens": 1024, "output_tokens": 256, "concurrency": 8}, or a "rate" in requests per second.

        Lengths may be spread: {"input_tokens": {"mean": 1024, "cv": 0.8}}. A rate with one concurrency is a rate whose
        client has at most so many requests in flight.
        """
        if not isinstance(plain, dict):
            return plain
        named: dict[str, Any] = {SHORT.get(str(name), str(name)): value for name, value in plain.items()}
        for place in ("input", "output"):
            named |= _spread(named, f"{place}_len", f"{place}_lengths")
        named |= _arriving(named)
        is_open = bool(named.get("request_rate")) or named["arrival"] in OPEN
        is_short = not {"arrival", "schema", "schema_"} & plain.keys()
        cap = named.get("concurrency")
        if isinstance(cap, list | tuple) and len(cap) == 1 and is_short:
            cap = cap[0]
        if is_open and named["arrival"] != "closed" and isinstance(cap, int | str):
            named = {**named, "max_concurrency": named.get("max_concurrency", cap)}
            del named["concurrency"]
        for name in ("concurrency", "request_rate"):
            if name in named and isinstance(named[name], int | float | str):
                named[name] = (named[name],)
        if is_open and named["arrival"] != "closed":
            if named.get("concurrency") and is_short:
                raise ValueError("a rate with several levels of concurrency is two loads: a cap is one number")
            named.setdefault("concurrency", ())
        return named

    @model_validator(mode="after")
    def _has_levels(self) -> "Workload":
        if self.arrival == "closed" and not self.concurrency:
            raise ValueError("a closed loop needs at least one concurrency")
        if self.arrival == "closed" and self.request_rate:
            raise ValueError("a closed loop has no request_rate: leave it, or arrival, out")
        if self.arrival not in ("closed", "trace") and not self.request_rate:
            raise ValueError(f"{self.arrival} arrivals need at least one request_rate")
        if any(level < 1 or level > 65536 for level in self.concurrency):
            raise ValueError("concurrency lies between 1 and 65536")
        if any(rate <= 0 for rate in self.request_rate):
            raise ValueError("request_rate is above 0")
        return self

    @model_validator(mode="after")
    def _is_whole(self) -> "Workload":
        """What belongs to one kind of arrivals stands with that kind."""
        for name, kind in {"burst_size": "burst", "arrival_cv": "gamma", "trace": "trace"}.items():
            if (getattr(self, name) is None) == (self.arrival == kind):
                which = "needs" if self.arrival == kind else "alone has"
                raise ValueError(f"the arrival {kind} {which} {name}")
        if self.arrival == "closed" and self.max_concurrency is not None:
            raise ValueError("max_concurrency caps an open loop; a closed one has its concurrency")
        if self.trace is not None and (self.input_lengths is not None or self.output_lengths is not None):
            raise ValueError("a trace has lengths of its own: leave input_tokens and output_tokens out")
        return self

    @property
    def points(self) -> tuple[LoadPoint, ...]:
        if self.arrival == "closed":
            return tuple(LoadPoint(level, None) for level in self.concurrency)
        return tuple(LoadPoint(None, rate) for rate in self.request_rate)

    @property
    def arrives_together(self) -> float:
        """Requests of which one tells that the others are there too: those of a burst."""
        if self.arrival_cv is not None:
            return max(1.0, self.arrival_cv**2)  # counts of a renewal process spread so, over those of a Poisson one
        return float(self.burst_size or 1)

    @property
    def is_spread(self) -> bool:
        """Whether requests differ in their lengths."""
        return self.input_lengths is not None or self.output_lengths is not None or self.trace is not None

    @property
    def is_plain(self) -> bool:
        """Lengths all alike, and arrivals that engines' load clients know."""
        return self.arrival in ("closed", "poisson", "constant") and self.max_concurrency is None and not self.is_spread

    @property
    def without_requests(self) -> "Workload":
        """As it stands in documents: a trace by its file's name and digest."""
        if self.trace is None:
            return self
        return self.model_copy(update={"trace": self.trace.model_copy(update={"requests": ()})})

    @property
    def digest(self) -> str:
        """Two workloads with one digest send the same requests in the same order."""
        return digest(self.model_dump(mode="json", exclude_none=True))

    @property
    def shape_digest(self) -> str:
        """Two workloads with one shape ask for the same at each load point, for however long and however often."""
        shape = ("arrival", "input_len", "output_len", "length_control", "temperature", *SPREAD)
        return digest(self.model_dump(mode="json", include=set(shape), exclude_none=True))


# What makes the shape of a workload beside its means.
SPREAD = ("max_concurrency", "burst_size", "arrival_cv", "trace", "input_lengths", "output_lengths")
OPEN = ("poisson", "constant", "burst", "gamma", "trace")
PROCESSES = {"uniform": "constant", "even": "constant", "bursts": "burst"}


def _spread(named: Mapping[str, Any], mean: str, spread: str) -> dict[str, Any]:
    """{"mean": 512, "cv": 0.5} or [100, 200, 300] in place of a number: the mean, and the spread beside it."""
    given = named.get(mean)
    if not isinstance(given, Mapping | list | tuple | Lengths):
        return {}
    lengths = given if isinstance(given, Lengths) else Lengths.model_validate(given)
    return {mean: max(1, round(lengths.moments.mean)), spread: lengths}


def _arriving(named: Mapping[str, Any]) -> dict[str, Any]:
    """The process by the fields that are there, where it is not named; its parts may stand in an object of its own."""
    given, found = named.get("arrival"), dict[str, Any]()
    if isinstance(given, Mapping):
        parts = {"process": "arrival", "size": "burst_size", "cv": "arrival_cv", "file": "trace"}
        if unknown := sorted(map(str, given.keys() - parts.keys())):
            raise ValueError(f"{unknown[0][:60]} is no part of an arrival: it has {', '.join(parts)}")
        found = {parts[name]: value for name, value in given.items()}
        given = found.get("arrival")
    parts_of = {"trace": "trace", "burst_size": "burst", "arrival_cv": "gamma"}
    if given is None:
        kinds = [kind for field, kind in parts_of.items() if (found.get(field) or named.get(field)) is not None]
        given = kinds[0] if kinds else "poisson" if named.get("request_rate") else "closed"
    elif given == "burst" and (found.get("arrival_cv") or named.get("arrival_cv")) is not None:
        given = "gamma"
    trace = found.get("trace", named.get("trace"))
    if isinstance(trace, str):
        found["trace"] = {"source": trace}
    return {**found, "arrival": PROCESSES.get(given, given) if isinstance(given, str) else given}
