"""An Ollama Modelfile. Ollama runs llama.cpp too, and leaves fewer of its settings to a model."""

from collections.abc import Mapping
from typing import Any, ClassVar

from servolt.command import Command
from servolt.launchers.manifest import Manifest, only, refusal

__all__ = ["Modelfile"]

# llama-server's options that a Modelfile has a parameter for.
PARAMETERS = {"threads": "num_thread", "batch-size": "num_batch", "n-gpu-layers": "num_gpu"}
# Those that Ollama sets for the whole server, by its environment.
SERVER = {
    "parallel": "OLLAMA_NUM_PARALLEL",
    "cache-type-k": "OLLAMA_KV_CACHE_TYPE",
    "flash-attn": "OLLAMA_FLASH_ATTENTION",
}
# Those that don't change what is planned, or that Ollama decides by the file itself.
UNSAID = {
    *("model", "alias", "host", "port", "metrics", "fit", "cache-ram", "log-verbosity", "op-offload", "threads-batch"),
    *("cache-type-v", "ubatch-size", "embedding", "pooling", "ctx-size", "jinja"),
}


class Modelfile(Manifest):
    name = "modelfile"
    started_by: ClassVar[str] = "give it to Ollama with `ollama create NAME -f FILE`"

    def body(self, command: Command) -> str:
        only(command, self.name, "llamacpp")
        options = command.options
        path = command.model or str(options.get("model", ""))
        unknown = sorted(set(options) - set(PARAMETERS) - set(SERVER) - UNSAID)
        if unknown:
            raise refusal(self.name, f"{', '.join(unknown)}: Ollama has no such setting", "Export shell or llama-swap.")
        if options.get("ubatch-size", options.get("batch-size")) != options.get("batch-size"):
            raise refusal(self.name, "a physical batch of its own", "Set ubatch_size as max_num_batched_tokens.")
        if not options:
            raise refusal(self.name, "settings that could not be read back", "Export shell or llama-swap.")
        if not path:
            raise refusal(self.name, "a start without a model's file", "Name a GGUF file.")
        server = _server(options)
        lines = [f"# Ollama itself is to be started with {' '.join(server)}"] if server else []
        # The context is one sequence's; llama-server's is that of all together.
        context = int(options.get("ctx-size", 0)) // int(options.get("parallel", 1) or 1)
        parameters = {"num_ctx": context or None}
        parameters |= {ours: options.get(theirs) for theirs, ours in PARAMETERS.items()}
        lines += [f"FROM {path}"]
        return "\n".join(
            [*lines, *(f"PARAMETER {name} {value}" for name, value in parameters.items() if value is not None)]
        )


def _server(options: Mapping[str, Any]) -> list[str]:
    found = {variable: options[name] for name, variable in SERVER.items() if name in options}
    flash = found.get("OLLAMA_FLASH_ATTENTION")
    if flash is not None:
        found["OLLAMA_FLASH_ATTENTION"] = 0 if flash in ("off", False) else 1
    return [f"{variable}={value}" for variable, value in found.items()]
