"""Models as Ollama's clients read them."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from servolt.model import Model
from servolt.serve.abilities import abilities
from servolt.serve.catalogue import Offer
from servolt.serve.resident import Resident

__all__ = ["details", "process_entry", "show", "shown_names", "tag_entry"]

FOR_EVER = timedelta(days=106_751)  # Go's longest duration, which Ollama shows for a model that never expires


def tag_entry(name: str, offer: Offer, digest: str | None) -> dict[str, Any]:
    model = offer.model
    plain: dict[str, Any] = {"name": name, "model": name, "size": model.file_bytes}
    if (modified := _modified_at(model)) is not None:
        plain["modified_at"] = modified
    if digest is not None:
        plain["digest"] = digest
    return plain | {"details": details(model, extended=True), "capabilities": abilities(model)}


def process_entry(name: str, resident: Resident, resident_bytes: int | None, digest: str | None) -> dict[str, Any]:
    """`size` is what the engine's processes really hold in memory.

    Our runner puts nothing on a GPU; what a program of the user's own does is not known.
    """
    model = resident.offer.model
    plain: dict[str, Any] = {"name": name, "model": name}
    if resident_bytes is not None:
        plain["size"] = resident_bytes
    if digest is not None:
        plain["digest"] = digest
    plain |= {"details": details(model), "expires_at": _expires_at(resident)}
    if resident.offer.deployment.engine_executable is None:
        plain["size_vram"] = 0
    if resident.max_model_len is not None:
        plain["context_length"] = resident.max_model_len
    return plain


def show(name: str, offer: Offer, resident: Resident | None) -> dict[str, Any]:
    model, deployment = offer.model, offer.deployment
    context = resident.max_model_len if resident is not None else deployment.max_model_len
    plain: dict[str, Any] = {
        "modelfile": f"# served by servolt as {name}\nFROM {offer.name}\n",
        "parameters": "" if context is None else f"num_ctx                        {context}",
        "template": model.chat_template or "",
        "details": details(model),
        "model_info": _model_info(model),
        "capabilities": abilities(model),
    }
    if "general.license" in model.metadata:
        plain["license"] = str(model.metadata["general.license"])
    if (modified := _modified_at(model)) is not None:
        plain["modified_at"] = modified
    return plain


def details(model: Model, *, extended: bool = False) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "parent_model": "",
        "format": model.format,
        "family": model.architecture,
        "families": [model.architecture],
        "parameter_size": _parameter_size(model.total_params),
        "quantization_level": model.quantization.upper(),
    }
    if extended:
        plain |= {"context_length": model.max_position_embeddings, "embedding_length": model.hidden_size}
    return plain


def shown_names(offer: Offer) -> list[str]:
    """Every name has a tag here, as in Ollama's own lists."""
    return [name if ":" in name else f"{name}:latest" for name in offer.names]


def _model_info(model: Model) -> dict[str, Any]:
    """The header's own keys. The template has a field of its own."""
    info: dict[str, Any] = {
        key: value for key, value in model.metadata.items() if not key.startswith("tokenizer.chat_template")
    }
    info.setdefault("general.architecture", model.architecture)
    info["general.parameter_count"] = model.total_params
    info.setdefault(f"{model.architecture}.context_length", model.max_position_embeddings)
    info.setdefault(f"{model.architecture}.embedding_length", model.hidden_size)
    return info


def _parameter_size(parameters: int) -> str:
    """As Ollama writes it: 3.3M, 8.0B."""
    for letter, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if parameters >= size:
            return f"{parameters / size:.1f}{letter}"
    return str(parameters)


def _modified_at(model: Model) -> str | None:
    try:
        changed = Path(model.files[0]).stat().st_mtime if model.files else None
    except OSError:
        return None
    return None if changed is None else datetime.fromtimestamp(changed, UTC).isoformat().replace("+00:00", "Z")


def _expires_at(resident: Resident) -> str:
    now = datetime.fromtimestamp(time.time(), UTC)
    expires = resident.expires_at
    moment = now + FOR_EVER if expires is None else datetime.fromtimestamp(expires, UTC)
    return moment.isoformat().replace("+00:00", "Z")
