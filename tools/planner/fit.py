"""Fit the planner's constants to a folder of reference cases: `python -m tools.planner.fit --cases DIR [--write DATE]`.

Rows are cleaned by their flags and by physics; all constants of speed are fitted together in logarithms, each with a
prior and bounds, and after them those of power. Then families of models on one device are left out, a part at a time,
and the error on these is printed. With --write the constants replace those of `data/planner/speed.toml` and
`power.toml`, and the errors of what was left out become the widths of `spreads.toml`.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from servolt.plan.rates import Table, speed_table
from tools.planner.cases import read_cases
from tools.planner.data import Data, clean, data_of
from tools.planner.least_squares import Array, fitted
from tools.planner.parameters import PARAMETERS, priors_of, table_of
from tools.planner.power import fitted_power, power_toml
from tools.planner.spreads import spreads_toml

FOLDER = Path(__file__).parents[2] / "src/servolt/data/planner"
HEAD = """# Written by tools/planner/fit.py: constants of the roofline, fitted to measured speeds of language models on
# accelerators. Value, and factors for the engine, the generation of the device, and words of its name.

[about]
date = "{date}"
source = "a fit over published measurements: InferenceX, ML.ENERGY v3, llama-bench, dstack, MLC; no row is kept here"
"""
SCALE, FIRMNESS, FOLDS, FOLD_ROUNDS = 0.12, 2.0, 12, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, required=True, help="folder with perf_cases*.csv")
    parser.add_argument("--models", type=Path, help="folder with configs; DIR/models unless given")
    parser.add_argument("--write", metavar="DATE", help="replace the constants, with this date")
    parser.add_argument("--folds", type=int, default=FOLDS, help="parts that are left out in turn")
    asked = parser.parse_args()
    data = data_of(list(clean(read_cases(asked.cases, asked.models or asked.cases / "models"))))
    prior = priors_of(PARAMETERS, firmness=FIRMNESS)
    logs = fitted(data.speed_errors(), prior, _start(), scale=SCALE)
    table = table_of(PARAMETERS, logs)
    power = fitted_power(data, table)
    _report("all rows", data, data.predicted(table, power))
    left_out = _left_out(data, logs, asked.folds)
    _report("left out", data, left_out)
    if asked.write:
        for name, text in (
            ("speed", _toml(table, asked.write)),
            ("power", power_toml(data, power, asked.write)),
            ("spreads", spreads_toml(data, left_out, asked.write)),
        ):
            (FOLDER / f"{name}.toml").write_text(text, encoding="utf-8")


def _start() -> Array:
    """From the constants of today: nearer than the centres of the priors."""
    today: Mapping[str, Mapping[str, float]] = speed_table()
    return np.log([today.get(one.constant, {}).get(one.trait, one.centre) for one in PARAMETERS])


def _left_out(data: Data, start: Array, parts: int) -> dict[str, Array]:
    """Predictions of rows whose family and device the fit did not see."""
    groups = np.array([f"{case.family} on {case.accelerator.name}" for case in data.cases])
    names, counts = np.unique(groups, return_counts=True)
    fold_of = {name: place % parts for place, name in enumerate(names[np.argsort(-counts)])}
    folds = np.array([fold_of[name] for name in groups])
    prior = priors_of(PARAMETERS, firmness=FIRMNESS)
    found = {name: np.full(len(data.cases), np.nan) for name in data.seen}
    for fold in range(parts):
        out, kept = folds == fold, data.part(folds != fold)
        table = table_of(PARAMETERS, fitted(kept.speed_errors(), prior, start, scale=SCALE, rounds=FOLD_ROUNDS))
        for name, values in data.part(out).predicted(table, fitted_power(kept, table)).items():
            found[name][out] = values
    return found


def _report(title: str, data: Data, found: dict[str, Array]) -> None:
    kinds = np.array([f"{case.kind} {case.deployment.engine}" for case in data.cases])
    for name, values in data.seen.items():
        for kind in ("", *np.unique(kinds)):
            off = (found[name] - values)[np.isfinite(values) & (np.array(kind == "") | (kinds == kind))]
            if len(off):
                share = 100 * np.abs(np.exp(off) - 1)
                low, high = np.percentile(-off, [10, 90])
                print(
                    f"{title}  {name:8} {kind or 'all':24} n {len(off):5}  median {np.median(share):5.1f} %  "
                    f"P90 {np.percentile(share, 90):6.1f} %  log(measured / predicted) {low:+.2f} to {high:+.2f}"
                )


def _toml(table: Table, date: str) -> str:
    parts = [HEAD.format(date=date)]
    for name, entry in table.items():
        lines = [f"[constants.{name}]", *(f"{trait} = {value:.4g}" for trait, value in entry.items())]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    main()
