"""A model for a plan where none can be looked up: of the catalogue by what its name says, else by its size alone."""

from servolt.catalogue import Likely, ModelEntry, find_model_entry, likely_models, slip_of
from servolt.deployment import Deployment
from servolt.errors import ModelNotFoundError, ServoltError
from servolt.model import Model, model_from_config
from servolt.model.card import card_model, size_in
from servolt.model.quantization import words_of

__all__ = ["ends_of", "entry_model", "guessed_model", "name_and_format"]

GUESSED, STANDS_FOR = "guessed_because", "stands_for"  # keys of a model's metadata
_BETWEEN = "; "


def guessed_model(deployment: Deployment, error: ServoltError) -> Model:
    """`error` says why the model itself can't be read, and is raised where its name says nothing either.

    The metadata say what was done: `guessed_because`, and `stands_for` where the size is open too.
    """
    name, quantization = name_and_format(deployment)
    likely = likely_models(name)
    if likely is not None:
        return _like(name, quantization, deployment.dtype, likely, error)
    slip = slip_of(name)
    if slip is not None:
        raise ModelNotFoundError(
            f"no model is called {name!r}; is {slip} meant?", "Name it as `servolt catalog list models` does."
        ) from error
    try:
        model = card_model(name, quantization=quantization, dtype=deployment.dtype)
    except ModelNotFoundError:
        raise _without_a_size(error) from error
    shape = f"Of {name} only the size in its name is known: its shape is the usual one for that size."
    return _noted(model, f"{shape} {error.cause}")


def name_and_format(deployment: Deployment) -> tuple[str, str | None]:
    """Of Ollama's gemma4:e4b-mlx and qwen3.6:27b-q4_K_M the part behind the colon belongs to the name.

    >>> name_and_format(Deployment.of("qwen3.6:27b-q4_K_M")), name_and_format(Deployment.of("Qwen3-8B:q8_0"))
    (('qwen3.6:27b-q4_k_m', 'q4_k_m'), ('Qwen3-8B', 'q8_0'))
    """
    said = deployment.quantization
    if said is None or (words_of(said) is not None and size_in(said) is None):
        return deployment.model, said
    return deployment.label, words_of(said)


def ends_of(model: Model, deployment: Deployment) -> tuple[Model, ...]:
    """The smallest and the largest that a model without a stated size may be; none for any other."""
    names = str(model.metadata.get(STANDS_FOR, ""))
    name, quantization = name_and_format(deployment)
    ends = [find_model_entry(end) for end in names.split(_BETWEEN) if end]
    return tuple(entry_model(end, name, quantization, deployment.dtype) for end in ends)


def _like(name: str, quantization: str | None, dtype: str | None, likely: Likely, error: ServoltError) -> Model:
    model = entry_model(likely.middle, name, quantization, dtype)
    if not likely.same:
        model = model.model_copy(update={"basis": "card"})
    model = _noted(model, f"{error.cause} It is planned as {likely.middle.name} of the catalogue: {likely.why}.")
    if len(likely.entries) == 1:
        return model
    ends = _BETWEEN.join((likely.entries[0].name, likely.entries[-1].name))
    return model.model_copy(update={"metadata": {**model.metadata, STANDS_FOR: ends}})


def entry_model(entry: ModelEntry, name: str, quantization: str | None, dtype: str | None) -> Model:
    """As `name` says it, which may be that of a copy in another format."""
    said = words_of(name)  # how a copy is stored
    model = model_from_config(
        entry.config, name=name if said else entry.hub_id, quantization=quantization or said, dtype=dtype
    )
    return model.model_copy(update={"basis": "catalogue"})


def _noted(model: Model, why: str) -> Model:
    return model.model_copy(update={"metadata": {**model.metadata, GUESSED: why}})


def _without_a_size(error: ServoltError) -> ServoltError:
    """The same error; its remedy says that figures will do."""
    remedy = f"{error.remedy} Or state its size and what else you know: --params 70B --layers 80."
    return type(error)(error.cause, remedy)
