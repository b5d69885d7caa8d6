"""Does it fit, and how fast will it be: arithmetic over values, no input or output."""

from servolt.plan.calibration import Calibration, recalibrated, update
from servolt.plan.plan import Plan, make_plan
from servolt.plan.speed import Constants, WeightsSpeed

__all__ = ["Calibration", "Constants", "Plan", "WeightsSpeed", "make_plan", "recalibrated", "update"]
