"""The plan of a deployment on this very machine: what its parts need from folders and adapters is fetched here."""

import shutil
from pathlib import Path

from servolt import registry
from servolt.deployment import Deployment
from servolt.document import Problem
from servolt.model import Model
from servolt.plan import Plan, make_plan
from servolt.settings import Folders
from servolt.sources import find_model
from servolt.study.keep import read_accelerator, read_calibration
from servolt.workload import Workload

__all__ = ["plan_here"]


def plan_here(deployment: Deployment, workload: Workload, folders: Folders, model: Model | None = None) -> Plan:
    """Raises ModelNotFoundError, ModelFileError, InvalidInputError, StorageError.

    A problem that the engine calls an error is in `warnings`; the plan then has no command.
    """
    model = model or find_model(deployment)
    engine = registry.engine(deployment.engine)
    accelerator = read_accelerator(folders)
    problems = [*_no_executable(deployment), *engine.problems(deployment, model, (accelerator,))]
    startable = all(problem.severity != "error" for problem in problems)
    return make_plan(
        deployment,
        model,
        accelerator,
        workload,
        read_calibration(folders),
        overhead=lambda changed: engine.overhead(changed, model),
        # What an executable of the user's own is shows only when it runs.
        engine_version=engine.version if deployment.engine_executable is None else None,
        command=engine.command(deployment, model) if startable else None,
        problems=problems,
    )


def _no_executable(deployment: Deployment) -> list[Problem]:
    """As the launcher will look for it: a path, or a name on the search path."""
    path = deployment.engine_executable
    if path is None or shutil.which(path) is not None:
        return []
    why = "is no program that can be run" if Path(path).exists() else "is not there"
    return [
        Problem(
            code="engine_executable",
            severity="error",
            message=f"The engine's executable {path} {why}.",
            remedy="Name one that is, or leave --engine-executable out for the engine that comes with servolt.",
        )
    ]
