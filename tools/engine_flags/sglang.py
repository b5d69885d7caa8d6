"""SGLang's server: fields of ServerArgs that carry their flag in an annotation, and older add_argument calls."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.engine_flags.parsers import flags_of, function
from tools.engine_flags.rows import Row, argparse_row, field_row
from tools.engine_flags.syntax import Sources, called, keywords, last_name

__all__ = ["flags"]

FIELDS = "sglang/srt/arg_groups/fields"


def flags(root: Path) -> Iterator[Row]:
    sources = Sources(root, ["sglang/srt/server_args.py", "sglang/srt/arg_groups", "sglang/srt/environ.py"])
    own = sources.modules["sglang/srt/server_args.py"]
    server = next(node for node in own.body if isinstance(node, ast.ClassDef) and node.name == "ServerArgs")
    spread = [tree for name, tree in sources.modules.items() if name.startswith(FIELDS)]
    classes = [node for tree in spread for node in tree.body if isinstance(node, ast.ClassDef)]
    for definition in [server, *classes]:
        yield from _annotated(sources, definition)
    yield from flags_of(sources, function(server, "add_cli_args"), "ServerArgs")


def _annotated(sources: Sources, definition: ast.ClassDef) -> Iterator[Row]:
    """`name: A[type, "help"]` and `name: A[type, Arg(...)]`."""
    for statement in definition.body:
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            continue
        annotation = statement.annotation
        if not (isinstance(annotation, ast.Subscript) and last_name(annotation.value) in ("A", "Annotated")):
            continue
        inside = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        argument = next((node for node in inside[1:] if isinstance(node, ast.Call) and called(node) == "Arg"), None)
        given = keywords(argument) if argument is not None else {}
        if argument is None and not any(
            isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp) for node in inside[1:]
        ):
            continue
        if "no_cli" in given and sources.value(given["no_cli"]) is True:
            continue
        yield _row(sources, statement, inside[0], given)


def _row(sources: Sources, statement: ast.AnnAssign, kind: ast.expr, given: dict[str, ast.expr]) -> Row:
    assert isinstance(statement.target, ast.Name)
    named = sources.value(given["cli_name"]) if "cli_name" in given else f"--{statement.target.id.replace('_', '-')}"
    aliases = sources.value(given["aliases"]) if "aliases" in given else []
    base = field_row(sources, kind)
    if base["kind"] == "toggle":
        base["kind"] = "switch"  # a bool is store_true here
    told: dict[str, Any] = {key: given[key] for key in ("choices", "nargs", "action") if key in given}
    if "type_parser" in given:
        told["type"] = given["type_parser"]
        base["kind"] = "list" if "nargs" in given else "str"  # a parser of its own takes a list as one word
    row = argparse_row(sources, [named, *aliases], told, {**base, "default": sources.value(statement.value)})
    if row["kind"] == "str" and "action_kwargs" in given:
        row["kind"] = "list"
    return row
