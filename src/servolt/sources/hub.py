"""Models on the Hugging Face Hub: their config and the headers of their files, never the weights."""

import os
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from servolt import settings
from servolt.deployment import Deployment
from servolt.errors import AddressError, ModelFileError, ModelNotFoundError
from servolt.model import Model, model_from_config
from servolt.model.gguf import read_gguf_parts
from servolt.model.mixes import is_mix
from servolt.model.safetensors import LENGTH_BYTES, header_length, parse_header, tensor_end
from servolt.sources.folders import INDEX, QUANT_CONFIG, read_folder, weight_files, with_quant_config
from servolt.sources.hub_cache import HubCache
from servolt.sources.hub_client import HubClient, UnreachableError, endpoint, token
from servolt.sources.names import is_hub_id
from servolt.sources.ranges import RangeFile

__all__ = ["Hub"]

_FIRST_BYTES = 128 * 1024  # holds the whole header of most shards
_MAX_SHARDS = 2000
_AT_ONCE = 8
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


class Hub:
    """`connect` opens the connection; nothing is asked for before a model is looked for."""

    def __init__(
        self,
        cache: HubCache | None = None,
        connect: Callable[[], HubClient] | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._cache = cache or HubCache(settings.folders().cache)
        self._connect = connect or (lambda: HubClient(endpoint(environ), token(environ)))
        self._environ = environ

    def names(self) -> list[str]:
        """None: there are millions."""
        return []

    def find(self, deployment: Deployment) -> Model | None:
        """None for a name that can't be the Hub's.

        Raises ModelNotFoundError, GatedError, ModelFileError, and AddressError where the Hub can't be asked.
        """
        if not is_hub_id(deployment.model):
            return None
        name, _, revision = deployment.model.partition("@")
        revision = revision or "main"
        here = _downloaded(name, revision, self._environ)
        if here is not None:
            return read_folder(here, deployment).model_copy(update={"name": name})
        facts = self._facts(name, revision)
        ggufs = [file for file in facts.files if file.endswith(".gguf")]
        asks_gguf = deployment.quantization is not None and is_mix(deployment.quantization) is not None
        if ggufs and (asks_gguf or facts.config is None):
            return self._gguf(facts, revision, ggufs, deployment.quantization)
        if facts.config is None:
            raise ModelNotFoundError(
                f"{name} holds no config.json and no GGUF file.", "Name a model; adapters and data sets are none."
            )
        return model_from_config(
            facts.config,
            name=facts.name,
            quantization=deployment.quantization,
            dtype=deployment.dtype,
            headers=facts.headers,
        )

    def _facts(self, name: str, revision: str) -> "_Facts":
        plain = self._fetched(name, revision, "facts", lambda client: _fetch_facts(client, name, revision))
        return _Facts.of(plain)

    def _gguf(self, facts: "_Facts", revision: str, files: list[str], quantization: str | None) -> Model:
        chosen = _chosen(facts.name, files, quantization)

        def fetch(client: HubClient) -> dict[str, Any]:
            parts = [RangeFile(client, facts.name, revision, file) for file in chosen]
            model = read_gguf_parts([(part, part.size) for part in parts], f"{facts.name}/{chosen[0]}")
            return model.model_dump(mode="json", by_alias=True)

        return Model.from_plain(self._fetched(facts.name, revision, chosen[0], fetch))

    def _fetched(
        self, name: str, revision: str, part: str, fetch: Callable[[HubClient], dict[str, Any]]
    ) -> dict[str, Any]:
        """From the cache while it is fresh; while the Hub can't be asked, however old it is."""
        kept = self._cache.get(name, revision, part)
        if kept is not None and (kept.is_fresh or self._is_offline()):
            return kept.plain
        if self._is_offline():
            raise UnreachableError(
                f"{name} was never fetched, and HF_HUB_OFFLINE forbids it now.", "Unset HF_HUB_OFFLINE once."
            )
        try:
            with self._connect() as client:
                plain = fetch(client)
        except AddressError:
            if kept is None:
                raise
            return kept.plain
        self._cache.put(name, revision, part, plain)
        return plain

    def _is_offline(self) -> bool:
        return self._environ.get("HF_HUB_OFFLINE", "").strip().lower() in ("1", "true", "yes", "on")


class _Facts(NamedTuple):
    """`headers` holds one table for all shards."""

    name: str
    files: list[str]
    config: Mapping[str, Any] | None
    headers: list[Mapping[str, Any]]

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "_Facts":
        return cls(plain["name"], plain["files"], plain["config"], plain["headers"])


def _fetch_facts(client: HubClient, name: str, revision: str) -> dict[str, Any]:
    info = client.info(name, revision)
    said = info.get("id")
    today = said if isinstance(said, str) else name  # of a model that was renamed
    listed = info.get("siblings")
    siblings = listed if isinstance(listed, list) else []
    files = [one["rfilename"] for one in siblings if isinstance(one, dict) and isinstance(one.get("rfilename"), str)]
    config: Mapping[str, Any] | None = None
    headers: list[Mapping[str, Any]] = []
    if "config.json" in files:
        config = client.json_file(today, revision, "config.json")
        if QUANT_CONFIG in files and not config.get("quantization_config"):
            config = with_quant_config(config, client.json_file(today, revision, QUANT_CONFIG))
        index = client.json_file(today, revision, INDEX) if INDEX in files else None
        headers = _fetch_headers(client, today, revision, weight_files(files, index))
    return {"name": today, "files": files, "config": config, "headers": headers}


def _fetch_headers(client: HubClient, name: str, revision: str, shards: list[str]) -> list[Mapping[str, Any]]:
    if len(shards) > _MAX_SHARDS:
        raise ModelFileError(f"{name} has {len(shards):,} files of weights.", "Name another model.")
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda file: _fetch_header(client, name, revision, file), shards))


def _fetch_header(client: HubClient, name: str, revision: str, file: str) -> Mapping[str, Any]:
    shown = f"{name}/{file}"
    piece = client.first(name, revision, file, 0, _FIRST_BYTES)
    length = header_length(piece.data, shown)
    text = piece.data[LENGTH_BYTES : LENGTH_BYTES + length]
    if len(text) < length:
        begin = LENGTH_BYTES + len(text)
        text += client.first(name, revision, file, begin, LENGTH_BYTES + length).data
    if len(text) < length:
        raise ModelFileError(f"{shown} is cut off within its header.", "Tell who published it.")
    header = parse_header(text, shown)
    end = LENGTH_BYTES + length + max((tensor_end(value) for value in header.values()), default=0)
    if piece.size is not None and end > piece.size:
        raise ModelFileError(
            f"{shown} is cut off: its tensors end at byte {end:,} of {piece.size:,}.", "Tell who published it."
        )
    return header


def _chosen(name: str, files: list[str], quantization: str | None) -> list[str]:
    """The parts of one model, by the quantisation that their names hold. Raises ModelNotFoundError if many fit or none.

    Q4_K_M is llama.cpp's own first choice where nothing is asked.
    """
    wholes = {_PART.sub(".gguf", file) for file in files if "mmproj" not in file and "imatrix" not in file}
    asked = quantization or ("q4_k_m" if len(wholes) > 1 else None)
    mix = None if asked is None else is_mix(asked) or asked.lower()
    fits = sorted(whole for whole in wholes if asked is None or mix in (is_mix(whole), whole.lower()))
    exact = [whole for whole in fits if asked is not None and asked.lower() in whole.lower()] or fits
    if len(exact) != 1:
        held = ", ".join(sorted({is_mix(whole) or whole for whole in wholes}))
        what = f"no {asked}" if not exact else f"several files that may be {asked}"
        raise ModelNotFoundError(f"{name} has {what}. There are {held}.", f"Name one: {name}:QUANTIZATION.")
    return sorted(file for file in files if _PART.sub(".gguf", file) == exact[0])


def _downloaded(name: str, revision: str, environ: Mapping[str, str]) -> Path | None:
    """Where Hugging Face's tools have put the whole model on this machine; None where a part of it is missing."""
    home = environ.get("HF_HOME") or str(Path(environ.get("HOME", "~")).expanduser() / ".cache" / "huggingface")
    place = Path(environ.get("HF_HUB_CACHE") or Path(home) / "hub") / f"models--{name.replace('/', '--')}"
    try:
        commit = (place / "refs" / revision).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        commit = revision
    folder = place / "snapshots" / commit
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_file())
    except OSError:
        return None
    return folder if "config.json" in names and any(file.endswith(".safetensors") for file in names) else None
