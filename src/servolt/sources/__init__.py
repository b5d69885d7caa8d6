"""Where weights come from. The sources are asked in turn, and the first that knows a model answers."""

from typing import Protocol, cast

from servolt import registry
from servolt.deployment import Deployment
from servolt.errors import ModelNotFoundError
from servolt.model import Model

__all__ = ["Source", "find_model", "list_models", "resolved"]


class Source(Protocol):
    """One place in which models are."""

    def names(self) -> list[str]:
        """What can be asked for, each as NAME or NAME:QUANTIZATION."""
        ...

    def find(self, deployment: Deployment) -> Model | None:
        """None for a model that is none of its own. Raises ModelNotFoundError or ModelFileError for one that is."""
        ...


def find_model(deployment: Deployment) -> Model:
    """The model that a deployment names. Raises ModelNotFoundError, ModelFileError."""
    for source in _sources():
        model = source.find(deployment)
        if model is not None:
            return model
    known = ", ".join(name for source in _sources() for name in source.names())
    raise ModelNotFoundError(
        f"no model is called {deployment.label!r} here.", f"There are {known}; or give the path of a GGUF file."
    )


def resolved(deployment: Deployment) -> Deployment:
    """`guide` is `guide:q8_0`: the name of a model without its weights means the first of them, so that one deployment
    has one digest."""
    if deployment.quantization is not None:
        return deployment
    for source in _sources():
        for name in source.names():
            named = Deployment.of(name)
            if named.model == deployment.model and named.quantization is not None:
                return deployment.model_copy(update={"quantization": named.quantization})
    return deployment


def list_models() -> list[tuple[Deployment, Model]]:
    """Every model that can be named without a path."""
    deployments = [(source, Deployment.of(name)) for source in _sources() for name in source.names()]
    found = [(deployment, source.find(deployment)) for source, deployment in deployments]
    return [(deployment, model) for deployment, model in found if model is not None]


def _sources() -> list[Source]:
    return [cast("Source", registry.source(name)) for name in registry.names("sources")]
