"""Does it fit, and how fast will it be: arithmetic over values, no input or output.

The package is the verb too: `servolt.plan(deployment, workload)` is `servolt.library.plan`.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

from servolt.plan.calibration import Calibration, recalibrated, update
from servolt.plan.correction import KnownPoint, read_points
from servolt.plan.here import make_plan
from servolt.plan.plan import Figure, Plan
from servolt.plan.speed import Constants, WeightsSpeed

__all__ = [
    "Calibration",
    "Constants",
    "Figure",
    "KnownPoint",
    "Plan",
    "WeightsSpeed",
    "make_plan",
    "read_points",
    "recalibrated",
    "update",
]


class _Verb(ModuleType):
    """A module that can be called. What it calls lies above this package, so it is looked up when it is called."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return importlib.import_module("servolt.library").plan(*args, **kwargs)


sys.modules[__name__].__class__ = _Verb
