"""`servolt`: the table of commands, and the one place that turns an error into words and an exit code."""

import importlib
import itertools
import os
import sys
from typing import Any

import click
from click.shell_completion import CompletionItem

from servolt import __version__
from servolt.errors import InvalidInputError, ServoltError

__all__ = ["COMMANDS", "cli", "main"]

# name -> (group, help): the help of `servolt --help` comes from here, so that it imports no command.
COMMANDS: dict[str, tuple[str, str]] = {
    "plan": ("The loop", "Say whether a model fits, how fast it will be, and which command runs it."),
    "serve": ("The loop", "Serve models behind the Ollama and OpenAI APIs."),
    "measure": ("The loop", "Measure latency, throughput and energy of one or more deployments."),
    "compare": ("The loop", "Compare measurements, and what was predicted with what was measured."),
    "calibrate": ("The loop", "Learn from start-up logs and results of deployments, for later plans."),
    "demo": ("The loop", "Plan, serve, measure and compare the built-in model on this machine."),
    "run": ("Models", "Chat with a model in the terminal."),
    "show": ("Models", "Show a measurement or a model."),
    "list": ("Models", "List models, or measurements with --runs."),
    "ps": ("Models", "List the servers that run and the models they hold."),
    "stop": ("Models", "Unload a model, or stop a server."),
    "catalog": ("Models", "Show accelerators, models, prices and grids, and add your own."),
    "export": ("Models", "Write a model as safetensors for other engines."),
    "doctor": ("Help", "Show what this machine offers; --calibrate measures its speed."),
    "config": ("Help", "Show the settings and where each comes from."),
    "dirs": ("Help", "Show the folders that servolt uses."),
    "schema": ("Help", "Print the JSON Schema of a document."),
}

COMPLETION = "_SERVOLT_COMPLETE"  # what a shell sets that wants completions

_EPILOG = """
\b
Exit codes: 0 done, 1 failed, 2 usage, 3 the asked condition
does not hold, 4 measured but not valid, 5 an engine did not
start or died, 6 needs network or login (nothing does yet),
124 an engine was not ready in time, 130 interrupted.

\b
To complete names in bash, put this into ~/.bashrc (zsh and fish alike):
eval "$(_SERVOLT_COMPLETE=bash_source servolt)"
"""


class LazyGroup(click.Group):
    """Imports a command's module only when that command is run or its own help is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"servolt.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for wanted in dict.fromkeys(group for group, _ in COMMANDS.values()):
            with formatter.section(wanted):
                formatter.write_dl([(name, text) for name, (group, text) in COMMANDS.items() if group == wanted])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name, help=text) for name, (_, text) in COMMANDS.items() if name.startswith(incomplete)]


@click.command(cls=LazyGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="servolt")
def cli() -> None:
    """Plan, serve, measure and compare deployments of large language models."""


def main(argv: list[str] | None = None) -> None:
    """Runs a command and exits with its code."""
    args = sys.argv[1:] if argv is None else argv
    _hold_closed_streams()
    sys.exit(run(args))


def run(args: list[str]) -> int:
    if COMPLETION in os.environ:
        from servolt.cli.completion import register

        register()
    try:
        _refuse_what_is_no_text(args)
        result = cli.main(args=args, prog_name="servolt", complete_var=COMPLETION, standalone_mode=False)
    except ServoltError as error:
        return _fail(args, error.code, error.cause, error.remedy, error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())  # noqa: T201 - help is data
        return 2
    except click.UsageError as error:
        hint = f"`{error.ctx.command_path} --help` shows what there is." if error.ctx else ""
        return _fail(args, "E-USE-001", _sentence(error.format_message()), hint, 2)
    except click.ClickException as error:
        return _fail(args, "E-GEN-001", _sentence(error.format_message()), "`servolt --help` shows what there is.", 1)
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # whoever read our output has left: nothing more to say, and nothing to flush at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("SERVOLT_DEBUG"):
            raise
        cause = f"unexpected {type(error).__name__}: {error}"
        return _fail(args, "E-BUG-001", cause, "SERVOLT_DEBUG=1 shows the traceback; please report it.", 1)
    return result if isinstance(result, int) else 0


def _hold_closed_streams() -> None:
    """A stream that was closed (`>&-`) leaves its number to the next file that is opened, and prints would go there."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one


def _refuse_what_is_no_text(args: list[str]) -> None:
    """Bytes that the locale can't read come in as lone surrogates, which no document and no request can hold."""
    for arg in args:
        try:
            arg.encode()
        except UnicodeEncodeError:
            raise InvalidInputError(
                f"{arg!a} is no text in this locale ({sys.getfilesystemencoding()}).",
                "Set LC_ALL=C.UTF-8 and leave PYTHONUTF8 unset; a file whose name is no UTF-8 has to be renamed.",
            ) from None


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else text + "."


def _fail(args: list[str], code: str, cause: str, remedy: str, exit_code: int) -> int:
    if os.environ.get("SERVOLT_DEBUG"):
        import traceback

        traceback.print_exc()
    if _wants_json(args):
        import json

        document: dict[str, Any] = {
            "schema": "servolt.error/1",
            "tool_version": __version__,
            "code": code,
            "message": cause,
            "remedy": remedy,
        }
        click.echo(json.dumps(document), err=True)
    else:
        click.echo(f"Error [{code}]: {cause}", err=True)
        if remedy:
            click.echo(f"Hint: {remedy}", err=True)
    return exit_code


def _wants_json(args: list[str]) -> bool:
    formats = ("json", "jsonl")
    following = dict(itertools.pairwise(args))
    return (
        "--json" in args
        or following.get("--format") in formats
        or any(arg in {f"--format={name}" for name in formats} for arg in args)
    )
