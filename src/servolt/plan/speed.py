"""How long one step of the engine takes: a roofline with the machine's own constants."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from pydantic import Field

from servolt.document import Value
from servolt.gpu import Accelerator
from servolt.model import Model, TensorGroup

__all__ = ["Constants", "Law", "Term", "WeightsSpeed", "default_constants", "law_of", "nearest_dtype", "streamed_bytes"]


class WeightsSpeed(Value):
    """One data type of weights on one machine: read rates of a small and of a large set, and the arithmetic rate.

    A small set stays in the processor's caches between steps, a large one comes from memory each time.
    """

    small_bytes: int = Field(gt=0)
    small_bytes_per_s: float = Field(gt=0)
    large_bytes: int = Field(gt=0)
    large_bytes_per_s: float = Field(gt=0)
    flops_per_s: float = Field(gt=0, description="of the matrix products with weights of this type")

    def bytes_per_s(self, streamed_bytes: float) -> float:
        """Read rate of a set of this size: between the two, a straight line in the logarithms."""
        span = math.log(self.large_bytes / self.small_bytes)
        place = min(1.0, max(0.0, math.log(max(streamed_bytes, 1) / self.small_bytes) / span))
        return self.small_bytes_per_s * math.pow(self.large_bytes_per_s / self.small_bytes_per_s, place)


class Constants(Value):
    """What one engine costs on one machine beside the model's own bytes and FLOPs. All in seconds."""

    engine: str
    engine_version: str | None = None
    accelerator: str | None = Field(None, description="None: stated defaults of no machine in particular")
    threads: int | None = None
    step_s: float = Field(ge=0, description="each step of the engine")
    layer_s: float = Field(ge=0, description="each layer of a step")
    sequence_s: float = Field(ge=0, description="each sequence that gets a token: sampling, text, HTTP")
    layer_token_s: float = Field(ge=0, description="each token in each layer beside the matrix products")
    request_s: float = Field(ge=0, description="each request, outside the engine's own clock")
    weights: Mapping[str, WeightsSpeed] = Field(description="by data type")
    spread: float = Field(gt=0, description="standard deviation of log(measured / fitted) over the fit's own points")
    source: str


class Term(NamedTuple):
    """One addend of a step, for people to read."""

    name: str
    seconds: float
    formula: str


class _Load(NamedTuple):
    """What the weights of one data type cost: bytes once for each pass, FLOPs for each token, and for each output."""

    bytes: float
    share: float
    flops_per_token: float
    flops_per_output: float
    speed: WeightsSpeed

    def touched_bytes(self, tokens: float) -> float:
        """Of routed experts, the distinct ones that so many tokens are expected to need."""
        return self.bytes * (1.0 - math.pow(1.0 - self.share, tokens))


# Nothing measured yet: one core of a server of these years, set low. `doctor --calibrate` finds 8 to 15 GB/s, and 42 to
# 49 GFLOP/s with f16 and 60 to 67 with q8_0, for one thread of a shared two-core virtual machine (Xeon, AVX2).
DEFAULT_BYTES_PER_S_PER_THREAD = 12e9
DEFAULT_FLOPS_PER_S_PER_THREAD = 30e9
# One core keeps adding bandwidth only up to about this many (memory channels, not cores, are the limit then).
DEFAULT_BANDWIDTH_THREADS = 4
# log(3) / 1.645: nine of ten machines are expected within a factor of 3 of the defaults.
DEFAULT_SPREAD = 0.67
# Sizes at which `doctor --calibrate` reads; they only matter where the two rates differ.
DEFAULT_SMALL_BYTES, DEFAULT_LARGE_BYTES = 2**24, 2**27

# Which measured data type stands for one that was not: all block-quantised types pay for unpacking, the others don't.
PLAIN = ("f32", "f16", "bf16")


def default_constants(engine: str, accelerator: Accelerator, threads: int) -> Constants:
    """For a machine that was never measured: its bandwidth and FLOP/s where they are known, else stated defaults."""
    lanes = min(threads, DEFAULT_BANDWIDTH_THREADS)
    bandwidth = accelerator.bandwidth_bytes_per_s or DEFAULT_BYTES_PER_S_PER_THREAD * lanes
    flops = {"f16": DEFAULT_FLOPS_PER_S_PER_THREAD * threads, "q8_0": DEFAULT_FLOPS_PER_S_PER_THREAD * threads}
    flops |= accelerator.flops_per_s
    return Constants(
        engine=engine,
        threads=threads,
        # Means of the probes on the machine named above.
        step_s=5e-5,
        layer_s=2e-5,
        sequence_s=1e-4,
        layer_token_s=5e-6,
        request_s=1.5e-3,
        weights={
            dtype: WeightsSpeed(
                small_bytes=DEFAULT_SMALL_BYTES,
                small_bytes_per_s=bandwidth,
                large_bytes=DEFAULT_LARGE_BYTES,
                large_bytes_per_s=bandwidth,
                flops_per_s=rate,
            )
            for dtype, rate in flops.items()
        },
        spread=DEFAULT_SPREAD,
        source="stated defaults; this machine was not measured",
    )


class Law:
    """The time of one step: addends, no maximum. A core that waits for memory does not multiply meanwhile.

    t = step + layers * layer + sequences * sequence + tokens * layers * layer_token
        + passes * bytes / bandwidth + (tokens * FLOP + sequences * FLOP_head) / rate
        + context * (KV bytes / bandwidth + FLOP of attention / rate)
    """

    def __init__(self, constants: Constants, model: Model, *, kv_bytes_per_token: int, ubatch: int) -> None:
        self.constants = constants
        self._layers, self._ubatch = model.num_layers, ubatch
        self._loads = _loads(constants, model)
        main = constants.weights[nearest_dtype(model.quantization, constants.weights)]
        self._token_s = sum(load.flops_per_token / load.speed.flops_per_s for load in self._loads)
        self._output_s = sum(load.flops_per_output / load.speed.flops_per_s for load in self._loads)
        attention = 2.0 * model.num_layers * model.num_heads * (model.head_dim_k + model.head_dim_v)
        self._attention_s = attention / main.flops_per_s
        self._kv_s = kv_bytes_per_token / main.large_bytes_per_s

    def decode_s(self, sequences: float, context: float) -> float:
        """One token for each of the sequences, at this mean context."""
        return sum(term.seconds for term in self.decode_terms(sequences, context))

    def decode_terms(self, sequences: float, context: float) -> tuple[Term, ...]:
        fixed, c = self._layers, self.constants
        return (
            Term("step", c.step_s, "each step"),
            Term("layers", fixed * c.layer_s + sequences * fixed * c.layer_token_s, "layers, and tokens in each"),
            Term("sequences", sequences * c.sequence_s, "sampling, text and HTTP of each sequence"),
            Term("weights", self._stream_s(sequences), "bytes of the weights / bandwidth"),
            Term("arithmetic", sequences * (self._token_s + self._output_s), "FLOPs of the weights / rate"),
            Term("attention", sequences * context * self._attention_s, "FLOPs of attention / rate"),
            Term("kv_cache", sequences * context * self._kv_s, "bytes of keys and values / bandwidth"),
        )

    def _stream_s(self, tokens: float) -> float:
        """The weights once through the processor."""
        touched = [(load.touched_bytes(tokens), load.speed) for load in self._loads]
        total = sum(number for number, _ in touched)
        return sum(number / speed.bytes_per_s(total) for number, speed in touched)

    def step_s(
        self, *, sequences: int, context: float, prompt_tokens: int, prompts: int, prompt_context: float
    ) -> float:
        """A step that decodes `sequences` tokens and takes in `prompt_tokens`, with which `prompts` prompts end."""
        if not prompt_tokens:
            return self.decode_s(sequences, context)
        c = self.constants
        passes = -(-(prompt_tokens + sequences) // self._ubatch)
        stream = self._stream_s(min(prompt_tokens + sequences, self._ubatch))
        once = c.step_s + passes * (self._layers * c.layer_s + stream)
        token = self._token_s + self._layers * c.layer_token_s
        outputs = (sequences + prompts) * (c.sequence_s + self._output_s)
        attended = (
            sequences * context * (self._attention_s + self._kv_s) + prompt_tokens * prompt_context * self._attention_s
        )
        return once + (prompt_tokens + sequences) * token + outputs + attended

    def prefill_s(self, tokens: int) -> float:
        """A prompt alone, up to its first token. A token attends to half the prompt on average."""
        return self.step_s(sequences=0, context=0, prompt_tokens=tokens, prompts=1, prompt_context=tokens / 2)


def law_of(constants: Constants, model: Model, *, threads: int, kv_bytes_per_token: int, ubatch: int) -> Law:
    """The law for this many threads; constants measured at another number are scaled."""
    scaled = _at_threads(constants, threads)
    return Law(scaled, model, kv_bytes_per_token=kv_bytes_per_token, ubatch=ubatch)


def nearest_dtype(dtype: str, known: Mapping[str, WeightsSpeed]) -> str:
    """The data type itself where it was measured, else the one that stands for its kind."""
    if dtype in known:
        return dtype
    stand_in = "f16" if dtype in PLAIN else "q8_0"
    return stand_in if stand_in in known else next(iter(known))


def streamed_bytes(model: Model) -> int:
    """Bytes of the weights that every step reads."""
    return sum(group.bytes for group in model.tensors if group.component != "embedding" or model.tied_embeddings)


def _loads(constants: Constants, model: Model) -> list[_Load]:
    return [load for group in model.tensors if (load := _load(constants, model, group)) is not None]


def _load(constants: Constants, model: Model, group: TensorGroup) -> _Load | None:
    """None for a table of which a step reads single rows only."""
    speed = constants.weights[nearest_dtype(group.dtype, constants.weights)]
    if group.component == "embedding" and not model.tied_embeddings:
        return None
    if group.component in ("embedding", "output"):
        return _Load(group.bytes, 1.0, 0.0, 2.0 * group.elements, speed)
    share = _active_share(model) if group.component == "mlp" else 1.0
    return _Load(group.bytes, share, 2.0 * group.elements * share, 0.0, speed)


def _active_share(model: Model) -> float:
    """Of a mixture of experts, the share that one token uses; 1 for a dense model. Shared experts count as routed."""
    experts = model.metadata.get(f"{model.architecture}.expert_count")
    used = model.metadata.get(f"{model.architecture}.expert_used_count")
    if isinstance(experts, int) and isinstance(used, int) and 0 < used <= experts:
        return used / experts
    return 1.0


def _at_threads(constants: Constants, threads: int) -> Constants:
    """Arithmetic grows with the threads, bandwidth until the memory channels are full."""
    if constants.threads in (None, threads):
        return constants
    ratio = threads / (constants.threads or threads)
    lanes = min(threads, DEFAULT_BANDWIDTH_THREADS) / min(constants.threads or threads, DEFAULT_BANDWIDTH_THREADS)
    weights = {dtype: _faster(speed, ratio, lanes) for dtype, speed in constants.weights.items()}
    return constants.model_copy(update={"weights": weights, "threads": threads})


def _faster(speed: WeightsSpeed, ratio: float, lanes: float) -> WeightsSpeed:
    return speed.model_copy(
        update={
            "flops_per_s": speed.flops_per_s * ratio,
            "small_bytes_per_s": speed.small_bytes_per_s * lanes,
            "large_bytes_per_s": speed.large_bytes_per_s * lanes,
        }
    )
