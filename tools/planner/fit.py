"""Fit the constants of the roofline to a folder of reference cases: `python -m tools.planner.fit --cases DIR`.

Rows are cleaned by their flags and by physics; all constants are fitted together in logarithms, each with a prior and
bounds. Then families of models on one device are left out, a part at a time, and the error on these is printed. With
--write the constants replace those of `data/planner/speed.toml`.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from servolt.plan.rates import Table
from tools.planner.cases import Case, read_cases
from tools.planner.least_squares import Array, fitted
from tools.planner.parameters import PARAMETERS, priors_of, table_of
from tools.planner.stack import Stack, stacked

TABLE = Path(__file__).parents[2] / "src/servolt/data/planner/speed.toml"
HEAD = """# Written by tools/planner/fit.py: constants of the roofline, fitted to measured speeds of language models on
# accelerators. Value, and factors for the engine, the generation of the device, and words of its name.

[about]
date = "{date}"
source = "a fit over published measurements: InferenceX, ML.ENERGY v3, llama-bench, dstack, MLC; no row is kept here"
"""
# What a row's error counts by: a first token's time and a prompt's rate depend on how a client sends its requests.
WEIGHTS = {"tpot": 1.0, "ttft": 0.5, "rate": 1.0, "prefill": 0.5}
SCALE, FIRMNESS, FOLDS, FOLD_ROUNDS = 0.12, 2.0, 12, 8
BAD_FLAGS = ("conflict", "multi_node", "overload", "unoptimised", "host_bound")
# More keys and values in use than fit beside the weights, with room for what that estimate misses: mislabelled rows.
OVERFULL, OVERWEIGHT = 1.25, 0.97
PICTURES = ("VL", "Omni")  # prompts of unknown length, with images


class Data(NamedTuple):
    cases: Sequence[Case]
    stack: Stack
    seen: dict[str, Array]

    def part(self, keep: NDArray[np.bool_]) -> "Data":
        cases = [case for case, kept in zip(self.cases, keep, strict=True) if kept]
        return Data(cases, self.stack.part(keep), {name: values[keep] for name, values in self.seen.items()})

    def predicted(self, table: Table) -> dict[str, Array]:
        stack, times = self.stack, self.stack.times(table)
        e2el = times.ttft + (stack.output_len - 1) * times.tpot
        prompt_s = stack.law(table).prefill_s(np.maximum(stack.input_len, 1))  # type: ignore[arg-type]
        return {
            "tpot": np.log(times.tpot),
            "ttft": np.log(times.ttft),
            "rate": np.log(e2el / stack.output_len),
            "prefill": np.log(prompt_s),
        }

    def errors(self) -> Callable[[Array], Array]:
        known = {name: np.isfinite(values) for name, values in self.seen.items()}

        def errors(logs: Array) -> Array:
            found = self.predicted(table_of(PARAMETERS, logs))
            return np.concatenate(
                [WEIGHTS[name] * (found[name] - values)[known[name]] for name, values in self.seen.items()]
            )

        return errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=Path, required=True, help="folder with perf_cases*.csv")
    parser.add_argument("--models", type=Path, help="folder with configs; DIR/models unless given")
    parser.add_argument("--write", metavar="DATE", help="replace the constants, with this date")
    asked = parser.parse_args()
    data = _data(list(_clean(read_cases(asked.cases, asked.models or asked.cases / "models"))))
    prior = priors_of(PARAMETERS, firmness=FIRMNESS)
    logs = fitted(data.errors(), prior, prior.centre, scale=SCALE)
    _report("all rows", data, {name: data.predicted(table_of(PARAMETERS, logs))[name] for name in data.seen})
    _report("left out", data, _left_out(data, logs))
    if asked.write:
        TABLE.write_text(_toml(table_of(PARAMETERS, logs), asked.write), encoding="utf-8")


def _clean(cases: Iterator[Case]) -> Iterator[Case]:
    """Without flagged rows, other classes and repeats."""
    known = set()
    for case in cases:
        key = (case.family, case.accelerator.name, case.precision, case.deployment.digest, case.devices, *case[11:20])
        other = case.kind in ("disaggregated", "tuned") or (case.kind == "server" and case.source.startswith("dstack"))
        bare = case.kind == "closed" and (case.devices > 8 or not case.tpot or case.output_len < 2)
        if other or bare or key in known or any(flag in case.flags for flag in BAD_FLAGS):
            continue
        known.add(key)
        yield case


def _data(cases: Sequence[Case]) -> Data:
    data = Data(cases, stacked(cases), {name: np.array([_seen(case, name) for case in cases]) for name in WEIGHTS})
    return data.part(_possible(data))


def _seen(case: Case, name: str) -> float:
    """The logarithm of what was measured, as a time; nan where it was not."""
    pictures = any(word in case.deployment.model for word in PICTURES)
    short = case.kind == "steady" and "short" in case.flags
    single = 1 / case.decode_throughput if case.decode_throughput and case.kind in ("single", "server") else None
    rate = case.concurrency / case.output_throughput if case.output_throughput else None
    prompt = case.input_len / case.prefill_throughput if case.prefill_throughput else None
    values = {
        "tpot": case.tpot if case.kind == "closed" else single or (case.itl if case.kind == "server" else None),
        "ttft": case.ttft if case.kind == "closed" else None,
        "rate": rate if case.kind in ("steady", "offline") and not pictures and not short else None,
        "prefill": prompt if case.kind == "prefill" else None,
    }
    value = values[name]
    return float(np.log(value)) if value else float("nan")


def _possible(data: Data) -> NDArray[np.bool_]:
    """Closed loops whose weights and running sequences fit the devices that they name."""
    stack = data.stack
    memory = np.array([case.accelerator.visible_memory_bytes or case.accelerator.memory_bytes for case in data.cases])
    decoding = (stack.output_len - 1) * np.array([case.tpot or 1.0 for case in data.cases])
    first = np.array([case.ttft or 0.0 for case in data.cases])
    running = stack.concurrency * decoding / np.maximum(first + decoding, 1e-9)
    fits = running * (stack.input_len + stack.output_len / 2) <= stack.kv_cache_tokens * OVERFULL
    closed = np.array([case.kind == "closed" for case in data.cases])
    possible: NDArray[np.bool_] = ~closed | ((stack.work.weights_bytes < OVERWEIGHT * memory) & fits)
    return possible


def _left_out(data: Data, start: Array) -> dict[str, Array]:
    """Predictions of rows whose family and device the fit did not see."""
    groups = np.array([f"{case.family} on {case.accelerator.name}" for case in data.cases])
    names, counts = np.unique(groups, return_counts=True)
    fold_of = {name: place % FOLDS for place, name in enumerate(names[np.argsort(-counts)])}
    folds = np.array([fold_of[name] for name in groups])
    prior = priors_of(PARAMETERS, firmness=FIRMNESS)
    found = {name: np.full(len(data.cases), np.nan) for name in data.seen}
    for fold in range(FOLDS):
        out = folds == fold
        logs = fitted(data.part(~out).errors(), prior, start, scale=SCALE, rounds=FOLD_ROUNDS)
        for name, values in data.part(out).predicted(table_of(PARAMETERS, logs)).items():
            found[name][out] = values
    return found


def _report(title: str, data: Data, found: dict[str, Array]) -> None:
    kinds = np.array([f"{case.kind} {case.deployment.engine}" for case in data.cases])
    for name, values in data.seen.items():
        for kind in np.unique(kinds):
            off = (found[name] - values)[(kinds == kind) & np.isfinite(values)]
            if len(off):
                share = 100 * np.abs(np.exp(off) - 1)
                low, high = np.percentile(-off, [10, 90])
                print(
                    f"{title}  {name:8} {kind:24} n {len(off):5}  median {np.median(share):5.1f} %  "
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
