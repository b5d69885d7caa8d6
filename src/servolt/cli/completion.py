"""What a shell offers where a model's name is expected: names and files, found without reading a single model."""

import os
import re
from importlib.resources import files
from pathlib import Path

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
)

from servolt import settings
from servolt.errors import ServoltError

__all__ = ["complete_model", "model_names", "register"]

# Commands whose first argument is a model, and those of which all are.
ONE_MODEL = ("calibrate", "export", "plan", "run", "show", "stop")
MANY_MODELS = ("measure", "serve")


def register() -> None:
    """In place of click's own."""
    for shell in (_Bash, _Fish, _Zsh):
        add_completion_class(shell)


def complete_model(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """For `shell_complete` of an argument: names, or files where none begins so."""
    names = [name for name in model_names() if name.lower().startswith(incomplete.lower())]
    return [CompletionItem(name) for name in names] or [CompletionItem(incomplete, type="file")]


def model_names() -> list[str]:
    """The built-in models, and the GGUF files in the folder of the setting `models`."""
    built_in = [path.name for path in (files("servolt") / "data" / "guide").iterdir() if path.name.endswith(".gguf")]
    try:
        folder = settings.resolve("models").value
    except ServoltError:  # a settings file that can't be read: the command itself will say so
        folder = None
    found = [] if folder is None else sorted(path.stem for path in Path(folder).expanduser().glob("*.gguf"))
    return [*sorted(re.sub(r"-([^-]*)\.gguf$", r":\1", name) for name in built_in), *found]


class _Models(ShellComplete):
    """Answers for models without importing the command: a key press should not wait for the command's libraries."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        if _wants_a_model(args, incomplete):
            context = click.Context(self.cli)
            return complete_model(context, click.Argument(["model"]), incomplete)
        return super().get_completions(args, incomplete)


def _wants_a_model(args: list[str], incomplete: str) -> bool:
    """Where an option stands before it, only the command knows whether this word is the option's."""
    if not args or any(word.startswith("-") for word in (*args, incomplete)):
        return False
    return args[0] in MANY_MODELS or (args[0] in ONE_MODEL and len(args) == 1)


class _Bash(_Models, BashComplete):
    """Bash takes `guide:q8_0` for three words, and wants only what follows the colon."""

    def get_completion_args(self) -> tuple[list[str], str]:
        words = os.environ["COMP_WORDS"].split("\n")
        before, typed = words[: int(os.environ["COMP_CWORD"])], words[int(os.environ["COMP_CWORD"]) :][:1]
        joined = re.sub("\n?:\n?", ":", "\n".join([*before, *(typed or [""])])).split("\n")
        self._head = joined[-1].rpartition(":")[0]
        os.environ["COMP_WORDS"], os.environ["COMP_CWORD"] = "\n".join(joined), str(len(joined) - 1)
        return super().get_completion_args()

    def format_completion(self, item: CompletionItem[str]) -> str:
        if self._head and item.value.lower().startswith(f"{self._head.lower()}:"):
            item = CompletionItem(item.value[len(self._head) + 1 :], item.type, item.help)
        return super().format_completion(item)


class _Zsh(_Models, ZshComplete):
    pass


class _Fish(_Models, FishComplete):
    pass
