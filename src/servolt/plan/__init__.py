"""Does it fit, and how fast will it be: arithmetic over values, no input or output."""

from servolt.plan.calibration import Calibration, recalibrated, update
from servolt.plan.here import make_plan
from servolt.plan.plan import Figure, Plan
from servolt.plan.speed import Constants, WeightsSpeed

__all__ = ["Calibration", "Constants", "Figure", "Plan", "WeightsSpeed", "make_plan", "recalibrated", "update"]
