"""The real gateway, in a process of its own, in front of an engine that runs already.

Everything is the product's own code but the supervisor, which has nothing to start.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvloop

from servolt.command import Command, Server
from servolt.deployment import Deployment
from servolt.model import Model
from servolt.serve.catalogue import Catalogue, Offer
from servolt.serve.fleet import Fleet
from servolt.serve.run import listen, serve


class Elsewhere:
    """An engine that somebody else runs; both a server and its supervision."""

    pid: int | None = None
    log_path: Path | None = None

    def __init__(self, url: str, api_key: str) -> None:
        self.url = url
        self.api_key = api_key
        self.effective: Mapping[str, Any] = {}
        port = urlsplit(url).port
        self.command = Command(argv=("elsewhere",), port=port, engine="llamacpp", deployment_digest="elsewhere")

    def exit_code(self) -> int | None:
        return None

    async def wait(self) -> int:
        return 0

    async def ensure_ready(self) -> Server:
        return self

    async def stop(self, grace_s: float = 0.0) -> None:
        """It is not ours."""


def model() -> Model:
    sizes = dict.fromkeys(
        (
            *("file_bytes", "total_params", "weights_bytes", "num_layers", "hidden_size", "intermediate_size"),
            *("num_heads", "num_kv_heads", "head_dim_k", "head_dim_v", "vocab_size", "max_position_embeddings"),
        ),
        0,
    )
    return Model.from_plain(
        {"name": "fixed", "architecture": "replay", "format": "replay", "quantization": "none"} | sizes
    )


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--upstream", required=True)
    asked = parser.parse_args()
    engine = Elsewhere(asked.upstream, os.environ.get("UPSTREAM_KEY", ""))
    offers = [Offer(Deployment(model="fixed"), model(), ("fixed",))]
    fleet = Fleet(Catalogue(offers), lambda deployment, model: engine, keep_alive_s=-1, max_queue=512)
    listener = listen(port=0)
    with tempfile.TemporaryDirectory() as folder:
        await serve(fleet, listener, state_folder=Path(folder), on_ready=lambda: print(listener.url, flush=True))


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
