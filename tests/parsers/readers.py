"""What each program says to a command line or a file, asked in a process of its own with its own Python.

Each script reads a list of JSON from its input and prints a verdict for each item: what it refuses, and what it read.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from servolt.launchers.accelerators import CHIPS
from tools.engine_envs.places import LOCKS, folder, path_of, python_of

__all__ = ["SCRIPTS", "Verdict", "read", "refused"]


class Verdict(NamedTuple):
    fault: str | None
    values: dict[str, Any]


# `parse` takes an item and returns what was read, as far as JSON has it.
LOOP = """
import contextlib, io, json, sys
verdicts = []
for item in json.load(sys.stdin):
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            values = parse(item)
        verdicts.append([None, values])
    except (SystemExit, Exception) as error:
        lines = [line for line in said.getvalue().splitlines() if "error" in line.lower()]
        verdicts.append([f"{type(error).__name__}: {error} {' '.join(lines[-2:])}".strip()[:800], {}])
print("VERDICTS " + json.dumps([release, verdicts]))
"""

SCRIPTS = {
    # The whole parser of `vllm serve`, its own check, and the arguments that the engine is made of.
    "vllm": """
import json
import vllm
try:
    from vllm.utils.argparse_utils import FlexibleArgumentParser
except ImportError:
    from vllm.utils import FlexibleArgumentParser
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.cli.serve import ServeSubcommand
command = ServeSubcommand()
parser = FlexibleArgumentParser()
command.subparser_init(parser.add_subparsers(required=True, dest="subparser"))
release = vllm.__version__
def parse(words):
    args = parser.parse_args(words[1:])
    command.validate(args)
    if getattr(args, "model_tag", None) is not None:
        args.model = args.model_tag
    AsyncEngineArgs.from_cli_args(args)
    return {key: value for key, value in vars(args).items() if isinstance(value, (bool, int, float, str, list, dict))}
""",
    "sglang": """
import argparse
from sglang.srt.server_args import ServerArgs
from sglang.version import __version__ as release
parser = argparse.ArgumentParser()
ServerArgs.add_cli_args(parser)
def parse(words):
    args = vars(parser.parse_args(words[3:]))
    return {key: value for key, value in args.items() if isinstance(value, (bool, int, float, str, list, dict))}
""",
    "transformers": """
import transformers
from transformers.cli.transformers import app
release = transformers.__version__
def parse(words):
    name, command, rest = app.resolve_command(app.make_context("transformers", list(words[1:])), list(words[1:]))
    found = command.make_context(name, rest).params
    return {key: value for key, value in found.items() if isinstance(value, (bool, int, float, str))}
""",
    # llama.cpp's own parser as xllamacpp brings it, called inside its library. What it fills in is the object that
    # xllamacpp starts its server with, which lies behind the two words that each object of Python begins with.
    "llamacpp": """
import ctypes, os, tempfile, xllamacpp
release = xllamacpp.__version__
library = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
parser = library["_Z19common_params_parseiPPcR13common_params13llama_examplePFviS0_E"]
parser.restype = ctypes.c_bool
parser.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p), ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
SERVER = 12  # LLAMA_EXAMPLE_SERVER, common/common.h
HEAD = 2 * ctypes.sizeof(ctypes.c_void_p)
READ = ("n_ctx", "n_parallel", "n_batch", "n_ubatch", "port", "n_gpu_layers", "cache_prompt", "kv_unified",
        "endpoint_metrics", "fit_params", "embedding", "no_op_offload", "cache_ram_mib")
probe = xllamacpp.CommonParams()
probe.n_ctx = 74565
assert ctypes.string_at(id(probe) + HEAD, 4096).find((74565).to_bytes(4, "little")) > 0, "the object lies elsewhere"
def parse(words):
    made = xllamacpp.CommonParams()
    argv = (ctypes.c_char_p * (len(words) + 1))(*(word.encode() for word in words), None)
    with tempfile.TemporaryFile() as said:
        kept = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            taken = parser(len(words), argv, id(made) + HEAD, SERVER, None)
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        said.seek(0)
        told = said.read().decode(errors="replace")
    if not taken:
        raise ValueError(told.strip())
    values = {name: getattr(made, name) for name in READ}
    values["model"] = made.model.path
    values["threads"] = made.cpuparams.n_threads
    values["cache_type_k"], values["cache_type_v"] = made.cache_type_k.name, made.cache_type_v.name
    values["flash_attn"] = made.flash_attn_type.name
    values["alias"] = sorted(made.model_alias)
    return values
""",
    # The schema of `serve deploy`, what ray.serve.llm makes of each model, and vLLM's own arguments.
    "ray-serve": """
import ray, vllm
from ray.serve.llm import LLMConfig
from ray.serve.schema import ServeDeploySchema
from vllm.engine.arg_utils import AsyncEngineArgs
release = ray.__version__
def parse(document):
    schema = ServeDeploySchema.model_validate(document)
    values = {}
    for application in schema.applications:
        for told in application.args["llm_configs"]:
            config = LLMConfig(**told)
            config.get_engine_config()
            AsyncEngineArgs(model="somewhere", **config.engine_kwargs)
            values.update(config.engine_kwargs)
    return values
""",
    "skypilot": """
import sky
release = sky.__version__
def parse(document):
    given = [(name, "x") for name in document.get("secrets") or {}]
    task = sky.Task.from_yaml_config(document, secrets_overrides=given)
    return {"num_nodes": task.num_nodes, "run": task.run}
""",
    "compose": """
import compose_spec
from importlib.metadata import version
release = version("compose-spec")
def parse(text):
    # Compose puts variables in before it reads; this parser reads only.
    found = compose_spec.PyCompose.from_yaml(text.replace("${HOME}", "/root").replace("$$", "$"))
    found.validate()
    return {}
""",
    "kubernetes": """
import kubernetes_validate
from importlib.metadata import version
release = version("kubernetes-validate").rpartition(".")[0]
def parse(document):
    kubernetes_validate.validate(document, release, strict=True)
    return {}
""",
    "modelfile": """
from importlib.metadata import version
from owist_modelfile_lint.lint_api import lint_text
release = version("owist-modelfile-lint")
# Those that Ollama reads (Runner in its api/types.go) and its documentation, the linter's source, leaves out.
RUNNER = ("num_batch", "num_gpu", "num_thread")
def parse(text):
    found = [str(issue) for issue in lint_text(text, estimate_resources=False).errors]
    wrong = [one for one in found if "FROM005" not in one and not any(f"'{name}'" in one for name in RUNNER)]
    if wrong:
        raise ValueError("; ".join(wrong))
    return {}
""",
}


def read(script: str, items: Sequence[Any], environment: str | None = None) -> tuple[str, list[Verdict]]:
    """The program's own version, and what it makes of each item. Skips where the environment was not made."""
    path = ""
    python = sys.executable
    if environment is not None:
        assert environment in LOCKS
        python, path = python_of(environment), path_of(environment)
        if not (folder(environment) / "lock").exists():
            pytest.skip(f"no environment {environment}: python -m tools.engine_envs {environment}")
    with tempfile.TemporaryDirectory() as home:
        if script == "skypilot":
            _catalogue(Path(home))
        result = subprocess.run(
            [python, "-c", SCRIPTS[script] + LOOP],
            input=json.dumps(list(items)),
            env={**_plain(), "HOME": home, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": ""},
            capture_output=True,
            text=True,
            check=False,
        )
    line = next((line for line in result.stdout.splitlines() if line.startswith("VERDICTS ")), None)
    assert line is not None, f"{result.returncode}: {result.stderr[-3000:]}"
    release, verdicts = json.loads(line.removeprefix("VERDICTS "))
    return release.partition("+")[0], [Verdict(*verdict) for verdict in verdicts]


def _catalogue(home: Path) -> None:
    """SkyPilot fetches its list of accelerators; without it, the names that we write stand in it."""
    path = home / ".sky/catalogs/v8/common/accelerators.csv"
    path.parent.mkdir(parents=True)
    rows = [f"{chip[1]},AWS" for chip in CHIPS]
    path.write_text("\n".join(["AcceleratorName,Clouds", *dict.fromkeys(rows)]) + "\n", encoding="utf-8")


def refused(items: Sequence[Any], verdicts: Sequence[Verdict]) -> list[tuple[str, Any]]:
    return [(verdict.fault, item) for item, verdict in zip(items, verdicts, strict=True) if verdict.fault is not None]


def _plain() -> dict[str, str]:
    """Nothing that engines would take settings from, and nothing that reaches out."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "TMPDIR", "LD_LIBRARY_PATH")}
    quiet = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    return {**kept, **quiet, "SKYPILOT_DISABLE_USAGE_COLLECTION": "1", "VLLM_TARGET_DEVICE": "cpu"}
