"""The weights of what sees and hears."""

from collections.abc import Mapping
from typing import Any

from servolt.model.fields import Fields
from servolt.model.weights import Weight

__all__ = ["tower_weights"]


def tower_weights(config: Mapping[str, Any], text: Fields) -> list[Weight]:
    return []
