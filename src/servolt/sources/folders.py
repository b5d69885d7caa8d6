"""Models in folders, as Hugging Face's tools write them: a config.json and safetensors; or a config.json alone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from servolt.deployment import Deployment
from servolt.errors import ModelFileError, ModelNotFoundError
from servolt.model import Model, model_from_config
from servolt.model.gguf import read_gguf_header
from servolt.model.safetensors import read_header, shards_of

__all__ = ["INDEX", "QUANT_CONFIG", "read_config", "read_folder", "weight_files", "with_quant_config"]

INDEX = "model.safetensors.index.json"
QUANT_CONFIG = "hf_quant_config.json"  # ModelOpt's, where config.json says nothing
_MAX_JSON_BYTES = 64 * 2**20


def read_folder(folder: Path, deployment: Deployment) -> Model:
    """Sizes are those of the files' headers where there are any. Raises ModelNotFoundError, ModelFileError."""
    if not (folder / "config.json").is_file():
        return _only_gguf(folder, deployment)
    files = [folder / name for name in weight_files(_names(folder), _index(folder))]
    model = model_from_config(
        with_quant_config(read_json(folder / "config.json"), _optional(folder / QUANT_CONFIG)),
        name=folder.resolve().name,
        quantization=deployment.quantization,
        dtype=deployment.dtype,
        headers=[read_header(file) for file in files],
    )
    return model.model_copy(update={"files": tuple(str(file.absolute()) for file in files)})


def read_config(path: Path, deployment: Deployment) -> Model:
    """A config.json without its weights. Raises ModelFileError."""
    name = path.absolute().parent.name if path.name == "config.json" else path.stem
    return model_from_config(read_json(path), name=name, quantization=deployment.quantization, dtype=deployment.dtype)


def weight_files(names: list[str], index: Mapping[str, Any] | None) -> list[str]:
    """The safetensors that hold the model, each tensor once. Raises ModelFileError for one that is missing."""
    if index is not None:
        shards = shards_of(index, INDEX)
        absent = sorted(set(shards) - set(names))
        if absent:
            raise ModelFileError(
                f"{len(absent)} of {len(shards)} files of weights are missing, such as {absent[0]}.",
                "Fetch the model again.",
            )
        return shards
    found = sorted(name for name in names if name.endswith(".safetensors") and "/" not in name)
    # Mistral's repositories hold their weights once more in one file; adapters are no models.
    usual = [name for name in found if not name.startswith(("consolidated", "adapter_"))]
    return ["model.safetensors"] if "model.safetensors" in usual else usual or found


def with_quant_config(config: Mapping[str, Any], stated: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """ModelOpt's file of its own, in the place in which others say it."""
    own = None if stated is None else stated.get("quantization")
    if not isinstance(own, Mapping) or config.get("quantization_config"):
        return config
    return {**config, "quantization_config": {"quant_method": "modelopt", **own}}


def read_json(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ModelFileError(
                f"{path} has {path.stat().st_size:,} bytes, which no config has.", "Name another file."
            )
        plain = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelFileError(
            f"{path} can't be read: {error.strerror}.", "Check that it is a file and that you may read it."
        ) from error
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} is no JSON: {' '.join(str(error).split())}.", "Correct the file.") from error
    if not isinstance(plain, dict):
        raise ModelFileError(f"{path} holds no names with values.", "Name a config.json.")
    return plain


def _optional(path: Path) -> Mapping[str, Any] | None:
    return read_json(path) if path.is_file() else None


def _index(folder: Path) -> Mapping[str, Any] | None:
    return _optional(folder / INDEX)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def _only_gguf(folder: Path, deployment: Deployment) -> Model:
    try:
        files = sorted(path for path in folder.glob("*.gguf") if path.is_file())
    except OSError as error:
        raise ModelFileError(f"{folder} can't be read: {error.strerror}.", "Check that you may read it.") from error
    asked = deployment.quantization
    fits = [path for path in files if asked is None or asked.lower() in path.stem.lower()]
    if len(fits) != 1:
        listed = ", ".join(path.name for path in files)
        held = f"with {len(files)} GGUF files: {listed}" if files else "without a config.json"
        raise ModelNotFoundError(
            f"{folder} is a folder {held}.",
            "Give the path of a GGUF file, of a folder with a config.json, or a name that `servolt list` shows.",
        )
    return read_gguf_header(fits[0])
