"""A file on a server, read from the front in blocks that are fetched when they are needed."""

from servolt.errors import ModelFileError
from servolt.sources.hub_client import HubClient

__all__ = ["RangeFile"]

_FIRST_BLOCK = 1 << 20
_BLOCK = 4 << 20  # a GGUF header has 5 to 20 MB, mostly the vocabulary


class RangeFile:
    """Forward only. Raises ModelFileError for a server that doesn't say how large the file is."""

    def __init__(self, client: HubClient, model: str, revision: str, file: str) -> None:
        self._client, self._place = client, (model, revision, file)
        first = client.first(*self._place, 0, _FIRST_BLOCK)
        if first.size is None:
            raise ModelFileError(f"the server doesn't say how large {model}/{file} is.", "Fetch the file, and name it.")
        self.size = first.size
        self._data, self._begin, self._at = first.data, 0, 0

    def read(self, count: int, /) -> bytes:
        """Fewer only at the end."""
        wanted = min(count, self.size - self._at)
        pieces: list[bytes] = []
        while wanted > 0:
            offset = self._at - self._begin
            piece = self._data[offset : offset + wanted]
            if not piece:
                self._fetch()
                if not self._data:
                    break
                continue
            pieces.append(piece)
            self._at += len(piece)
            wanted -= len(piece)
        return b"".join(pieces)

    def _fetch(self) -> None:
        end = min(self._at + _BLOCK, self.size)
        self._data, self._begin = self._client.first(*self._place, self._at, end).data, self._at
