"""Many plans: each row of a table is a deployment and a workload, and is answered or refused in its own row."""

import difflib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from servolt.deployment import Deployment, Hardware, Speculation
from servolt.document import Problem, Value
from servolt.errors import InvalidInputError, ServoltError
from servolt.model import Model
from servolt.plan import KnownPoint, Plan
from servolt.settings import Folders
from servolt.sources import find_model, find_or_guess, resolved
from servolt.study.economy import economy_for
from servolt.study.plan import plan_for
from servolt.workload import SHORT, Workload

__all__ = ["ANSWERS", "Defaults", "Planner", "answers", "columns_of", "read_row"]

# Columns that are no fields: they come out as they went in.
CARRIED = ("id", "name", "note")
PARTS: Mapping[str, type[Value]] = {"hardware": Hardware, "speculative_config": Speculation}
LISTS = ("tensor_split", "concurrency", "request_rate")
AS_JSON = ("limit_mm_per_prompt", "engine_args", "input_lengths", "output_lengths", "slo")
METRICS = (
    *("ttft", "ttft_cold", "tpot", "itl", "e2el", "output_throughput", "request_throughput", "total_throughput"),
    *("prefill_throughput", "decode_throughput", "saturation_concurrency", "saturation_request_rate"),
    *("kv_concurrency", "load_time", "utilisation", "power", "idle_energy_share"),
    *("energy_per_output_token", "energy_per_request", "cost_per_hour", "cost_per_million_output_tokens"),
    "carbon_per_million_output_tokens",
)
MEMORY = (
    *("weights_bytes", "kv_cache_bytes", "state_bytes", "activation_bytes", "graph_bytes", "overhead_bytes"),
    *("total_bytes", "total_bytes_low", "total_bytes_high", "available_bytes", "kv_bytes_per_token"),
    *("kv_cache_tokens", "kv_cache_tokens_low", "kv_cache_tokens_high"),
    *("max_concurrency", "max_concurrency_low", "max_concurrency_high"),
)
MODELS_KEPT = 256  # some 100 KB each
REFUSED = ("code", "message", "remedy")
ANSWERS = (
    *("verdict", "binding", "device", "devices"),
    *("planned_max_model_len", "planned_max_num_seqs"),  # what the engine takes where a row leaves them to it
    *MEMORY,
    *(f"{metric}{bound}" for metric in METRICS for bound in ("", "_low", "_high")),
    *("bottleneck", "basis", "problems", "deployment_digest", "tool_version", *REFUSED),
)


def columns_of(header: Sequence[str]) -> tuple[str, ...]:
    """The columns of a table, checked before any row is planned. Raises InvalidInputError."""
    names = [name.strip() for name in header]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidInputError(f"the column {twice[0]!r} stands there twice.", "Leave one of them.")
    known = _known()
    for name in names:
        if name.partition(".")[0] not in ("engine_args", "limit_mm_per_prompt") and name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            remedy = f"The nearest are {', '.join(near)}. " if near else ""
            raise InvalidInputError(
                f"no field is called {name!r}.",
                f"{remedy}`servolt schema deployment` and `servolt schema workload` list the fields; "
                f"{', '.join(CARRIED)} are carried along.",
            )
    if "model" not in names:
        raise InvalidInputError("no column names the model.", "Add a column `model`.")
    return tuple(names)


def _known() -> list[str]:
    whole = [name for name in (*Deployment.model_fields, *Workload.model_fields) if name not in ("schema_", *PARTS)]
    parts = [f"{part}.{name}" for part, kind in PARTS.items() for name in kind.model_fields]
    return [*whole, *parts, *SHORT, *CARRIED]


class Defaults(NamedTuple):
    """What holds for each row that does not say otherwise: fields as a document has them."""

    deployment: Mapping[str, Any] = MappingProxyType({})
    workload: Mapping[str, Any] = MappingProxyType({})


NONE = Defaults()


def read_row(row: Mapping[str, str], defaults: Defaults = NONE) -> tuple[Deployment, Workload]:
    """An empty cell is not set. Raises InvalidInputError.

    >>> read_row({"model": "guide", "tensor_parallel_size": "2", "hardware.accelerator": ""})[0].tensor_parallel_size
    2
    """
    fields = {name: dict(value) if isinstance(value, Mapping) else value for name, value in defaults.deployment.items()}
    workload = dict(defaults.workload)
    for name, text in row.items():
        if name in CARRIED or not (text := text.strip()):
            continue
        head, dot, rest = name.partition(".")
        if dot:
            fields.setdefault(head, {})[rest] = _plain(rest, text) if head == "engine_args" else text
        elif name in Workload.model_fields or name in SHORT:
            of_parts = name in AS_JSON or text[:1] in ("{", "[")  # spread lengths: {"mean": 512, "cv": 0.5}
            workload[name] = _listed(text) if name in LISTS else _object(name, text) if of_parts else text
        else:
            fields[name] = _listed(text) if name in LISTS else _object(name, text) if name in AS_JSON else text
    model = fields.pop("model", None)
    if model is None:
        raise InvalidInputError("the row names no model.", "Fill in its column `model`.")
    return resolved(Deployment.of(str(model), **fields)), Workload.from_plain(workload)


def _listed(text: str) -> list[str]:
    """1,4 or 1 4: where commas part the columns, spaces need no quotes."""
    return text.replace(",", " ").split()


def _object(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{name} is no JSON.", 'Write it as {"image": 2}.') from error


def _plain(name: str, text: str) -> Any:
    """A number or a truth value where it is one, else text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, str | int | float | bool) else text


class Planner:
    """Plans of many deployments: a model's file or config is read once, however many rows ask for it."""

    def __init__(self, folders: Folders, costs: Mapping[str, Any] = MappingProxyType({})) -> None:
        self._folders, self._costs = folders, costs
        self._models: dict[tuple[str | None, ...], Model] = {}

    def __call__(
        self,
        deployment: Deployment,
        workload: Workload,
        *,
        model: Model | None = None,
        measured: Sequence[KnownPoint] = (),
    ) -> Plan:
        return plan_for(
            deployment,
            workload,
            self._folders,
            model=model or self._model(deployment),
            measured=measured,
            economy=economy_for(deployment, self._costs),
        )

    def _model(self, deployment: Deployment) -> Model:
        key = (deployment.model, deployment.quantization, deployment.dtype, deployment.engine)
        found = self._models.get(key)
        if found is None:
            if len(self._models) >= MODELS_KEPT:
                self._models.clear()
            is_elsewhere = deployment.hardware is not None and deployment.hardware.accelerator is not None
            found = self._models[key] = (find_or_guess if is_elsewhere else find_model)(deployment)
        return found


def answers(
    rows: Iterable[Mapping[str, str]],
    plan: Callable[[Deployment, Workload], Plan],
    tool_version: str,
    defaults: Defaults = NONE,
) -> Iterator[dict[str, Any]]:
    """One answer for each row, in order, as soon as it is there: ANSWERS by name, None where it is not known."""
    for row in rows:
        answer: dict[str, Any] = dict.fromkeys(ANSWERS) | {"tool_version": tool_version}
        try:
            deployment, workload = read_row(row, defaults)
            answer |= _answer(plan(deployment, workload))
        except ServoltError as error:
            answer |= {"code": error.code, "message": error.cause, "remedy": error.remedy}
        except (ArithmeticError, ValueError, LookupError, TypeError) as error:
            # A fault of the planner's own costs this row, and not those before and after it.
            answer |= {
                "code": "E-BUG-001",
                "message": f"unexpected {type(error).__name__}: {error}",
                "remedy": "Please report this row.",
            }
        yield answer


def _answer(plan: Plan) -> dict[str, Any]:
    memory, rank = plan.memory, plan.memory.fullest
    found: dict[str, Any] = {
        "verdict": plan.verdict,
        "binding": plan.binding,
        "device": plan.accelerator.name,
        "devices": plan.accelerator.count,
        "planned_max_model_len": memory.max_model_len,
        "planned_max_num_seqs": memory.max_num_seqs,
        "total_bytes_low": rank.low_bytes,
        "total_bytes_high": rank.high_bytes,
        "bottleneck": plan.bottleneck,
        "basis": plan.basis,
        "problems": " ".join(_told(plan.problems)) or None,
        "deployment_digest": plan.deployment_digest,
    }
    for name in MEMORY:
        if name not in found:
            found[name] = getattr(rank, name, None) if name.endswith("_bytes") else getattr(memory, name)
    for metric in METRICS:
        figure = plan.predictions.get(metric)
        if figure is not None:
            found |= {metric: figure.value, f"{metric}_low": figure.low, f"{metric}_high": figure.high}
    faults = [problem for problem in plan.problems if problem.severity == "error"]
    if faults:  # it was planned all the same, and can't be started so
        found |= {"code": faults[0].code, "message": faults[0].message, "remedy": faults[0].remedy}
    return found


def _told(problems: Sequence[Problem]) -> Iterator[str]:
    return (f"{problem.severity}:{problem.code}" for problem in problems)
