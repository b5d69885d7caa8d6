"""What the commands share that need one engine: from a deployment to the supervisor that owns it."""

from collections.abc import Callable

from servolt import registry, settings
from servolt.cli.output import say
from servolt.deployment import Deployment
from servolt.errors import InvalidInputError
from servolt.model import Model
from servolt.serve.supervisor import State, Supervisor
from servolt.sources import find_model
from servolt.study.keep import read_accelerator

__all__ = ["checked_model", "supervisor_of"]


def checked_model(deployment: Deployment) -> Model:
    """The deployment's model, once the engine has nothing against it. Warnings go to stderr.

    Raises ModelNotFoundError, ModelFileError, InvalidInputError.
    """
    model = find_model(deployment)
    for problem in registry.engine(deployment.engine).problems(
        deployment, model, (read_accelerator(settings.folders()),)
    ):
        if problem.severity == "error":
            raise InvalidInputError(problem.message, problem.remedy)
        if problem.severity == "warning":
            say(f"Warning: {problem.message} {problem.remedy}")
    return model


def supervisor_of(deployment: Deployment, model: Model, on_change: Callable[[State], None] | None = None) -> Supervisor:
    command = registry.engine(deployment.engine).command(deployment, model)
    return Supervisor(
        command,
        registry.launcher("process"),
        logs=settings.folders().logs,
        load_timeout_s=settings.resolve("load_timeout").value,
        on_change=on_change,
    )
