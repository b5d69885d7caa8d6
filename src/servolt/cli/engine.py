"""What the commands share that need one engine: from a deployment to the supervisor that owns it."""

from collections.abc import Callable

from servolt import registry, settings
from servolt.cli.fit import fit_here, misfit
from servolt.cli.output import say
from servolt.deployment import Deployment
from servolt.errors import InvalidInputError
from servolt.host.facts import cpu_accelerator
from servolt.model import Model
from servolt.serve.supervisor import State, Supervisor
from servolt.sources import find_model

__all__ = ["checked_model", "supervisor_of"]


def checked_model(deployment: Deployment, *, force: bool = False) -> Model:
    """The deployment's model, once neither the engine nor the planner has anything against it.

    Warnings go to stderr; with `force` a model that does not fit is one of them. What `doctor --calibrate` measured is
    not read: nothing here depends on a speed.

    Raises ModelNotFoundError, ModelFileError, InvalidInputError, ConditionFailedError.
    """
    model = find_model(deployment)
    here = cpu_accelerator(source="this machine")
    for problem in registry.engine(deployment.engine).problems(deployment, model, (here,)):
        if problem.severity == "error":
            raise InvalidInputError(problem.message, problem.remedy)
        if problem.severity == "warning":
            say(f"Warning: {problem.message} {problem.remedy}")
    _require_fit(deployment, model, force=force)
    return model


def _require_fit(deployment: Deployment, model: Model, *, force: bool) -> None:
    fit = fit_here(deployment, model)
    if fit.verdict == "no" and not force:
        raise misfit(deployment, fit)
    if fit.verdict in ("no", "tight"):
        may = "may not" if fit.verdict == "tight" else "does not"
        say(f"Warning: {deployment.label} {may} fit. {' '.join(fit.reasons)}")


def supervisor_of(deployment: Deployment, model: Model, on_change: Callable[[State], None] | None = None) -> Supervisor:
    command = registry.engine(deployment.engine).command(deployment, model)
    return Supervisor(
        command,
        registry.launcher("process"),
        logs=settings.folders().logs,
        load_timeout_s=settings.resolve("load_timeout").value,
        on_change=on_change,
    )
