"""A line for a POSIX shell, with what has to be there before it; on several machines a line for each."""

import shlex
from typing import ClassVar

from servolt.command import Command
from servolt.launchers.manifest import Manifest, refusal

__all__ = ["Shell", "here_document", "on_machine"]

END = "END-OF-FILE"


class Shell(Manifest):
    name = "shell"
    started_by: ClassVar[str] = "run it in a shell"

    def body(self, command: Command) -> str:
        placed = command.with_files_in(".")
        files = [here_document(name, text) for name, text in command.files.items()]
        machines = command.devices.machines if command.devices else 1
        if machines == 1:
            return "\n".join([*files, placed.shell()])
        if command.joining is None:
            raise refusal(
                "shell", f"{command.engine} on {machines} machines", "Plan for fewer devices, or another engine."
            )
        lines = [*files, 'LEADER="${LEADER:?the address of the first machine}"']
        for rank in range(machines):
            lines += [f"# on machine {rank} of {machines}:", _joined(placed, rank, machines)]
        return "\n".join(lines)


def here_document(name: str, text: str) -> str:
    return f"cat > {shlex.quote(name)} <<'{END}'\n{text.rstrip()}\n{END}"


def on_machine(command: Command, machines: str, rank: str, leader: str, *, first: bool) -> list[str]:
    """What argv is followed by on one of several machines."""
    joining = command.joining
    told = () if joining is None else joining.every if first else (*joining.every, *joining.others)
    return [word.replace("{machines}", machines).replace("{rank}", rank).replace("{leader}", leader) for word in told]


def _joined(command: Command, rank: int, machines: int) -> str:
    added = on_machine(command, str(machines), str(rank), "{leader}", first=rank == 0)
    words = [f'"{word.replace("{leader}", "$LEADER")}"' if "{leader}" in word else shlex.quote(word) for word in added]
    return " ".join([command.shell(), *words])
