"""What the devices of a deployment draw under a load, from how busy their memory and their arithmetic are."""

import math
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from servolt.gpu import Accelerator
from servolt.plan.roofline import RooflineLaw, least
from servolt.plan.steady import Steady

__all__ = ["Drawn", "drawn_by", "power_w", "share_drawn"]


def power_w(law: RooflineLaw, state: Steady, accelerator: Accelerator) -> float:
    """Watts of all devices, of accelerators whose power limit is known. Host and cooling are not in it."""
    context = (state.total_throughput - state.output_throughput / 2) / state.request_throughput
    busy = law.busy_s(state.running / law.work.replicas, context)
    token_s = min(state.concurrency, state.running) / state.output_throughput  # of those that wait nothing is computed
    share = share_drawn(_constants(), *busy, token_s)
    return (accelerator.tdp_w or 0.0) * accelerator.count * share


class Drawn(NamedTuple):
    """The constants, and the shares of the time in which memory is read and arithmetic is done."""

    floor: float
    memory: float
    arithmetic: float
    read: float
    computed: float


def drawn_by(law: RooflineLaw, state: Steady) -> Drawn:
    """What `power_w` is made of."""
    table = _constants()
    context = (state.total_throughput - state.output_throughput / 2) / state.request_throughput
    read_s, compute_s = law.busy_s(state.running / law.work.replicas, context)
    token_s = min(state.concurrency, state.running) / state.output_throughput
    shares = min(1.0, read_s / token_s), min(1.0, compute_s / token_s)
    return Drawn(table["floor"], table["memory"], table["arithmetic"], *shares)


def share_drawn(constants: Mapping[str, float], read_s: float, compute_s: float, token_s: float) -> float:
    """Of the power limit, for steps of `token_s` in which memory and arithmetic are busy for so long.

    A device that waits draws its floor; memory and arithmetic take it to the limit. Holds for arrays too.
    """
    floor = constants["floor"]
    busy = constants["memory"] * least(1.0, read_s / token_s)
    busy += constants["arithmetic"] * least(1.0, compute_s / token_s) ** 0.5
    share: float = floor + (1.0 - floor) * (1.0 - math.e**-busy)
    return share


@cache
def _constants() -> Mapping[str, float]:
    text = files("servolt").joinpath("data", "planner", "power.toml").read_text(encoding="utf-8")
    constants: Mapping[str, float] = tomllib.loads(text)["constants"]
    return constants
