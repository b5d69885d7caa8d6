"""How much of the time devices have work, and what they draw while they have none."""

import math
from typing import NamedTuple

from servolt.gpu import Accelerator
from servolt.plan.roofline import RooflineLaw
from servolt.workload import Workload

__all__ = ["Draw", "busy_share", "draw_of", "idle_w"]

# Of the power limit, where no idle power is known: the median of the catalogue's 22 devices that have both, and their
# 10th and 90th percentile.
IDLE_SHARE = 0.104
# What a device that waits with a model loaded was reported to draw, over its idle power without a process: 65 to 120 W
# for H100s of 70 W. Unverified, so it only widens the interval.
LOADED_LOW, LOADED_HIGH = 0.9, 1.7


class Draw(NamedTuple):
    """Watts of all devices. `busy` is the share of their time in which they have work."""

    busy_w: float  # of all devices, if all of them worked all the time
    idle_w: float  # of all devices, if none of them did
    busy: float

    @property
    def mean_w(self) -> float:
        return self.working_w + self.waiting_w

    @property
    def working_w(self) -> float:
        return self.busy * self.busy_w

    @property
    def waiting_w(self) -> float:
        return (1.0 - self.busy) * self.idle_w

    @property
    def idle_share(self) -> float:
        """Of the joules, those that are drawn while a device waits."""
        return self.waiting_w / self.mean_w if self.mean_w else 0.0

    def interval(self, low: float, high: float) -> tuple[float, float]:
        """Of the mean, as factors; `low` and `high` are those of the power under load."""
        least = self.working_w * low + self.waiting_w * LOADED_LOW
        most = self.working_w * high + self.waiting_w * LOADED_HIGH
        return least / self.mean_w, most / self.mean_w


def draw_of(law: RooflineLaw, accelerator: Accelerator, busy_w: float, share: float) -> Draw:
    """`busy_w` is what all devices would draw under the load; `share` of the time the engine has requests."""
    return Draw(busy_w, idle_w(accelerator)[0], share * _used(law, accelerator))


def idle_w(accelerator: Accelerator) -> tuple[float, str]:
    """Of all devices, and where it is from. 0 where the power limit isn't known either: then no power is planned."""
    if accelerator.idle_w is not None:
        return accelerator.idle_w * accelerator.count, "the catalogue's idle power"
    each = IDLE_SHARE * (accelerator.tdp_w or 0.0)
    return (
        each * accelerator.count,
        f"{IDLE_SHARE:g} of the power limit, the median of devices whose idle power is known",
    )


def busy_share(law: RooflineLaw, workload: Workload, concurrency: float, running: float) -> float:
    """Of the time, in which a device that the deployment uses has work.

    `concurrency` requests are in the system on average, `running` of them in batches. A closed loop keeps as many
    copies busy as it has streams. Requests that arrive at random leave a copy empty for exp(-n) of the time, n its mean
    number of requests: an M/G/infinity queue, which continuous batching is at the low loads where it matters. A stage
    of a pipeline works while one of its sequences is in it.
    """
    each = concurrency / law.work.replicas
    if workload.arrival in ("closed", "constant"):
        has_requests = min(1.0, each)
    else:
        has_requests = 1.0 - math.exp(-each / workload.arrives_together)
    return has_requests * min(1.0, running / law.work.replicas / law.work.stages)


def _used(law: RooflineLaw, accelerator: Accelerator) -> float:
    """Of the devices, those that the deployment puts to work. A CPU's count is of its cores."""
    if accelerator.kind == "cpu":
        return 1.0
    return min(1.0, law.work.replicas * law.work.stages * law.work.devices / accelerator.count)
