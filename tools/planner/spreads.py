"""How wide intervals must be: P10 and P90 of the errors of what was left out of the fit, by what a deployment is."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tools.planner.cases import Case
from tools.planner.data import Data
from tools.planner.least_squares import Array

__all__ = ["spreads_toml"]

# Fewer rows than this tell no P10.
FEWEST = 40
# Never narrower: the same deployment measured again differs by about as much (plan/correction.py).
LEAST = 0.08
# No start was timed: a drive is two and a half times as fast as another, and so is a compiler's cache.
LOAD = (-0.9, 0.9)


class Kind(NamedTuple):
    """`figures` are pooled. `classes` are words: the first whose words all hold rules; the empty one takes the rest."""

    name: str
    figures: tuple[str, ...]
    classes: tuple[tuple[str, ...], ...]


ENGINES = ("vllm", "sglang", "tensorrt_llm")
WORDS = tuple((engine, word) for engine in ENGINES for word in ("dense", "experts"))
KINDS = (
    Kind("token", ("tpot", "itl"), (("llamacpp",), *WORDS, ())),
    Kind("first", ("ttft",), (*((engine,) for engine in ENGINES), ())),
    Kind("request", ("request",), (*WORDS, ())),
    Kind("prompt", ("prefill",), ((),)),
    Kind("power", ("power",), ((),)),
    Kind("energy", ("energy",), ((),)),
)
HEAD = """\
# Written by tools/planner/fit.py. Natural logarithms of measured / predicted at P10 and P90, with whole groups (model
# family x device) left out of the fit, by metric and by what the deployment is. Those of `load` were set by hand: no
# start was timed. The first class whose words all hold rules. Of rates, the errors are of the time they stand for.

[about]
date = "{date}"
source = "the fit of speed.toml and power.toml, {runs} runs"

[metrics]
tpot = "token"
itl = "token"
decode_throughput = "token"
e2el = "request"
output_throughput = "request"
total_throughput = "request"
request_throughput = "request"
ttft = "first"
ttft_cold = "first"
prefill_throughput = "prompt"
power = "power"
energy_per_output_token = "energy"
energy_per_request = "energy"
load_time = "load"
"""


def spreads_toml(data: Data, left_out: dict[str, Array], date: str) -> str:
    parts = [HEAD.format(date=date, runs=len(data.cases))]
    for kind in KINDS:
        for words in kind.classes:
            off = np.concatenate(list(_errors(data, left_out, kind, words)))
            if len(off) >= FEWEST:
                low, high = np.percentile(off, [10, 90])
                parts.append(_entry(kind.name, words, min(low, -LEAST), max(high, LEAST)))
    parts.append(_entry("load", (), *LOAD))
    return "\n".join(parts)


def _errors(data: Data, left_out: dict[str, Array], kind: Kind, words: Sequence[str]) -> Iterator[Array]:
    """Of the rows in this class; the last class of a kind has all of its rows."""
    fits: Callable[[Case], bool] = lambda case: set(words) <= _words(case)  # noqa: E731 - one line beside its use
    inside = np.array([fits(case) for case in data.cases])
    for figure in kind.figures:
        off = (data.seen[figure] - left_out[figure])[inside]
        yield off[np.isfinite(off)]


def _words(case: Case) -> set[str]:
    return {case.deployment.engine, "experts" if any(kind.experts for kind in case.model.layers) else "dense"}


def _entry(kind: str, words: Sequence[str], low: float, high: float) -> str:
    when = ", ".join(f'"{word}"' for word in words)
    return f'[[class]]\nkind = "{kind}"\nwhen = [{when}]\nlow = {low:.2f}\nhigh = {high:.2f}\n'
