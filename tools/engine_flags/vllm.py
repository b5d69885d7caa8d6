"""`vllm serve`: flags made from the fields of its configuration classes, and some of their own."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tools.engine_flags.parsers import flags_of, function
from tools.engine_flags.rows import Row
from tools.engine_flags.syntax import Sources

__all__ = ["flags"]

# Where the types that the configuration's fields name are defined, in one version or another.
TYPES = (
    "vllm/config.py",
    "vllm/model_executor/layers/quantization/__init__.py",
    "vllm/model_executor/model_loader/__init__.py",
    "vllm/entrypoints/chat_utils.py",
    "vllm/renderers/chat_utils.py",
    "vllm/v1/attention/backends/registry.py",
    "vllm/attention/backends/registry.py",
    "vllm/entrypoints/constants.py",
    "vllm/entrypoints/anthropic/protocol.py",
    "vllm/tool_parsers/tool_strict_level.py",
    "vllm/renderers/__init__.py",
    "vllm/renderers/params.py",
    "vllm/lora",
)


def flags(root: Path) -> Iterator[Row]:
    entrypoints = [str(path.relative_to(root)) for path in sorted((root / "vllm/entrypoints").rglob("cli_args.py"))]
    serve = "vllm/entrypoints/cli/serve.py"
    sources = Sources(root, ["vllm/engine/arg_utils.py", "vllm/config", *entrypoints, serve, *TYPES])
    yield from flags_of(sources, _method(sources, "ServeSubcommand", "subparser_init"))
    for module in entrypoints:
        yield from flags_of(sources, function(sources.modules[module], "make_arg_parser"))
    for owner in ("BaseFrontendArgs", "FrontendArgs"):
        yield from flags_of(sources, _method(sources, owner, "add_cli_args"), "FrontendArgs")
    for owner in ("EngineArgs", "AsyncEngineArgs"):
        yield from flags_of(sources, _method(sources, owner, "add_cli_args"), owner)


def _method(sources: Sources, owner: str, name: str) -> ast.FunctionDef | None:
    definition = sources.classes.get(owner)
    return None if definition is None else function(definition, name)
