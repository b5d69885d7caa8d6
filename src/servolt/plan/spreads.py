"""How far predictions of a kind were off, for deployments that were left out of the fit."""

import math

from servolt.deployment import Deployment
from servolt.gpu import Accelerator
from servolt.model import Model

__all__ = ["factors_of"]

Z10 = 1.2816  # standard deviations of a normal distribution at P10 and P90
SPREADS = {"ttft": 0.45, "ttft_cold": 0.45, "prefill_throughput": 0.4, "power": 0.16, "load_time": 0.7}
USUAL = 0.26
GUESSED = 0.25  # beside it, where the model was not known by its config


def factors_of(metric: str, deployment: Deployment, model: Model, accelerator: Accelerator) -> tuple[float, float]:
    """P10 and P90 as factors on the value."""
    spread = SPREADS.get(metric, USUAL)
    if model.unknown_fields or model.basis in ("card", "stated"):
        spread = math.hypot(spread, GUESSED)
    return math.exp(-Z10 * spread), math.exp(Z10 * spread)
