"""What a device can do at most: its memory's rate, and its arithmetic by the width of the weights."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from servolt.gpu import Accelerator

__all__ = ["ARITHMETIC", "Arithmetic", "Peaks", "arithmetic_of", "peaks_of"]

# half: 16 bits or more, both sides. fp8: 8 bits, both sides. fp4: 4 bits, both sides. packed: weights that are
# narrower than what they are multiplied in, and are unpacked first.
Arithmetic = Literal["half", "fp8", "fp4", "packed"]
ARITHMETIC: tuple[Arithmetic, ...] = ("half", "fp8", "fp4", "packed")

PLAIN = frozenset({"bfloat16", "float16", "float32", "bf16", "f16", "f32", "float64"})
EIGHT = frozenset({"fp8", "int8"})
FOUR = frozenset({"nvfp4", "mxfp4", "fp4"})

# Nothing known of a device: a graphics card of the middle of its time, a processor with two channels of DDR5-5600.
GUESSED_BANDWIDTH = {"gpu": 500e9, "cpu": 80e9}
# FLOP/s for each byte/s of memory, in 16 bits: 60 to 320 on cards since 2018, 10 to 40 on processors and Apple's chips
# (the catalogue of accelerators).
GUESSED_INTENSITY = {"gpu": 120.0, "cpu": 15.0}
# How much a guessed figure counts against a known one, for the width of an interval.
GUESSED_CERTAINTY = 0.5


class Peaks(NamedTuple):
    """FLOP/s by arithmetic; where a device has none of its own for a width, it unpacks, at the rate of 16 bits."""

    bandwidth_bytes_per_s: float
    flops_per_s: Mapping[Arithmetic, float]
    native: frozenset[Arithmetic]
    certain: float


def peaks_of(accelerator: Accelerator) -> Peaks:
    rates = accelerator.flops_per_s
    bandwidth = accelerator.bandwidth_bytes_per_s or GUESSED_BANDWIDTH[accelerator.kind]
    half = rates.get("bfloat16") or rates.get("float16") or rates.get("tf32") or rates.get("float32")
    known = accelerator.bandwidth_bytes_per_s is not None and half is not None
    half = half or bandwidth * GUESSED_INTENSITY[accelerator.kind]
    fp8 = rates.get("fp8") or (rates.get("int8") if accelerator.kind == "gpu" else None)
    fp4 = rates.get("fp4")
    flops: dict[Arithmetic, float] = {"half": half, "fp8": fp8 or half, "fp4": fp4 or half, "packed": half}
    named: tuple[tuple[Arithmetic, float | None], ...] = (("fp8", rates.get("fp8")), ("fp4", fp4))
    native = frozenset(name for name, rate in named if rate)
    return Peaks(bandwidth, flops, native, 1.0 if known else GUESSED_CERTAINTY)


def arithmetic_of(dtype: str, peaks: Peaks) -> Arithmetic:
    """How weights of this type are multiplied here.

    >>> arithmetic_of("q4_k", Peaks(1e12, {}, frozenset({"fp8"}), 1.0))
    'packed'
    """
    name = dtype.lower()
    if name in PLAIN:
        return "half"
    if name in EIGHT and "fp8" in peaks.native:
        return "fp8"
    if name in FOUR and "fp4" in peaks.native:
        return "fp4"
    return "packed"
