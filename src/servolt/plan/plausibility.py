"""Measured points that can't be: faster than the hardware, or at odds with one another.

Nothing here rests on a fitted constant: bytes and FLOPs of the model, rates and power limit of the datasheet, Little's
law.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from servolt.deployment import Deployment
from servolt.document import Problem
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.plan.correction import REPEAT_SPREAD, Z10, KnownPoint
from servolt.plan.peaks import PLAIN
from servolt.plan.roofline import RooflineLaw

__all__ = ["Bound", "Bounds", "bounds_of", "contradictions", "impossible"]

# What a clock or a rounding may be off before a figure is called impossible: boosted memory clocks gain 2 to 4 %.
SLACK = 1.05
# Weights that caches hold are not read from the memory at each step: the largest last-level caches of accelerators are
# 256 MB (AMD Instinct MI300X, Infinity Cache).
CACHED_BYTES = 256e6
# Which parts of a quantised checkpoint stay wide, only its header tells: attention, shared experts and the head of a
# mixture of experts in 4 bits are as many bytes again as half of what else a token needs.
WIDE_PARTS = 1.5
ROWS_OR_LAYERS = ("llamacpp", "ik_llamacpp", "ollama")
TIMES = ("tpot", "itl")
RATES = ("output_throughput", "decode_throughput")
# Tokens that fall by more than this with more streams, in logarithms, are no matter of repeats: of two values.
FALL = Z10 * math.hypot(REPEAT_SPREAD, REPEAT_SPREAD) * 2
# A first token that takes this many times longer than the law says is what no law is off by (plan/spreads.py).
LATE = 8.0


class Bound(NamedTuple):
    """The least or the most that a value can be, and of what it follows."""

    value: float
    is_least: bool
    why: str


Bounds = Callable[[KnownPoint], Bound | None]


def bounds_of(law: RooflineLaw, deployment: Deployment, model: Model, accelerator: Accelerator) -> Bounds:
    """For `impossible`. None where the model or the device had to be guessed, or several tokens come of one step."""
    step_s = _step_s(law, deployment, model, accelerator)
    token_s = _token_s(law, model)
    limit_w = None if accelerator.tdp_w is None else accelerator.tdp_w * accelerator.count

    def bound(point: KnownPoint) -> Bound | None:
        if point.metric == "power" and limit_w is not None:
            return Bound(limit_w, False, f"{accelerator.count} x {accelerator.tdp_w:g} W is the devices' limit")
        if point.metric in TIMES and step_s is not None:
            return Bound(step_s, True, "a step reads the weights once, at the memory's full rate")
        if point.metric in RATES:
            return _rate_bound(point.load.concurrency, step_s, token_s)
        if point.metric == "prefill_throughput" and token_s is not None:
            return Bound(1.0 / token_s, False, "the arithmetic of the prompt's tokens at its peak rate takes longer")
        return None

    return bound


def _rate_bound(streams: int | None, step_s: float | None, token_s: float | None) -> Bound | None:
    found = []
    if step_s is not None and streams is not None:
        why = f"{streams} streams get a token for each time that the weights are read"
        found.append(Bound(streams / step_s, False, why))
    if token_s is not None:
        found.append(Bound(1.0 / token_s, False, "the arithmetic of so many tokens at its peak rate takes longer"))
    return min(found, default=None)


def _step_s(law: RooflineLaw, deployment: Deployment, model: Model, accelerator: Accelerator) -> float | None:
    """Of the weights that one token needs, all devices at the datasheet's rate."""
    work, rate = law.work, accelerator.bandwidth_bytes_per_s
    size = sum(work.dense_bytes) + work.head_bytes + work.expert_share * sum(work.expert_bytes)
    if rate is None or deployment.speculative_config is not None or not _is_known(law, model) or size < CACHED_BYTES:
        return None
    # Layers of llama.cpp lie on one device behind another, or rows of each on all at once: it isn't always said which.
    at_once = accelerator.count if deployment.engine in ROWS_OR_LAYERS else 1
    surely = 1.0 if model.basis == "header" or model.quantization in PLAIN else WIDE_PARTS
    return size / rate / at_once / surely if work.host_s == 0 else None


def _token_s(law: RooflineLaw, model: Model) -> float | None:
    """Of one token's arithmetic, over all devices."""
    work = law.work
    if not _is_known(law, model):
        return None
    seconds = sum(work.dense_flop_s) / work.groups + sum(work.expert_flop_s)
    return seconds / work.stages / work.replicas or None


def _is_known(law: RooflineLaw, model: Model) -> bool:
    return law.work.certain == 1.0 and model.basis not in ("card", "stated")


def impossible(point: KnownPoint, bound: Bound | None) -> Problem | None:
    """What is beyond the bound by more than clocks differ. None where it can be."""
    if bound is None:
        return None
    beyond = bound.value / point.value if bound.is_least else point.value / bound.value
    if beyond <= SLACK:
        return None
    side = "least" if bound.is_least else "most"
    return Problem(
        code="impossible_point",
        severity="warning",
        message=f"The measured {point.metric} of {point.value:g} at {point.load} can't be: the {side} is "
        f"{bound.value:.4g}, because {bound.why}. It was left out.",
        remedy="Check its unit, its workload, the quantization and the devices. Where a step gives several tokens, set "
        "speculative_config. Where prompts were cached, measure without.",
    )


def contradictions(points: Sequence[KnownPoint], first_s: Callable[[KnownPoint], float | None]) -> Iterator[Problem]:
    """Points that can't be of one deployment together. `first_s` is the predicted first token at a point's load."""
    yield from _falling([point for point in points if point.metric == "tpot" and point.load.concurrency])
    for point in points:
        if point.metric == "output_throughput" and point.load.concurrency:
            yield from _against_little(point, points, first_s)


def _falling(points: Sequence[KnownPoint]) -> Iterator[Problem]:
    """A step with more streams reads more, so that tokens come no faster."""
    ordered = sorted(points, key=_streams)
    for place, fewer in enumerate(ordered):
        later = [more for more in ordered[place + 1 :] if _lengths(more) == _lengths(fewer)]
        fast = [more for more in later if _streams(more) > _streams(fewer)]
        least = min(fast, key=lambda more: more.value, default=None)
        if least is not None and math.log(fewer.value / least.value) > FALL:
            yield _contradiction(
                f"tpot falls from {fewer.value:g} at {fewer.load} to {least.value:g} at {least.load}, and with more "
                "streams tokens come no faster.",
            )
            return


def _against_little(
    rate: KnownPoint, points: Sequence[KnownPoint], first_s: Callable[[KnownPoint], float | None]
) -> Iterator[Problem]:
    here = [one for one in points if _lengths(one) == _lengths(rate) and _streams(one) == _streams(rate)]
    token = next((one.value for one in here if one.metric == "tpot"), None)
    if token is None:
        return
    first = next((one.value for one in here if one.metric in ("ttft", "ttft_service")), None)
    tokens = rate.workload.output_len
    rest = (tokens - 1) * token
    took = _streams(rate) * tokens / rate.value  # of one request, by Little's law
    late = took - rest
    guess = first if first is not None else first_s(rate)
    far = math.exp(FALL)
    is_too_fast = took * far < rest + (first or 0.0)
    is_too_slow = guess is not None and took > far * (rest + (guess if first is not None else LATE * guess))
    if is_too_fast or is_too_slow:
        said = "less than its tokens take" if late < 0 else f"a first token after {late:.3g} s"
        yield _contradiction(
            f"{_streams(rate)} streams with a tpot of {token:g} and an output_throughput of {rate.value:g} at the same "
            f"load: by Little's law a request then takes {took:.3g} s, {said}.",
        )


def _contradiction(message: str) -> Problem:
    return Problem(
        code="contradictory_points",
        severity="warning",
        message=f"Measured points contradict each other: {message}",
        remedy="Check that they are of one deployment, load and unit, and that concurrency is what was in flight.",
    )


def _streams(point: KnownPoint) -> int:
    return point.load.concurrency or 0


def _lengths(point: KnownPoint) -> tuple[int, int]:
    return point.workload.input_len, point.workload.output_len
