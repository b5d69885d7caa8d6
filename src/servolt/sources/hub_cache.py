"""What was fetched from the Hub, kept for a day: configs and tables of tensors, never weights."""

import gzip
import json
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

__all__ = ["HubCache", "Kept"]

FRESH_S = 24 * 3600.0  # branches move; a model's sizes hardly do
_COMMIT = re.compile(r"[0-9a-f]{40}")


class Kept(NamedTuple):
    plain: dict[str, Any]
    is_fresh: bool


class HubCache:
    """One file for each model, revision and part."""

    def __init__(self, folder: Path, now: Callable[[], float] = time.time) -> None:
        self._folder, self._now = folder, now

    def get(self, model: str, revision: str, part: str) -> Kept | None:
        """None where it is not there or can't be read: then it is fetched again."""
        path = self._path(model, revision, part)
        try:
            plain = json.loads(gzip.decompress(path.read_bytes()))
        except (OSError, EOFError, ValueError, gzip.BadGzipFile):
            return None
        if not isinstance(plain, dict) or not isinstance(plain.get("kept"), dict):
            return None
        written = plain.get("written_s")
        age_s = self._now() - written if isinstance(written, int | float) else float("inf")
        return Kept(plain["kept"], bool(_COMMIT.fullmatch(revision)) or 0 <= age_s < FRESH_S)

    def put(self, model: str, revision: str, part: str, plain: dict[str, Any]) -> None:
        """Whole or not at all. A folder that can't be written costs a fetch the next time, and no more."""
        path = self._path(model, revision, part)
        data = gzip.compress(json.dumps({"written_s": self._now(), "kept": plain}).encode(), compresslevel=1)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, unfinished = tempfile.mkstemp(dir=path.parent)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(unfinished).replace(path)
        except OSError:
            return

    def _path(self, model: str, revision: str, part: str) -> Path:
        name = quote(f"{model}@{revision}", safe="@-_")
        return self._folder / "hub" / name / f"{quote(part, safe='-_')}.json.gz"
