"""sha256 of weight files: computed off the event loop when first asked for, kept while the file stays the same."""

import asyncio
import hashlib
from pathlib import Path

from servolt.model import Model

__all__ = ["Digests"]


class Digests:
    """Askers of one file share one computation."""

    def __init__(self) -> None:
        self._tasks: dict[tuple[str, int, int], asyncio.Task[str]] = {}

    async def of(self, model: Model, patience_s: float | None = None) -> str | None:
        """64 hex digits; None for a model without a file, or if it takes longer than `patience_s` (it goes on)."""
        if not model.files:
            return None
        path = Path(model.files[0])
        try:
            facts = path.stat()
        except OSError:
            return None
        key = (str(path), facts.st_size, facts.st_mtime_ns)
        if key not in self._tasks:
            self._tasks[key] = asyncio.create_task(asyncio.to_thread(_sha256, path))
        try:
            return await asyncio.wait_for(asyncio.shield(self._tasks[key]), patience_s)
        except TimeoutError:
            return None
        except OSError:
            del self._tasks[key]
            return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
