"""Fit the constants of what devices draw, with the constants of their speed as they are."""

from collections.abc import Mapping

import numpy as np

from servolt.plan.rates import Table
from tools.planner.data import Data
from tools.planner.least_squares import Array, Prior, fitted

__all__ = ["fitted_power", "power_toml"]

# Centres are rough: an idle loop on these devices draws a third to a half of the limit, and either of memory and
# arithmetic takes a device most of the way.
PRIOR = {"floor": (0.4, 0.5, 0.1, 0.8), "memory": (0.6, 0.7, 0.05, 5.0), "arithmetic": (2.0, 0.7, 0.1, 10.0)}
SCALE = 0.1
HEAD = """# Written by tools/planner/fit.py. Share of the power limit that a device draws:
# floor + (1 - floor) * (1 - exp(-(memory * u + arithmetic * sqrt(v)))),
# u and v the shares of the time in which memory and arithmetic are busy.

[about]
date = "{date}"
source = "{runs} runs on {devices} of the ML.ENERGY leaderboard v3 (2026-02); no row is kept here"

[constants]
"""


def fitted_power(data: Data, table: Table) -> Mapping[str, float]:
    known = data.part(np.isfinite(data.seen["power"]))
    columns = np.log(np.array(list(PRIOR.values())).T)
    prior = Prior(columns[0], np.array([spread for _, spread, _, _ in PRIOR.values()]), columns[2], columns[3])

    def errors(logs: Array) -> Array:
        found = known.predicted(table, dict(zip(PRIOR, np.exp(logs).tolist(), strict=True)))
        return found["power"] - known.seen["power"]

    logs = fitted(errors, prior, prior.centre, scale=SCALE)
    return dict(zip(PRIOR, np.exp(logs).tolist(), strict=True))


def power_toml(data: Data, power: Mapping[str, float], date: str) -> str:
    known = data.part(np.isfinite(data.seen["power"]))
    devices = " and ".join(sorted({case.accelerator.name.split(" ")[0] for case in known.cases}))
    head = HEAD.format(date=date, runs=len(known.cases), devices=devices)
    return head + "".join(f"{name} = {value:.4g}\n" for name, value in power.items())
