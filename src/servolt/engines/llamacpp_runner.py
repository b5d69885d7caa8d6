"""The process in which llama.cpp runs: `python -m servolt.engines.llamacpp_runner -m FILE --port N`.

It takes llama-server's own flag names, so one command line serves both. Once it can answer it prints one line of JSON
with the settings that really hold. This is the only module that imports xllamacpp, and it imports little else, since
each start of a model waits for it.
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import sys
from typing import Any

from servolt.cores import physical_cores

__all__: list[str] = []


def main(argv: list[str]) -> int:
    asked = _parser().parse_args(argv)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while the weights load, Python would not get to its own
    import xllamacpp

    parameters = _parameters(xllamacpp, asked)
    _do_not_interrupt_each_other()
    try:
        server = xllamacpp.Server(parameters)
    except RuntimeError as error:
        sys.stderr.write(f"llama.cpp did not start: {error}\n")
        return 1
    woken = _wake_on(signal.SIGTERM, signal.SIGINT)
    sys.stdout.write(json.dumps(_ready(xllamacpp.__version__, server.listening_address, parameters)) + "\n")
    sys.stdout.flush()
    os.read(woken, 1)
    # Freeing the server waits up to 30 s for a stream that is still read (2026.10.11549); nothing here needs saving.
    os._exit(0)


def _do_not_interrupt_each_other() -> None:
    """The threads made from here on wait for a free processor when they wake, in place of taking a busy one.

    Each token wakes the thread that sends it. On two cores, with the gateway on the other one, these took the core of
    the thread that computes: 16 streams of the guide gave 0.89 of the tokens they give without a gateway, so it is
    1.00 (26 pairs, Linux 6.18).
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a sandbox may refuse it; then all is as before
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _wake_on(*signals: int) -> int:
    """A file descriptor that can be read once one of these has come, whichever thread the system gave it to."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    for number in signals:
        signal.signal(number, lambda *_: None)
    return reading


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llamacpp_runner", allow_abbrev=False, description="llama.cpp as a server.")
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("-a", "--alias")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("-np", "--parallel", type=int, default=1)
    parser.add_argument("-c", "--ctx-size", type=int, default=0)
    parser.add_argument("-b", "--batch-size", type=int)
    parser.add_argument("-ub", "--ubatch-size", type=int)
    parser.add_argument("-ctk", "--cache-type-k")
    parser.add_argument("-ctv", "--cache-type-v")
    parser.add_argument("-t", "--threads", type=int)
    parser.add_argument("-tb", "--threads-batch", type=int)
    parser.add_argument("-cram", "--cache-ram", type=int)
    parser.add_argument("-ngl", "--gpu-layers", "--n-gpu-layers", type=int, default=0)
    parser.add_argument("--op-offload", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("-fit", "--fit", choices=("on", "off"), default="on")
    parser.add_argument("-lv", "--log-verbosity", type=int)
    parser.add_argument("--cache-prompt", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--embedding", action="store_true")
    parser.add_argument("--pooling", choices=("none", "mean", "cls", "last", "rank"))
    parser.add_argument("--metrics", action="store_true")
    return parser


def _parameters(xllamacpp: Any, asked: argparse.Namespace) -> Any:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = asked.model
    parameters.hostnames = [asked.host]
    parameters.port = asked.port
    parameters.n_parallel = asked.parallel
    parameters.n_ctx = asked.ctx_size
    parameters.cache_prompt = asked.cache_prompt
    parameters.fit_params = asked.fit == "on"
    parameters.n_gpu_layers = asked.gpu_layers
    parameters.no_op_offload = not asked.op_offload
    parameters.endpoint_metrics = asked.metrics
    threads = asked.threads or max(1, physical_cores() - 1)
    parameters.cpuparams.n_threads = threads
    parameters.cpuparams_batch.n_threads = asked.threads_batch or threads
    for name, value in (
        ("model_alias", None if asked.alias is None else {asked.alias}),
        ("n_batch", asked.batch_size),
        ("n_ubatch", asked.ubatch_size),
        ("cache_ram_mib", asked.cache_ram),
        ("verbosity", asked.log_verbosity),
        ("api_keys", [key for key in os.environ.get("LLAMA_API_KEY", "").split(",") if key] or None),
        ("embedding", asked.embedding or None),
        ("pooling_type", _member(xllamacpp.llama_pooling_type, "LLAMA_POOLING_TYPE_", asked.pooling)),
        ("cache_type_k", _member(xllamacpp.ggml_type, "GGML_TYPE_", asked.cache_type_k)),
        ("cache_type_v", _member(xllamacpp.ggml_type, "GGML_TYPE_", asked.cache_type_v)),
    ):
        if value is not None:
            setattr(parameters, name, value)
    return parameters


def _member(kind: Any, prefix: str, name: str | None) -> Any:
    if name is None:
        return None
    member = getattr(kind, prefix + name.upper(), None)
    if member is None:
        raise SystemExit(f"llama.cpp has no {prefix.lower().rstrip('_')} called {name}")
    return member


def _ready(version: str, url: str, parameters: Any) -> dict[str, Any]:
    """What holds, as far as it can be asked: the engine rounds contexts up, so slots are read back."""
    properties = _get(url, "/props", parameters.api_keys)
    return {
        "event": "ready",
        "url": url,
        "pid": os.getpid(),
        "engine_version": version,
        "threads": parameters.cpuparams.n_threads,
        "threads_batch": parameters.cpuparams_batch.n_threads,
        "max_model_len": properties["default_generation_settings"]["n_ctx"],
        "max_num_seqs": properties["total_slots"],
        "max_num_batched_tokens": parameters.n_batch,
        "physical_batch_tokens": parameters.n_ubatch,
        "gpu_layers": parameters.n_gpu_layers,
        "kv_cache_dtype": parameters.cache_type_k.name.removeprefix("GGML_TYPE_").lower(),
        "enable_prefix_caching": parameters.cache_prompt,
    }


def _get(url: str, path: str, keys: list[str]) -> Any:
    """JSON by HTTP, without http.client, which takes longer to import than the answer to come."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    key = f"Authorization: Bearer {keys[0]}\r\n" if keys else ""
    with socket.socket() as connection:
        connection.connect((host, int(port)))
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{key}Connection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    return json.loads(answer.partition(b"\r\n\r\n")[2])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
