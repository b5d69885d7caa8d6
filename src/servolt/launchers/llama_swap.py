"""A configuration for llama-swap, which starts a model when it is asked for."""

import shlex
from typing import Any, ClassVar

from servolt.command import Command
from servolt.launchers.manifest import Manifest, name_of, one_machine, refusal, start_limit_s, yaml_text

__all__ = ["LlamaSwap"]

TTL_S = 300  # unused for so long, a model is unloaded: Ollama's five minutes


class LlamaSwap(Manifest):
    name = "llama-swap"
    started_by: ClassVar[str] = "start it with `llama-swap --config FILE`"

    def body(self, command: Command) -> str:
        one_machine(command, self.name)
        if command.files:
            raise refusal(
                self.name, f"the file {', '.join(command.files)} that {command.engine} reads", "Export compose."
            )
        words = list(command.argv)
        if any("${" in word for word in words):
            raise refusal(self.name, "an argument with ${, which it reads as one of its own", "Export shell.")
        port = words.index("--port") + 1
        cmd = " ".join([*map(shlex.quote, words[:port]), "${PORT}", *map(shlex.quote, words[port + 1 :])])
        model: dict[str, Any] = {
            "cmd": cmd,
            "proxy": "http://127.0.0.1:${PORT}",
            "checkEndpoint": command.ready_path,
            "ttl": TTL_S,
        }
        if command.env:
            model["env"] = [f"{name}={value}" for name, value in sorted(command.env.items())]
        told = command.served_model_name or command.model
        if told is not None and told != name_of(command) and not told.startswith("/"):
            model["aliases"] = [told]
        timeout = max(15, start_limit_s(command))  # 15 is the least it takes
        return yaml_text({"healthCheckTimeout": timeout, "models": {name_of(command): model}})
