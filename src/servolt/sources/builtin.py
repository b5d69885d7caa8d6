"""The models that come with the package: `guide`, and the replay engine's, which has no weights."""

from importlib.resources import files
from pathlib import Path

from servolt.deployment import Deployment
from servolt.errors import ModelNotFoundError
from servolt.model import Model
from servolt.model.gguf import read_gguf_header

__all__ = ["Builtin"]

FOLDER = Path(str(files("servolt") / "data" / "guide"))
DEFAULT_QUANTIZATION = "q8_0"
QUANTIZATIONS = ("q8_0", "f16")


class Builtin:
    """Needs no download."""

    def names(self) -> list[str]:
        return [f"guide:{quantization}" for quantization in QUANTIZATIONS]

    def find(self, deployment: Deployment) -> Model | None:
        name = deployment.model
        if name == "guide":
            return _guide(deployment.quantization or DEFAULT_QUANTIZATION)
        if name == "replay" or name.startswith("replay?"):
            return _replay()
        return None


def _guide(quantization: str) -> Model:
    if quantization not in QUANTIZATIONS:
        raise ModelNotFoundError(
            f"guide has no weights as {quantization}.", f"There are {' and '.join(QUANTIZATIONS)}: `servolt list`."
        )
    return read_gguf_header(FOLDER / f"guide-{quantization}.gguf")


def _replay() -> Model:
    """What the replay engine says it is. It holds no weights, so every size is 0 but those its protocol shows."""
    return Model(
        name="replay",
        architecture="replay",
        basis="stated",
        format="replay",
        file_bytes=0,
        total_params=0,
        weights_bytes=0,
        quantization="none",
        num_layers=0,
        hidden_size=0,
        intermediate_size=0,
        num_heads=0,
        num_kv_heads=0,
        head_dim_k=0,
        head_dim_v=0,
        vocab_size=32_000,
        max_position_embeddings=32_768,
    )
