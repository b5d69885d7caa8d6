"""What the devices of a deployment draw under a load, from how busy their memory and their arithmetic are."""

import math
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from servolt.gpu import Accelerator
from servolt.plan.roofline import RooflineLaw
from servolt.plan.steady import Steady

__all__ = ["power_w"]


def power_w(law: RooflineLaw, state: Steady, accelerator: Accelerator) -> float:
    """Watts of all devices, of accelerators whose power limit is known.

    A device that waits draws its floor; memory and arithmetic take it to the limit. Host and cooling are not in it.
    """
    table = _constants()
    context = (state.total_throughput - state.output_throughput / 2) / state.request_throughput
    read_s, compute_s = law.busy_s(state.running / law.work.replicas, context)
    token_s = min(state.concurrency, state.running) / state.output_throughput  # of those that wait nothing is computed
    busy = table["memory"] * min(1.0, read_s / token_s) + table["arithmetic"] * math.sqrt(min(1.0, compute_s / token_s))
    share = table["floor"] + (1 - table["floor"]) * (1 - math.exp(-busy))
    return (accelerator.tdp_w or 0.0) * accelerator.count * share


@cache
def _constants() -> Mapping[str, float]:
    text = files("servolt").joinpath("data", "planner", "power.toml").read_text(encoding="utf-8")
    constants: Mapping[str, float] = tomllib.loads(text)["constants"]
    return constants
