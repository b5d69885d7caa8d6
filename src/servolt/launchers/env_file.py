"""An environment file as `docker run --env-file` reads it: each line is literal up to its end."""

import shlex
from typing import ClassVar

from servolt.command import Command
from servolt.launchers.manifest import Manifest, one_machine, refusal, secrets

__all__ = ["EnvFile"]

# What holds the command line, for `sh -c 'eval "exec $SERVOLT_COMMAND"'`.
VARIABLE = "SERVOLT_COMMAND"


class EnvFile(Manifest):
    name = "env"
    started_by: ClassVar[str] = f"run it with `sh -c 'eval \"exec ${VARIABLE}\"'` in that environment"

    def body(self, command: Command) -> str:
        one_machine(command, self.name)
        if command.files:
            raise refusal(
                self.name, f"the file {', '.join(command.files)} that {command.engine} reads", "Export shell."
            )
        words = shlex.join(command.argv)
        lines = [f"{name}={value}" for name, value in sorted(command.env.items())]
        if "\n" in words or any("\n" in line for line in lines):
            raise refusal(self.name, "a value of several lines", "Export shell.")
        return "\n".join(
            [
                *(f"# set {name} where this is read: a secret does not stand in a file" for name in secrets(command)),
                *lines,
                f"# run: sh -c 'eval \"exec ${VARIABLE}\"'",
                f"{VARIABLE}={words}",
            ]
        )
