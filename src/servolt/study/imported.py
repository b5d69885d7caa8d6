"""Results of other programs, as tables, lists or measurements: one row is one deployment at one load."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from servolt import __version__
from servolt.catalogue import find_accelerator
from servolt.deployment import Deployment
from servolt.document import Problem
from servolt.errors import AddressError, InvalidInputError, ModelFileError, ModelNotFoundError
from servolt.gpu import Accelerator
from servolt.measurement import Measurement
from servolt.metrics import METRICS, Estimate
from servolt.model import Model
from servolt.plan.device import make_device_plan
from servolt.plan.known import KnownMemory, KnownSpeed, LoggedTerm, conditions_of
from servolt.plan.memory import TermName
from servolt.plan.memory.emulate import budget_of
from servolt.sources import find_model
from servolt.study.foreign import rows_of
from servolt.workload import Workload

__all__ = ["Imported", "read_results"]

GIB = 2**30
# Other programs' columns, and ours.
FIELDS = {
    "gpu": "accelerator",
    "hardware": "accelerator",
    "n_gpus": "count",
    "gpu_count": "count",
    "devices": "count",
    "tp": "tensor_parallel_size",
    "tp_size": "tensor_parallel_size",
    "pp": "pipeline_parallel_size",
    "pp_size": "pipeline_parallel_size",
    "dp": "data_parallel_size",
    "dp_size": "data_parallel_size",
    "ep": "expert_parallel_size",
    "ep_size": "expert_parallel_size",
    "quant": "quantization",
    "precision": "quantization",
    "kv_dtype": "kv_cache_dtype",
    "version": "engine_version",
    "gpu_mem_util": "gpu_memory_utilization",
    "isl": "input_len",
    "input_tokens": "input_len",
    "prompt_tokens": "input_len",
    "osl": "output_len",
    "output_tokens": "output_len",
    "max_concurrency": "concurrency",
    "batch": "concurrency",
    "rate": "request_rate",
    "output_tok_s": "output_throughput",
    "total_tok_s": "total_throughput",
    "req_s": "request_throughput",
    "prefill_tok_s": "prefill_throughput",
    "decode_tok_s": "decode_throughput",
    "power_w": "power",
    "power_w_total": "power",
    "j_per_output_token": "energy_per_output_token",
    "j_per_request": "energy_per_request",
    "activation_peak_gib": "activation_gib",
    "non_torch_gib": "overhead_gib",
    "cudagraph_gib": "graph_gib",
    "kv_avail_gib": "kv_cache_gib",
    "kv_tokens": "kv_cache_tokens",
    "max_concurrency_x": "max_requests",
}
SCALES = {"_ms": 1e-3, "_us": 1e-6, "_s": 1.0}  # endings of columns of metrics in seconds
TERM_COLUMNS: Mapping[str, TermName] = {
    "weights_gib": "weights",
    "activation_gib": "activation",
    "overhead_gib": "overhead",
    "graph_gib": "graph",
    "state_gib": "state",
    "kv_cache_gib": "kv_cache",
}
WHOLE = ("kv_cache_tokens", "num_gpu_blocks")
LOAD = ("input_len", "output_len", "concurrency", "request_rate")
NOT_ASKED = ("", "auto", "none", "null", "nan")


class Imported(NamedTuple):
    memory: tuple[KnownMemory, ...]
    speeds: tuple[KnownSpeed, ...]
    problems: tuple[Problem, ...]


class _Case(NamedTuple):
    deployment: Deployment
    accelerator: Accelerator
    model: Model | None


def read_results(
    text: str, *, date: str, provenance: str, verified: bool, given: Mapping[str, Any] | None = None
) -> Imported:
    """From CSV with a head line, a JSON list of rows or a row on each line, measurements of servolt, or what other
    programs write (see study/foreign.py). `given` are fields of the deployment that its rows don't tell.

    Columns are a deployment's fields, accelerator, count, input_len, output_len, concurrency or request_rate, and
    metrics in their own units or with the ending _ms; terms of memory end in _gib. Raises InvalidInputError that names
    the row.
    """
    said = {"date": date, "provenance": provenance, "verified": verified, "tool_version": __version__}
    reader = _Reader(said)
    beside = _beside(given or {})
    for place, row in enumerate(_rows(text), start=1):
        try:
            reader.read(row, beside)
        except InvalidInputError as error:
            raise InvalidInputError(f"row {place}: {error.cause}", error.remedy) from error
    if not reader.memory and not reader.speeds:
        known = "tpot_ms, ttft_ms, output_throughput, power; weights_gib, kv_cache_gib, kv_cache_tokens"
        raise InvalidInputError("no row of it has a value that is known here.", f"Columns are such as {known}.")
    return Imported(tuple(reader.memory), tuple(reader.speeds), tuple(reader.problems.values()))


def _beside(given: Mapping[str, Any]) -> dict[str, Any]:
    """As a row has it."""
    hardware = given.get("hardware") or {}
    row = {name: value for name, value in given.items() if name != "hardware"}
    return row | {name: hardware[name] for name in ("accelerator", "count") if name in hardware}


def _rows(text: str) -> Sequence[Mapping[str, Any]]:
    stripped = text.strip()
    if stripped.startswith(("[", "{")):
        plain = _json(stripped)
        listed = plain if isinstance(plain, list) else plain.get("items", [plain])
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
            raise InvalidInputError("it is no list of rows.", "Write a list of objects.")
        return listed
    try:
        rows = list(csv.DictReader(io.StringIO(text), strict=True))
    except csv.Error as error:
        raise InvalidInputError(f"it is not CSV: {error}.", "Correct the file.") from error
    if any(None in row for row in rows):
        raise InvalidInputError("it has rows that are longer than the first line.", "Name every column there.")
    return rows


def _json(text: str) -> Any:
    """One value, or an object on each line."""
    try:
        return json.loads(text)
    except ValueError as error:
        try:
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError:
            raise InvalidInputError(f"it is not JSON: {error}.", "Correct the file, or write CSV.") from error


class _Reader:
    def __init__(self, said: Mapping[str, Any]) -> None:
        self._said = said
        self._cases: dict[str, _Case] = {}
        self.memory: list[KnownMemory] = []
        self.speeds: list[KnownSpeed] = []
        self.problems: dict[str, Problem] = {}

    def read(self, row: Mapping[str, Any], beside: Mapping[str, Any]) -> None:
        """What stands beside the rows fills them up; a server's own name for its model is no model."""
        if str(row.get("schema", "")).startswith("servolt.measurement/"):
            self._measurement(Measurement.from_plain(dict(row)))
            return
        foreign = rows_of(row)
        if foreign is None:
            self._row({**beside, **row})
            return
        for one in foreign:
            named = {name: value for name, value in beside.items() if name == "model" or name not in one}
            self._row({**one, **named})

    def _row(self, row: Mapping[str, Any]) -> None:
        named = {FIELDS.get(name.strip().lower(), name.strip().lower()): value for name, value in row.items() if name}
        stated = {name: value for name, value in named.items() if str(value).strip().lower() not in NOT_ASKED}
        if value := stated.pop("value", None):  # one metric a row: metric, workload, value
            stated |= {str(stated.pop("metric", "")): value, **(stated.pop("workload", None) or {})}
            stated = {FIELDS.get(name, name): one for name, one in stated.items()}
        case = self._case(stated)
        self._memory(case, stated)
        self._speeds(case, stated)

    def _case(self, stated: Mapping[str, Any]) -> _Case:
        if "model" not in stated or "accelerator" not in stated:
            missing = "model" if "model" not in stated else "accelerator"
            raise InvalidInputError(
                f"it has no {missing}.",
                "Each row names its model and its accelerator, or they stand beside: servolt calibrate MODEL "
                "--accelerator NAME --import FILE.",
            )
        fields = {name: value for name, value in stated.items() if name in Deployment.model_fields}
        parallel = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "expert_parallel_size")
        fields |= {name: round(_number(name, fields[name])) for name in parallel if name in fields}
        key = json.dumps([fields, stated["accelerator"], stated.get("count")], sort_keys=True, default=str)
        if key not in self._cases:
            self._cases[key] = self._found(fields, stated)
        return self._cases[key]

    def _found(self, fields: Mapping[str, Any], stated: Mapping[str, Any]) -> _Case:
        deployment = Deployment.from_plain({"engine": "vllm", **fields})
        accelerator = find_accelerator(str(stated["accelerator"]))
        ranks = [getattr(deployment, f"{name}_parallel_size") or 1 for name in ("tensor", "pipeline", "data")]
        count = (
            round(_number("count", stated["count"])) if "count" in stated else max(accelerator.count, math.prod(ranks))
        )
        accelerator = accelerator.model_copy(update={"count": max(1, count)})
        try:
            return _Case(deployment, accelerator, find_model(deployment))
        except (ModelNotFoundError, ModelFileError, AddressError) as error:
            self.problems[deployment.label] = Problem(
                code="model_not_found",
                severity="note",
                message=f"{error.cause} Its values hold for this deployment alone: nothing was predicted.",
                remedy=error.remedy,
            )
            return _Case(deployment, accelerator, None)

    def _memory(self, case: _Case, stated: Mapping[str, Any]) -> None:
        sizes = {term: _number(column, stated[column]) for column, term in TERM_COLUMNS.items() if column in stated}
        whole = {name: round(_number(name, stated[name])) for name in WHOLE if name in stated}
        if not sizes and not whole:
            return
        raw = None if case.model is None else budget_of(case.deployment, case.model, case.accelerator)
        predicted = {} if raw is None else raw.per_rank[0].terms
        terms = {
            name: LoggedTerm(
                bytes=round(size * GIB),
                predicted=predicted[name].bytes if name in predicted else None,
                predicted_low=predicted[name].low if name in predicted else None,
                predicted_high=predicted[name].high if name in predicted else None,
            )
            for name, size in sizes.items()
        }
        requests = _number("max_requests", stated["max_requests"]) if "max_requests" in stated else None
        self.memory.append(
            KnownMemory(
                conditions=conditions_of(case.deployment, case.model, case.accelerator, raw),
                terms=terms,
                predicted_tokens=None if raw is None else raw.kv_cache_tokens,
                max_concurrency=requests,
                source="imported",
                **whole,
                **self._said,
            )
        )

    def _speeds(self, case: _Case, stated: Mapping[str, Any]) -> None:
        values = dict(_metrics(stated))
        if not values:
            return
        load = {name: stated[name] for name in LOAD if name in stated}
        if "concurrency" in load:
            load["concurrency"] = round(_number("concurrency", load["concurrency"]))
        elif "request_rate" in load:
            load["request_rate"] = _number("request_rate", load["request_rate"])
        workload = Workload.from_plain(load)
        self._points(case, workload, values, "imported")

    def _points(self, case: _Case, workload: Workload, values: Mapping[str, float], source: str) -> None:
        point = workload.points[0]
        predicted = self._predicted(case, workload)
        for metric, value in values.items():
            found = predicted.get(metric)
            self.speeds.append(
                KnownSpeed(
                    conditions=conditions_of(case.deployment, case.model, case.accelerator),
                    metric=metric,
                    input_len=workload.input_len,
                    output_len=workload.output_len,
                    concurrency=point.concurrency,
                    request_rate=point.request_rate,
                    value=value,
                    predicted=None if found is None else found.value,
                    low=None if found is None else found.low,
                    high=None if found is None else found.high,
                    source="measured" if source == "measured" else "imported",
                    **self._said,
                )
            )

    def _predicted(self, case: _Case, workload: Workload) -> Mapping[str, Estimate]:
        if case.model is None or case.accelerator.kind == "cpu":
            return {}
        plan = make_device_plan(case.deployment, case.model, case.accelerator, workload)
        return {one.metric: one for one in plan.estimates if one.value}

    def _measurement(self, one: Measurement) -> None:
        if not one.accelerators:
            raise InvalidInputError("this measurement names no device.", "Leave it out.")
        if one.validity.verdict == "invalid":
            return
        case = _Case(one.deployment, one.accelerators[0], one.model)
        for point in one.workload.points:
            asked = (
                {"concurrency": (point.concurrency,)} if point.concurrency else {"request_rate": (point.request_rate,)}
            )
            workload = one.workload.model_copy(update=asked)
            told = [one for one in one.results if (one.concurrency, one.request_rate) == tuple(point) and one.value]
            middle = {one.metric: one.value for one in told if one.statistic in ("mean", "p50", None) and one.value}
            self._points(case, workload, {name: value for name, value in middle.items() if name in METRICS}, "measured")


def _metrics(stated: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in stated.items():
        metric, scale = name, 1.0
        for ending, factor in SCALES.items():
            bare = name.removesuffix(ending)
            if bare != name and bare in METRICS and METRICS[bare].unit == "s":
                metric, scale = bare, factor
        if metric in METRICS:
            number = _number(name, value) * scale
            if number <= 0:
                raise InvalidInputError(f"{name} is {value}.", "Leave out what was not measured.")
            yield metric, number


def _number(name: str, value: Any) -> float:
    try:
        number = float(str(value).replace(",", ""))
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise InvalidInputError(
            f"{name} is {value!r}, which is no number of that kind.", "Correct the cell or empty it."
        )
    return number
