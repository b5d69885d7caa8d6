"""What a model is, read from the headers of its files."""

from servolt.model.config import model_from_config
from servolt.model.layers import ATTENTION_KINDS, RECURRENT_KINDS, Experts, LayerKind, Mixer, Part
from servolt.model.model import Model, TensorGroup

__all__ = [
    "ATTENTION_KINDS",
    "RECURRENT_KINDS",
    "Experts",
    "LayerKind",
    "Mixer",
    "Model",
    "Part",
    "TensorGroup",
    "model_from_config",
]
