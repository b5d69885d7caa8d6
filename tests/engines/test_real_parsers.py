"""Commands, read by the engines' own parsers. Each engine has an environment of its own, which is named from outside.

SERVOLT_TEST_VLLM, SERVOLT_TEST_SGLANG and SERVOLT_TEST_TRANSFORMERS name a Python in which the engine can be imported.
"""

import json
import os
import subprocess

import pytest

from servolt import registry
from servolt.deployment import Deployment
from servolt.engines.flags import versions
from servolt.errors import InvalidInputError
from servolt.model import Model
from tests.engines.test_folder_engines import SET, WITH

PREPARE = {
    "vllm": """
from importlib.metadata import version
try:
    from vllm.entrypoints.common.cli_args import make_arg_parser
except ImportError:
    try:
        from vllm.entrypoints.launchers.cli_args import make_arg_parser
    except ImportError:
        from vllm.entrypoints.openai.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
import vllm
parse, release, skip = make_arg_parser(FlexibleArgumentParser()).parse_args, vllm.__version__, 2
""",
    "sglang": """
import argparse
import sglang
from sglang.srt.server_args import ServerArgs
from sglang.version import __version__ as release
parser = argparse.ArgumentParser()
ServerArgs.add_cli_args(parser)
parse, skip = parser.parse_args, 3
""",
    "transformers": """
import transformers, typer
from transformers.cli.serve import Serve
app = typer.Typer()
app.command()(Serve)
parsing = typer.main.get_command(app)
release, skip = transformers.__version__, 2
def parse(words):
    parsing.make_context("serve", list(words))
""",
}
READ = """
import json, sys
faults = []
for words in json.load(sys.stdin):
    try:
        parse(words[skip:])
    except (SystemExit, Exception) as error:
        faults.append([words, repr(error)])
print("RESULT " + json.dumps([release, faults]))
"""


def python_of(engine: str) -> str:
    variable = f"SERVOLT_TEST_{engine.upper()}"
    found = os.environ.get(variable)
    if not found:
        pytest.skip(f"{variable} names no Python with {engine}")
    return found


def read_by_the_engine(engine: str, commands: list[list[str]]) -> tuple[str, list[tuple[list[str], str]]]:
    """The engine's own version, and the command lines that its parser refuses, with what it says."""
    result = subprocess.run(
        [python_of(engine), "-c", PREPARE[engine] + READ],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        check=False,
    )
    line = next((line for line in result.stdout.splitlines() if line.startswith("RESULT ")), None)
    assert line is not None, result.stderr[-2000:]
    release, faults = json.loads(line.removeprefix("RESULT "))
    return release, [(words, said) for words, said in faults]


@pytest.mark.slow
@pytest.mark.parametrize("engine", PREPARE)
def test_the_engines_own_parser_takes_every_setting(engine: str, qwen: Model) -> None:
    release, _ = read_by_the_engine(engine, [])
    version = release.partition("+")[0]
    if version not in versions(engine):
        pytest.skip(f"no table of {engine} {version}")
    commands = []
    for field, value in SET.items():
        asked = {**WITH.get(field, {}), field: value, "engine_version": version}
        try:
            made = registry.engine(engine).command(Deployment.of("Qwen/Qwen3-8B", engine=engine, **asked), qwen)
        except InvalidInputError:
            continue
        commands.append(list(made.at(8000).argv))
    assert len(commands) > 5
    wrong = [*commands[0], "--no-such-option"]
    assert [words for words, _ in read_by_the_engine(engine, [*commands, wrong])[1]] == [wrong]
