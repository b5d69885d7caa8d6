"""Which names the gateway answers to, and what stands behind each."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from servolt.deployment import Deployment
from servolt.errors import ModelNotFoundError
from servolt.model import Model

__all__ = ["Catalogue", "Offer"]

DEFAULT_QUANTIZATION = "q8_0"  # what a name without a quantization means, where the model has it


@dataclass(frozen=True)
class Offer:
    """One deployment that may be asked for; `names` are what clients call it, the first one is shown."""

    deployment: Deployment
    model: Model
    names: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.names[0]

    @cached_property
    def created(self) -> int | None:
        """When the weights were last changed, seconds since 1970; None for a model without a file."""
        try:
            return int(Path(self.model.files[0]).stat().st_mtime) if self.model.files else None
        except OSError:  # it was there when the gateway started; an engine may still hold it
            return None

    @cached_property
    def digest(self) -> str:
        """The deployment's, computed once: it stands in every answer."""
        return self.deployment.digest


class Catalogue:
    """Offers by name. Names are found whatever their case and with or without `:latest`."""

    def __init__(self, offers: Sequence[Offer]) -> None:
        self.offers = tuple(offers)
        self._by_name: dict[str, Offer] = {}
        for offer in offers:
            for name in offer.names:
                self._by_name.setdefault(name.lower(), offer)

    def __iter__(self) -> Iterator[Offer]:
        return iter(self.offers)

    def find(self, name: str) -> Offer:
        """Raises ModelNotFoundError, in the words that Ollama's clients look for."""
        offer = self._by_name.get(name) or self._by_name.get(name.strip().lower().removesuffix(":latest"))
        if offer is None:
            known = ", ".join(offer.name for offer in self.offers) or "none"
            raise ModelNotFoundError(f"model '{name[:200]}' not found.", f"Served here: {known}.")
        return offer

    @classmethod
    def of(cls, pairs: Iterable[tuple[Deployment, Model]]) -> "Catalogue":
        """A model's q8_0 weights, else its first deployment, also answer to its bare name.

        A second deployment of the same weights is told apart by the start of its digest.
        """
        ordered = list(pairs)
        taken: set[str] = set()
        offers = []
        for deployment, model in ordered:
            tagged = f"{_stem(deployment)}:{model.quantization.lower()}"
            if tagged.lower() in taken:
                tagged += f"-{deployment.digest[:6]}"
            names = [_stem(deployment), tagged] if _is_default(deployment, ordered) else [tagged]
            taken.update(name.lower() for name in names)
            offers.append(Offer(deployment, model, tuple(names)))
        return cls(offers)


def _stem(deployment: Deployment) -> str:
    """A path is served under its file's stem, a name under itself."""
    model = deployment.model
    return Path(model).stem if model.lower().endswith(".gguf") else model.partition("?")[0]


def _is_default(deployment: Deployment, pairs: Sequence[tuple[Deployment, Model]]) -> bool:
    same = [pair for pair in pairs if _stem(pair[0]) == _stem(deployment)]
    usual = [pair for pair in same if pair[1].quantization.lower() == DEFAULT_QUANTIZATION]
    return (usual or same)[0][0] == deployment
