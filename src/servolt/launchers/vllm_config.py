"""The file that `vllm serve --config` reads: long options without their dashes."""

from typing import Any, ClassVar

from servolt.command import Command
from servolt.launchers.manifest import Manifest, one_machine, only, yaml_text

__all__ = ["VllmConfig"]


class VllmConfig(Manifest):
    name = "vllm-config"
    started_by: ClassVar[str] = "start it with `vllm serve --config FILE`"

    def body(self, command: Command) -> str:
        """By argv: a switch that is off has an option of its own, and the file's `false` would be dropped."""
        only(command, self.name, "vllm")
        one_machine(command, self.name)
        words = list(command.argv[command.argv.index("--host") :])
        settings: dict[str, Any] = {"model": command.model}
        while words:
            name, equals, value = words.pop(0).removeprefix("--").partition("=")
            if equals:
                settings[name] = value
            elif words and not words[0].startswith("--"):
                settings[name] = _number(words.pop(0))
            else:
                settings[name] = True
        return yaml_text(settings)


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
