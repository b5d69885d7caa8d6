"""Where weights come from. The sources are asked in turn, and the first that knows a model answers."""

from typing import NamedTuple, Protocol, cast

from servolt import registry
from servolt.deployment import Deployment
from servolt.document import Problem
from servolt.errors import InvalidInputError, ModelFileError, ModelNotFoundError, ServoltError
from servolt.model import Model

__all__ = ["Source", "Survey", "find_model", "list_models", "resolved", "survey_models"]


class Source(Protocol):
    """One place in which models are."""

    def names(self) -> list[str]:
        """What can be asked for, each as NAME or NAME:QUANTIZATION. No file is read for it, so one may be damaged."""
        ...

    def find(self, deployment: Deployment) -> Model | None:
        """None for a model that is none of its own. Raises ModelNotFoundError or ModelFileError for one that is."""
        ...


class Survey(NamedTuple):
    """`faults` name each file that is no model, and say why."""

    models: list[tuple[Deployment, Model]]
    faults: list[Problem]


def find_model(deployment: Deployment) -> Model:
    """The model that a deployment names. Raises ModelNotFoundError, ModelFileError."""
    for source in _sources():
        model = source.find(deployment)
        if model is not None:
            return model
    known = ", ".join(name for source in _sources() for name in filter(str.isprintable, source.names()))
    raise ModelNotFoundError(
        f"no model is called {deployment.label!r} here.", f"There are {known}; or give the path of a GGUF file."
    )


def resolved(deployment: Deployment) -> Deployment:
    """`guide` is `guide:q8_0`: the name of a model without its weights means the first of them, so that one deployment
    has one digest."""
    if deployment.quantization is not None:
        return deployment
    for source in _sources():
        for name in filter(str.isprintable, source.names()):
            named = Deployment.of(name)
            if named.model == deployment.model and named.quantization is not None:
                return deployment.model_copy(update={"quantization": named.quantization})
    return deployment


def list_models() -> list[tuple[Deployment, Model]]:
    """Every model that can be named without a path."""
    return survey_models().models


def survey_models() -> Survey:
    """Every model that can be named without a path, and what stands among them and can't be used."""
    models, faults = [], []
    for source in _sources():
        for name in source.names():
            try:
                deployment = Deployment.of(name)
                model = source.find(deployment)
            except (InvalidInputError, ModelFileError, ModelNotFoundError) as error:
                faults.append(_unusable(name, error))
                continue
            if model is not None:
                models.append((deployment, model))
    return Survey(models, faults)


def _unusable(name: str, error: ServoltError) -> Problem:
    message, remedy = f"{name} can't be used: {error.cause}", error.remedy
    if not name.isprintable():
        message, remedy = f"{name!a} can't be used: its name is no text that can be printed.", "Rename the file."
    return Problem(code="unusable_model", severity="warning", message=message, remedy=remedy)


def _sources() -> list[Source]:
    return [cast("Source", registry.source(name)) for name in registry.names("sources")]
