"""A request for a plan from elsewhere: read as strictly as its sender is unknown, then planned."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from servolt import __version__
from servolt.deployment import Deployment
from servolt.errors import InvalidInputError
from servolt.model import Model, model_from_config
from servolt.plan import Plan, read_points
from servolt.plan.link import PREFIX, read_link
from servolt.settings import Folders
from servolt.sources import resolved
from servolt.sources.names import is_hub_id
from servolt.study.bulk import Planner
from servolt.workload import Workload

__all__ = ["PlanRequest", "Requests", "named_by_path", "read_request"]

FIELDS = ("deployment", "workload", "measured", "model_config")
MAX_POINTS = 1000
MAX_LOADS = 64
PATH_ENDINGS = (".gguf", ".json", ".yaml", ".yml", ".safetensors", ".bin", ".pt")


class PlanRequest:
    """What is asked; `config` stands for the model's file."""

    def __init__(self, plain: Mapping[str, Any], *, paths: bool) -> None:
        if unknown := sorted(plain.keys() - set(FIELDS)):
            cause = f"{unknown[0][:60]!r} is no field of a plan's request."
            raise InvalidInputError(cause, f"It has {', '.join(FIELDS)}.")
        self.deployment, self.workload = _read(plain)
        self.measured = read_points(_points(plain)) if plain.get("measured") else ()
        self.config = plain.get("model_config")
        if self.config is not None and not isinstance(self.config, Mapping):
            raise InvalidInputError("model_config is no object.", "Send what the model's config.json holds.")
        if (loads := len(self.workload.points)) > MAX_LOADS:
            raise InvalidInputError(f"there are {loads} loads; {MAX_LOADS} are the most.", "Ask twice.")
        if not paths and self.workload.trace is not None:
            raise InvalidInputError("trace names a file of this machine.", "Send lengths and an arrival in its place.")
        if not paths:
            _refuse_paths(self.deployment, is_inline=self.config is not None)

    def model(self) -> Model | None:
        """None where the name is to be looked up."""
        if self.config is None:
            return None
        asked = self.deployment
        return model_from_config(self.config, name=asked.model, quantization=asked.quantization, dtype=asked.dtype)


def read_request(plain: Mapping[str, Any], *, paths: bool = False) -> PlanRequest:
    """Raises InvalidInputError; unless `paths`, also for what would make this machine open a file that it names."""
    return PlanRequest(plain, paths=paths)


class Requests:
    """Plans what is asked, with one memory of the models that were read."""

    def __init__(self, folders: Folders, *, paths: bool = False) -> None:
        self._planner, self._paths = Planner(folders), paths

    def plan(self, plain: Mapping[str, Any]) -> dict[str, Any]:
        """What `servolt plan --json` prints. Raises ServoltError."""
        request = read_request(plain, paths=self._paths)
        plan = self._planner(request.deployment, request.workload, model=request.model(), measured=request.measured)
        _refuse_faults(plan)
        return {"schema": None, "tool_version": __version__, **plan.model_dump(mode="json")}


def _refuse_faults(plan: Plan) -> None:
    """As on the command line: what can't be started here is refused, and said beside the plan for other hardware."""
    if plan.deployment.hardware is not None and plan.deployment.hardware.accelerator is not None:
        return
    for problem in plan.problems:
        if problem.severity == "error":
            raise InvalidInputError(problem.message, problem.remedy)


def _read(plain: Mapping[str, Any]) -> tuple[Deployment, Workload]:
    asked, load = plain.get("deployment"), plain.get("workload")
    if isinstance(asked, str) and asked.startswith(PREFIX):
        deployment, linked = read_link(asked)
        return resolved(deployment), linked if load is None else Workload.from_plain(load)
    if isinstance(asked, str):
        deployment = Deployment.of(asked)
    elif isinstance(asked, Mapping):
        fields = dict(asked)
        name = fields.pop("model", None)
        is_named = isinstance(name, str) and "quantization" not in fields
        deployment = Deployment.of(str(name), **fields) if is_named else Deployment.from_plain(dict(asked))
    else:
        raise InvalidInputError("the request names no deployment.", 'Send {"deployment": {"model": "guide"}}.')
    return resolved(deployment), Workload.from_plain({} if load is None else load)


def _points(plain: Mapping[str, Any]) -> Any:
    points = plain["measured"]
    if not isinstance(points, list) or len(points) > MAX_POINTS:
        raise InvalidInputError(f"measured is no list of at most {MAX_POINTS} points.", "Send fewer.")
    return points


def _refuse_paths(deployment: Deployment, *, is_inline: bool) -> None:
    draft = deployment.speculative_config.model if deployment.speculative_config else None
    names = {"model": None if is_inline else deployment.model, "speculative_config.model": draft}
    for field, name in names.items():
        if name is not None and named_by_path(name):
            raise InvalidInputError(
                f"{field} names a file of this machine, and its owner does not open those to requests.",
                "Name a built-in model, one of the catalogue or of the Hub, or send its config as model_config.",
            )
    if deployment.engine_executable is not None:
        raise InvalidInputError("engine_executable is a program of this machine.", "Leave it out.")


def named_by_path(name: str) -> bool:
    """Whether a source would take it for a path. A Hub id is none, even where a folder is called so.

    >>> [named_by_path(one) for one in ("/etc/passwd", "~/x", "a/../b", "x.gguf", "C:x", "guide", "Qwen/Qwen3-8B")]
    [True, True, True, True, True, False, False]
    """
    bare = name.lower().strip()
    if bare.endswith(PATH_ENDINGS) or bare.startswith(("~", ".", "/")) or any(one in name for one in ("\\", ":", "..")):
        return True
    if "/" in name:
        return not is_hub_id(name) or Path(name).exists()  # a folder of that name would win over the Hub
    return False
