"""The plan of a deployment on this very machine: what its parts need from folders and adapters is fetched here."""

from servolt import registry
from servolt.deployment import Deployment
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
    problems = engine.problems(deployment, model, (accelerator,))
    startable = all(problem.severity != "error" for problem in problems)
    return make_plan(
        deployment,
        model,
        accelerator,
        workload,
        read_calibration(folders),
        overhead=lambda changed: engine.overhead(changed, model),
        engine_version=engine.version,
        command=engine.command(deployment, model) if startable else None,
        problems=problems,
    )
