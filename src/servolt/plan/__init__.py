"""Does it fit, and how fast will it be: arithmetic over values, no input or output."""

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
