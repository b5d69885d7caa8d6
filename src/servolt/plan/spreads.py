"""How far predictions of a kind were off, for deployments that were left out of the fit."""

import math
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from servolt.deployment import Deployment
from servolt.gpu import Accelerator
from servolt.model import Model
from servolt.plan.rates import ENGINES

__all__ = ["factors_of"]

# Of one deployment beside another of its kind, in logarithms: where the model is known by its name or size only, where
# its engine or its device is of none of the kinds that the fit saw. Set by hand: no left-out row tells.
GUESSED_MODEL, UNSEEN_ENGINE, UNSEEN_DEVICE = 0.35, 0.4, 0.3
SEEN_ENGINES = frozenset({"vllm", "sglang", "tensorrt_llm", "llamacpp"})
SEEN_DEVICES = frozenset({"ampere", "ada", "hopper", "blackwell", "m1", "m2", "m3"})


def factors_of(metric: str, deployment: Deployment, model: Model, accelerator: Accelerator) -> tuple[float, float]:
    """P10 and P90 as factors on the value. A rate's are those of its time, turned round."""
    table = _table()
    kind = table["metrics"].get(metric, "token")
    engine = ENGINES.get(deployment.engine, deployment.engine)
    words = {engine, "experts" if any(layer.experts for layer in model.layers) else "dense"}
    low, high = _class(kind, words, table)
    wider = _doubt(engine, model, accelerator) if kind != "load" else 0.0
    low, high = -math.hypot(low, wider), math.hypot(high, wider)
    if metric.endswith("_throughput"):
        low, high = -high, -low
    return math.exp(low), math.exp(high)


def _class(kind: str, words: set[str], table: Mapping[str, Any]) -> tuple[float, float]:
    found = next(one for one in table["class"] if one["kind"] == kind and words.issuperset(one["when"]))
    return float(found["low"]), float(found["high"])


def _doubt(engine: str, model: Model, accelerator: Accelerator) -> float:
    generation = (accelerator.architecture or "unknown").lower().split()[0]
    return math.hypot(
        GUESSED_MODEL if model.basis in ("card", "stated") or not model.layers else 0.0,
        UNSEEN_ENGINE if engine not in SEEN_ENGINES else 0.0,
        UNSEEN_DEVICE if generation not in SEEN_DEVICES else 0.0,
    )


@cache
def _table() -> Mapping[str, Any]:
    return tomllib.loads(files("servolt").joinpath("data", "planner", "spreads.toml").read_text(encoding="utf-8"))
