"""A systemd unit."""

from typing import ClassVar

from servolt.command import Command
from servolt.launchers.manifest import Manifest, kubernetes_name, one_machine, refusal, secrets, start_limit_s

__all__ = ["Systemd"]

LIMITS = {"memlock": "LimitMEMLOCK", "stack": "LimitSTACK", "nofile": "LimitNOFILE"}


class Systemd(Manifest):
    name = "systemd"
    started_by: ClassVar[str] = "put it into /etc/systemd/system and start it with systemctl"

    def body(self, command: Command) -> str:
        one_machine(command, self.name)
        if command.files:
            raise refusal(
                self.name, f"the file {', '.join(command.files)} that {command.engine} reads", "Export compose."
            )
        name = kubernetes_name(command)
        # env finds a program that is named without its folder.
        program = command.argv if command.argv[0].startswith("/") else ("/usr/bin/env", *command.argv)
        named = [*secrets(command)]
        limits = {"LimitMEMLOCK": "infinity"}
        limits |= {LIMITS[key]: _limit(value) for key, value in command.ulimits.items() if key in LIMITS}
        lines = [
            "[Unit]",
            f"Description=servolt: {_plain(command.engine)} with {name}",
            "After=network-online.target",
            "Wants=network-online.target",
            "",
            "[Service]",
            "Type=exec",
            "# A user of its own: create it, or name another.",
            "User=servolt",
            *(f"Environment={_quoted(f'{key}={value}', dollar=False)}" for key, value in sorted(command.env.items())),
            *([f"# Mode 0600; holds {', '.join(named)}."] if named else []),
            *([f"EnvironmentFile=-/etc/servolt/{name}.env"] if named else []),
            f"ExecStart={' '.join(_quoted(word) for word in program)}",
            "Restart=on-failure",
            "RestartSec=10",
            f"TimeoutStartSec={start_limit_s(command)}",
            "TimeoutStopSec=60",
            "KillSignal=SIGINT",
            *(f"{key}={value}" for key, value in limits.items()),
            "",
            "[Install]",
            "WantedBy=multi-user.target",
        ]
        return "\n".join(lines)


def _quoted(word: str, *, dollar: bool = True) -> str:
    """By systemd's own rules: % starts a specifier, $ a variable (in ExecStart only), a backslash an escape."""
    text = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    if dollar:
        text = text.replace("$", "$$")
    plain = text == word and word and not any(character in word for character in " '\t;")
    return word if plain else f'"{text}"'


def _plain(text: str) -> str:
    return text.replace("%", "%%")


def _limit(value: int) -> str:
    return "infinity" if value < 0 else str(value)
