"""Constants of an engine on a machine from times of probe models: a robust fit of the law of one step."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from servolt.errors import EngineError
from servolt.model import Model
from servolt.plan.kv_cache import kv_cache_bytes_per_token
from servolt.plan.memory.host import DEFAULT_UBATCH_TOKENS
from servolt.plan.speed import Constants, Law, WeightsSpeed, streamed_bytes

__all__ = ["ProbePoint", "fitted"]

# What a term costs whose constant is set to nothing: the law divides by rates, so nothing is a rate beyond any machine.
ENDLESS = 1e30
# A fit may say that a read costs nothing; then the read was hidden behind the arithmetic, at about this many times the
# rate that a plain read of a large array shows.
HIDDEN_READ_FACTOR = 4.0
# Rounds of reweighting: the constants stand still in the third digit after about ten.
FIT_ROUNDS = 20
# Residuals below this are as good as one another; larger ones weigh less, so that a disturbed point does not rule.
GOOD_RESIDUAL = 0.05
# Standard deviation of a normal distribution over its median absolute deviation.
MAD_TO_SD = 1.4826
# No calibration is surer than runs minutes apart are alike: a third of the 1.4 times seen.
LEAST_SPREAD = 0.1


class ProbePoint(NamedTuple):
    """Seconds of one decode step of `sequences` at `context`, or with `prompt_tokens` of one prompt up to its token."""

    model: Model
    sequences: float
    context: float
    prompt_tokens: int
    seconds: float


Numbers = NDArray[np.float64]


class _Parameter(NamedTuple):
    field: str
    dtype: str | None = None


def fitted(
    points: Sequence[ProbePoint],
    *,
    engine: str,
    engine_version: str | None,
    accelerator: str,
    threads: int,
    request_s: float,
    read_bytes_per_s: float,
    source: str,
) -> Constants:
    """Constants none of which is negative, with the least sum of |log(measured / fitted)|.

    Raises EngineError if the times can't be those of an engine that works.
    """
    sizes = _sizes(points)
    parameters = list(_parameters(sizes))
    matrix = np.array([[_seconds(point, {parameter}, sizes) for parameter in parameters] for point in points])
    measured = np.array([point.seconds for point in points])
    solution = _robust(matrix, measured)
    spread = MAD_TO_SD * float(np.median(np.abs(_residuals(matrix, solution, measured))))
    found = dict(zip(parameters, solution.tolist(), strict=True))
    return Constants(
        engine=engine,
        engine_version=engine_version,
        accelerator=accelerator,
        threads=threads,
        step_s=found[_Parameter("step_s")],
        layer_s=found[_Parameter("layer_s")],
        sequence_s=found[_Parameter("sequence_s")],
        layer_token_s=found[_Parameter("layer_token_s")],
        request_s=request_s,
        weights={dtype: _speed(dtype, found, size, read_bytes_per_s) for dtype, size in sizes.items()},
        spread=max(LEAST_SPREAD, spread),
        source=source,
    )


def _sizes(points: Sequence[ProbePoint]) -> dict[str, tuple[int, int]]:
    """For each data type the bytes that a step reads of its two largest probes."""
    seen: dict[str, set[int]] = {}
    for point in points:
        seen.setdefault(point.model.quantization, set()).add(streamed_bytes(point.model))
    return {dtype: (sorted(sizes)[-2], sorted(sizes)[-1]) for dtype, sizes in seen.items()}


def _parameters(sizes: Mapping[str, tuple[int, int]]) -> Iterator[_Parameter]:
    yield from (_Parameter(name) for name in ("step_s", "layer_s", "sequence_s", "layer_token_s"))
    for dtype in sizes:
        yield from (_Parameter(name, dtype) for name in ("small_bytes_per_s", "large_bytes_per_s", "flops_per_s"))


def _seconds(point: ProbePoint, alone: set[_Parameter], sizes: Mapping[str, tuple[int, int]]) -> float:
    """What the point would take if this one constant were 1 and all others nothing: the law is linear in them."""

    def overhead(field: str) -> float:
        return 1.0 if _Parameter(field) in alone else 0.0

    def rate(field: str, dtype: str) -> float:
        return 1.0 if _Parameter(field, dtype) in alone else ENDLESS

    constants = Constants(
        engine="",
        step_s=overhead("step_s"),
        layer_s=overhead("layer_s"),
        sequence_s=overhead("sequence_s"),
        layer_token_s=overhead("layer_token_s"),
        request_s=0.0,
        weights={
            dtype: WeightsSpeed(
                small_bytes=small,
                small_bytes_per_s=rate("small_bytes_per_s", dtype),
                large_bytes=large,
                large_bytes_per_s=rate("large_bytes_per_s", dtype),
                flops_per_s=rate("flops_per_s", dtype),
            )
            for dtype, (small, large) in sizes.items()
        },
        spread=1.0,
        source="",
    )
    per_token = kv_cache_bytes_per_token(point.model)
    law = Law(constants, point.model, kv_bytes_per_token=per_token, ubatch=DEFAULT_UBATCH_TOKENS)
    if point.prompt_tokens:
        return law.prefill_s(point.prompt_tokens)
    return law.decode_s(point.sequences, point.context)


def _robust(matrix: Numbers, measured: Numbers) -> Numbers:
    """Least squares again and again: (fitted - measured) / sqrt(fitted * measured) is the log ratio to second order."""
    fit, weight = measured, np.ones(len(measured))
    for _ in range(FIT_ROUNDS):
        scale = np.sqrt(weight / (fit * measured))
        solution = _non_negative(matrix * scale[:, None], measured * scale)
        residuals = _residuals(matrix, solution, measured)
        fit, weight = matrix @ solution, 1.0 / np.maximum(np.abs(residuals), GOOD_RESIDUAL)
    return solution


def _residuals(matrix: Numbers, solution: Numbers, measured: Numbers) -> Numbers:
    return np.log(measured / (matrix @ solution))


def _non_negative(matrix: Numbers, target: Numbers) -> Numbers:
    """Least squares with the most negative unknown set to 0 and the rest solved again, until none is negative."""
    free = list(range(matrix.shape[1]))
    scale = matrix.max(axis=0)
    while True:
        solved, *_ = np.linalg.lstsq(matrix[:, free] / scale[free], target, rcond=None)
        if not free or solved.min() >= 0:
            solution = np.zeros(matrix.shape[1])
            solution[free] = solved / scale[free]
            return solution
        free.pop(int(solved.argmin()))


def _speed(
    dtype: str, found: Mapping[_Parameter, float], size: tuple[int, int], read_bytes_per_s: float
) -> WeightsSpeed:
    seconds_per_flop = found[_Parameter("flops_per_s", dtype)]
    if not seconds_per_flop:
        raise EngineError(
            f"the times of the {dtype} probes do not grow with their work.", "Calibrate again on a quieter machine."
        )
    hidden = 1.0 / (HIDDEN_READ_FACTOR * read_bytes_per_s)
    small = max(found[_Parameter("small_bytes_per_s", dtype)], hidden)
    large = max(found[_Parameter("large_bytes_per_s", dtype)], hidden)
    return WeightsSpeed(
        small_bytes=size[0],
        small_bytes_per_s=1.0 / small,
        large_bytes=size[1],
        large_bytes_per_s=1.0 / large,
        flops_per_s=1.0 / seconds_per_flop,
    )
