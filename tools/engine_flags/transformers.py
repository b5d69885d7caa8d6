"""`transformers serve`: the annotated parameters of one constructor, which typer turns into options."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tools.engine_flags.parsers import function
from tools.engine_flags.rows import Row, field_row, row_of
from tools.engine_flags.syntax import Sources, called

__all__ = ["flags"]


def flags(root: Path) -> Iterator[Row]:
    sources = Sources(root, ["transformers/cli/serve.py"])
    made = function(sources.classes["Serve"], "__init__")
    assert made is not None
    parameters = made.args.args[1:]
    for parameter, default in zip(parameters, made.args.defaults, strict=True):
        annotation = parameter.annotation
        if not (isinstance(annotation, ast.Subscript) and isinstance(annotation.slice, ast.Tuple)):
            continue
        kind, option = annotation.slice.elts
        if not (isinstance(option, ast.Call) and called(option) == "Option"):
            continue
        base = field_row(sources, kind)
        choices = base.get("choices") or _members(sources, kind)
        name = f"--{parameter.arg.replace('_', '-')}"
        yield row_of([name], base["kind"], choices=choices, default=sources.value(default))


def _members(sources: Sources, kind: ast.expr) -> list[str] | None:
    if not (isinstance(kind, ast.Name) and kind.id in sources.classes):
        return None
    body = sources.classes[kind.id].body
    return [str(sources.value(node.value)) for node in body if isinstance(node, ast.Assign)]
