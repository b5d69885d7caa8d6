"""Reference cases as arrays: what was seen, what the formulas predict, and which rows can be believed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from servolt.plan.power import share_drawn
from servolt.plan.rates import Table
from tools.planner.cases import Case
from tools.planner.least_squares import Array
from tools.planner.parameters import PARAMETERS, table_of
from tools.planner.stack import Stack, stacked

__all__ = ["Data", "clean", "data_of"]

# What a row's error counts by: a first token's time and a prompt's rate depend on how a client sends its requests.
WEIGHTS = {"tpot": 1.0, "ttft": 0.5, "itl": 0.5, "rate": 1.0, "prefill": 0.5}
# What is predicted beside them, and fitted apart or not at all.
OTHERS = ("request", "power", "energy")
BAD_FLAGS = ("conflict", "multi_node", "overload", "unoptimised", "host_bound")
# More keys and values in use than fit beside the weights, with room for what that estimate misses: mislabelled rows.
OVERFULL, OVERWEIGHT = 1.25, 0.97


class Data(NamedTuple):
    """`seen` are logarithms, of times in seconds, watts and joules; nan where a row has no such figure."""

    cases: Sequence[Case]
    stack: Stack
    seen: dict[str, Array]

    def part(self, keep: NDArray[np.bool_]) -> "Data":
        cases = [case for case, kept in zip(self.cases, keep, strict=True) if kept]
        return Data(cases, self.stack.part(keep), {name: values[keep] for name, values in self.seen.items()})

    def predicted(self, table: Table, power: Mapping[str, float]) -> dict[str, Array]:
        stack, law, times = self.stack, self.stack.law(table), self.stack.times(table)
        e2el = times.ttft + (stack.output_len - 1) * times.tpot
        output_rate = stack.concurrency * stack.output_len / e2el
        prompt_s = law.prefill_s(np.maximum(stack.input_len, 1))  # type: ignore[arg-type]
        busy = law.busy_s(times.running, stack.input_len + stack.output_len / 2)  # type: ignore[arg-type]
        limit = np.array([(case.accelerator.tdp_w or np.nan) * case.devices for case in self.cases])
        step = times.running * law.work.replicas / output_rate
        watts = limit * share_drawn(power, *busy, step)  # type: ignore[arg-type]
        return {
            "tpot": np.log(times.tpot),
            "ttft": np.log(times.ttft),
            "itl": np.log(times.step),
            "rate": np.log(e2el / stack.output_len),
            "request": np.log(e2el),
            "prefill": np.log(prompt_s),
            "power": np.log(watts),
            "energy": np.log(watts / output_rate),
        }

    def speed_errors(self) -> Callable[[Array], Array]:
        known = {name: np.isfinite(self.seen[name]) for name in WEIGHTS}
        idle = {"floor": 1.0, "memory": 0.0, "arithmetic": 0.0}

        def errors(logs: Array) -> Array:
            found = self.predicted(table_of(PARAMETERS, logs), idle)
            parts = [weight * (found[name] - self.seen[name])[known[name]] for name, weight in WEIGHTS.items()]
            return np.concatenate(parts)

        return errors


def clean(cases: Iterator[Case]) -> Iterator[Case]:
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


def data_of(cases: Sequence[Case]) -> Data:
    names = (*WEIGHTS, *OTHERS)
    data = Data(cases, stacked(cases), {name: np.array([_seen(case, name) for case in cases]) for name in names})
    return data.part(_possible(data))


def _seen(case: Case, name: str) -> float:
    """The logarithm of what was measured; of a rate, as a time. nan where it was not."""
    closed, steady = case.kind == "closed", case.kind == "steady" and "short" not in case.flags
    single = 1 / case.decode_throughput if case.decode_throughput and case.kind in ("single", "server") else None
    rate = case.concurrency / case.output_throughput if case.output_throughput else None
    prompt = case.input_len / case.prefill_throughput if case.prefill_throughput else None
    rate = rate if steady or case.kind == "offline" else None
    whole = case.ttft + (case.output_len - 1) * case.tpot if closed and case.ttft and case.tpot else None
    watts = case.power_w if steady else None
    values = {
        "tpot": case.tpot if closed else single or (case.itl if case.kind == "server" else None),
        "ttft": case.ttft if closed else None,
        "itl": case.itl if steady else None,
        "rate": rate,
        "request": whole or (rate * case.output_len if rate else None),
        "prefill": prompt if case.kind == "prefill" else None,
        "power": watts,
        "energy": watts / case.output_throughput if watts and case.output_throughput else None,
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
