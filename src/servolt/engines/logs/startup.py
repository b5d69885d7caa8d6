"""What an engine's start-up log says: the memory of each device, and the settings it ran with."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import Field

from servolt.deployment import Deployment
from servolt.document import Value

__all__ = ["GIB", "MIB", "EngineName", "RankLog", "StartupLog"]

EngineName = Literal["vllm", "sglang", "llamacpp"]
GIB, MIB = 2**30, 2**20
# What engines make of full weights while they load them (vllm 0.33.0 and sglang 0.5.23); all else is read from files.
WHILE_LOADING = ("fp8", "bitsandbytes", "experts_int8", "mxfp8")


class RankLog(Value):
    """One device. A line that wasn't found leaves its term None, never 0."""

    rank: str = Field(description="as the log names it: PP0_TP1, TP0, CUDA0, host; empty where there is only one")
    stage: int = Field(0, ge=0, description="of the pipeline")
    is_host: bool = Field(False, description="memory of the machine, not of a device")
    weights_bytes: int | None = Field(None, ge=0)
    activation_bytes: int | None = Field(None, ge=0, description="the peak of a step, or the compute buffers")
    overhead_bytes: int | None = Field(None, ge=0, description="outside the framework's allocator: context, libraries")
    graph_bytes: int | None = Field(None, ge=0, description="captured graphs, as they turned out")
    graph_estimate_bytes: int | None = Field(None, ge=0, description="captured graphs, as the engine reckoned before")
    state_bytes: int | None = Field(None, ge=0, description="of recurrent layers")
    kv_cache_bytes: int | None = Field(None, ge=0, description="the pool of keys and values")
    visible_bytes: int | None = Field(None, ge=0, description="of the device, as the engine sees it")
    free_before_bytes: int | None = Field(None, ge=0, description="of the device, before the weights")
    free_after_bytes: int | None = Field(None, ge=0, description="of the device, when all was allocated")


class StartupLog(Value):
    """One start of one engine."""

    engine: EngineName
    engine_version: str | None = None
    generation: Literal["V0", "V1"] | None = Field(None, description="of vLLM's engine, by the lines' wordings")
    model: str | None = Field(None, description="as it was asked for: a Hub id, a path")
    accelerator: str | None = Field(None, description="as the log names it")
    devices: int | None = Field(None, ge=1, description="that the weights went to")
    settings: Mapping[str, Any] = Field(default_factory=dict, description="fields of a deployment, as far as stated")
    at_default: tuple[str, ...] = Field((), description="fields that it states with the engine's default")
    ranks: tuple[RankLog, ...] = ()
    kv_cache_tokens: int | None = Field(None, ge=0, description="the least over what the log says")
    tokens_meaning: Literal["blocks", "length"] | None = Field(
        None, description="blocks: tokens of the pool's blocks; length: requests of max_model_len, times max_model_len"
    )
    num_gpu_blocks: int | None = Field(None, ge=0)
    max_concurrency: float | None = Field(None, ge=0, description="requests of max_model_len at the same time")
    projected_bytes: int | None = Field(None, ge=0, description="llama.cpp's: what it reckoned before it fitted")
    free_bytes: int | None = Field(None, ge=0, description="llama.cpp's: free on all devices before it fitted")
    notes: tuple[str, ...] = ()

    @property
    def first(self) -> RankLog | None:
        """The fullest device of the first stage; of llama.cpp the first device, or the host where there is none."""
        devices = [one for one in self.ranks if not one.is_host] or list(self.ranks)
        if self.engine == "llamacpp":
            return devices[0] if devices else None
        stage = min((one.stage for one in devices), default=0)
        alike = [one for one in devices if one.stage == stage]
        return _joined(alike) if alike else None

    def deployment(self, **known: Any) -> Deployment:
        """The deployment that the log is of, as far as it says. `known` adds to that and wins.

        A format that the checkpoint itself is in is left to the checkpoint. Raises InvalidInputError where neither
        names a model.
        """
        stated = {"engine": self.engine, "engine_version": self.engine_version, "model": self.model, **self.settings}
        if stated.get("quantization") not in (None, *WHILE_LOADING):
            del stated["quantization"]
        return Deployment.from_plain({name: one for name, one in {**stated, **known}.items() if one is not None})


def _joined(ranks: list[RankLog]) -> RankLog:
    """What ranks that do the same work say, one of them more and another less: the most of each, of the pool and of
    what is free the least."""
    found: dict[str, Any] = {"rank": ranks[0].rank, "stage": ranks[0].stage, "is_host": ranks[0].is_host}
    for name in RankLog.model_fields:
        stated = [value for one in ranks if (value := getattr(one, name)) is not None]
        if name.endswith("_bytes") and stated:
            is_room = name in ("kv_cache_bytes", "visible_bytes", "free_before_bytes", "free_after_bytes")
            choose: Callable[[list[int]], int] = min if is_room else max
            found[name] = choose(stated)
    return RankLog(**found)
