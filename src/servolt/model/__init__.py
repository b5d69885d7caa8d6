"""What a model is, read from the headers of its files."""

from servolt.model.model import Model, TensorGroup

__all__ = ["Model", "TensorGroup"]
