"""Which requests are sent, and when: a function of the workload, its seed and the window's place alone."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from servolt.workload import LoadPoint, Workload

__all__ = ["Schedule"]

# The ends of a vocabulary hold control and byte tokens in all common tokenizers: stay inside.
VOCABULARY_MARGIN = 16  # 1/16 at each end
_WORDS = (
    "latency", "throughput", "memory", "bandwidth", "token", "model", "cache", "batch", "weights", "prompt",
    "answer", "engine", "queue", "stream", "energy", "window", "sample", "median", "percentile", "interval",
    "deployment", "processor", "kernel", "context", "layer", "head", "attention",
)  # fmt: skip


@dataclass(frozen=True)
class Schedule:
    """The requests of one window. Windows of one repetition at one load point send the same bytes to all deployments.

    `vocab_size` None: the model's tokens are unknown, so prompts are words and their length in tokens is what the
    server says. Every prompt is drawn anew, so no cache of prefixes can hold more than a token of it by chance.
    """

    workload: Workload
    point: LoadPoint
    repetition: int
    model: str
    vocab_size: int | None

    @property
    def path(self) -> str:
        return "/v1/chat/completions" if self.workload.length_control == "natural" else "/v1/completions"

    def body(self, index: int, output_len: int | None = None) -> bytes:
        """The JSON of request `index`; negative indices are warm-up."""
        load = self.workload
        fields: dict[str, object] = {
            "model": self.model,
            "max_tokens": output_len or load.output_len,
            "temperature": load.temperature,
            "seed": (load.seed + index) % 2**31,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
            "timings_per_token": True,
        }
        if load.length_control == "natural":
            fields["messages"] = [{"role": "user", "content": self._words(index)}]
        else:
            fields["prompt"] = self._words(index) if self.vocab_size is None else self._token_ids(index)
            fields["ignore_eos"] = True
            fields["min_tokens"] = fields["max_tokens"]
        return orjson.dumps(fields)

    def arrivals_ns(self) -> Iterator[int]:
        """Open loop: ns after the start of the load, without end. Gaps are drawn once and never rescaled."""
        rate = self.point.request_rate
        if rate is None:
            raise ValueError("a closed loop has no arrival times")
        elapsed_s, index = 0.0, 0
        while True:
            elapsed_s += self._gap(index) / rate
            index += 1
            yield round(elapsed_s * 1e9)

    def _gap(self, index: int) -> float:
        """Of mean 1: exponential for Poisson arrivals."""
        if self.workload.arrival == "constant":
            return 1.0
        uniform = (int.from_bytes(self._random("gap", index, 7), "little") + 0.5) / 2**56
        return -math.log(uniform)

    def _token_ids(self, index: int) -> list[int]:
        size = self.vocab_size or 0
        low, high = size // VOCABULARY_MARGIN, size - size // VOCABULARY_MARGIN
        raw = self._random("prompt", index, 4 * self.workload.input_len)
        return [low + word % (high - low) for word in memoryview(raw).cast("I")]

    def _words(self, index: int) -> str:
        raw = self._random("words", index, 2 * self.workload.input_len)
        words = [_WORDS[word % len(_WORDS)] for word in memoryview(raw).cast("H")]
        return " ".join([raw[:4].hex(), *words[1:]])

    def _random(self, purpose: str, index: int, count: int) -> bytes:
        """SHAKE256 rather than a generator's stream: the same bytes in every version of everything."""
        key = f"{self.workload.seed} {self.point} {self.repetition} {purpose} {index}"
        return hashlib.shake_256(key.encode()).digest(count)
