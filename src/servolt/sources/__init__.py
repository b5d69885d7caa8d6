"""Where weights come from. The sources are asked in turn, and the first that knows a model answers."""

from typing import NamedTuple, Protocol, cast

from servolt import registry
from servolt.catalogue import AmbiguousNameError, UnknownNameError, find_model_entry, known_model_entry
from servolt.deployment import Deployment
from servolt.document import Problem
from servolt.errors import AddressError, InvalidInputError, ModelFileError, ModelNotFoundError, ServoltError
from servolt.model import Model
from servolt.sources.figures import stated
from servolt.sources.guesses import entry_model, guessed_model, name_and_format
from servolt.sources.names import NotOnHubError, is_hub_id

__all__ = ["Source", "Survey", "find_model", "find_or_guess", "list_models", "resolved", "survey_models"]


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
    """The model that a deployment names: figures, built in, a path, in the folder of models, catalogue, Hub.

    What only the catalogue or the Hub knows has no files here. Raises ModelNotFoundError, ModelFileError, and
    AddressError where the Hub would have to be asked and can't be.
    """
    figures = stated(deployment)
    if figures is not None:
        return figures
    for source in _sources():
        model = source.find(deployment)
        if model is not None:
            return model
    model = _from_catalogue(deployment)
    if model is not None:
        return model
    if is_hub_id(deployment.model):
        model = _from_hub(deployment)
        if model is not None:
            return model
    known = ", ".join(name for source in _sources() for name in filter(str.isprintable, source.names()))
    raise ModelNotFoundError(
        f"no model is called {deployment.label!r} here.{_near(deployment)}",
        f"There are {known}; or give the path of a GGUF file, a folder or a config.json, or a Hub id OWNER/NAME.",
    )


def find_or_guess(deployment: Deployment) -> Model:
    """For plans of hardware that is elsewhere: a model that can't be looked up now is what its name says it may be.

    Its metadata then hold `guessed_because`. A name that the Hub says it doesn't know is refused. Raises
    ModelNotFoundError, ModelFileError, AddressError.
    """
    try:
        return find_model(deployment)
    except NotOnHubError:
        raise
    except (AddressError, ModelNotFoundError) as error:
        return guessed_model(deployment, error)


def _from_catalogue(deployment: Deployment) -> Model | None:
    name, quantization = name_and_format(deployment)
    try:
        entry = known_model_entry(name)
    except AmbiguousNameError:
        return None
    return None if entry is None else entry_model(entry, name, quantization, deployment.dtype)


def _from_hub(deployment: Deployment) -> Model | None:
    """A name that isn't there may be a slip: what is near it is said too."""
    from servolt.sources.hub import Hub  # an HTTP client is dear, and few need one

    try:
        return Hub().find(deployment)
    except NotOnHubError as error:
        raise NotOnHubError(f"{error.cause}{_near(deployment)}", error.remedy) from error


def _near(deployment: Deployment) -> str:
    """What else in the catalogue the name may mean, in words."""
    try:
        find_model_entry(name_and_format(deployment)[0])
    except AmbiguousNameError as error:
        return f" In the catalogue it may be {', '.join(error.candidates)}."
    except UnknownNameError as error:
        return f" The catalogue's nearest are {', '.join(error.nearest)}." if error.nearest else ""
    return ""


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
