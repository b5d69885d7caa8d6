"""Flags out of functions that fill an argparse parser: calls of add_argument, and vLLM's `**kwargs_of_a_class`."""

import ast
from collections.abc import Iterator
from typing import Any, NamedTuple

from tools.engine_flags.rows import Row, argparse_row, field_row
from tools.engine_flags.syntax import Sources, called, keywords, last_name

__all__ = ["flags_of", "function"]


class _Field(NamedTuple):
    """What `x_kwargs["name"]` stands for."""

    owner: str
    name: str


class _Reading:
    """One function's variables: which hold get_kwargs of which class, and what was changed in them since."""

    def __init__(self, sources: Sources, owner: str) -> None:
        self.sources, self.owner = sources, owner
        self.classes: dict[str, str] = {}
        self.fields: dict[str, _Field] = {}
        self.changes: dict[_Field, dict[str, ast.expr | None]] = {}

    def field(self, node: ast.expr) -> _Field | None:
        if isinstance(node, ast.Name):
            return self.fields.get(node.id)
        if isinstance(node, ast.Subscript):
            key, owner = self.sources.value(node.slice), self._class(node.value)
            if owner is not None and isinstance(key, str):
                return _Field(owner, key)
        return None

    def _class(self, node: ast.expr) -> str | None:
        """Whose kwargs these are: a variable's, or those of `get_kwargs(Class)` itself."""
        if isinstance(node, ast.Call) and called(node) == "get_kwargs" and node.args:
            name = last_name(node.args[0])
            return self.owner if name == "cls" else name
        return self.classes.get(node.id) if isinstance(node, ast.Name) else None

    def assign(self, node: ast.Assign) -> None:
        target, value = node.targets[0], node.value
        if isinstance(target, ast.Name):
            owner = self._class(value) if isinstance(value, ast.Call) else None
            if owner is not None:
                self.classes[target.id] = owner
            elif (field := self.field(value)) is not None:
                self.fields[target.id] = field
        elif isinstance(target, ast.Subscript):
            field = self.field(target.value)
            if field is not None:
                self.changes.setdefault(field, {})[str(self.sources.value(target.slice))] = value

    def delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            if isinstance(target, ast.Subscript) and (field := self.field(target.value)) is not None:
                self.changes.setdefault(field, {})[str(self.sources.value(target.slice))] = None

    def row(self, call: ast.Call) -> Row | None:
        names = [name for name in map(self.sources.value, call.args) if isinstance(name, str)]
        if not names or not all(name.startswith("-") for name in names):
            return None
        given: dict[str, Any] = dict(keywords(call))
        field = None
        for keyword in call.keywords:
            if keyword.arg is None:
                found, more = self._spread(keyword.value)
                field, given = found or field, {**more, **given}
        return self._registered(names, field, given)

    def _spread(self, node: ast.expr) -> tuple[_Field | None, dict[str, Any]]:
        """`**kwargs["x"]`, `**alias` or `**{**kwargs["x"], "default": None}`."""
        if not isinstance(node, ast.Dict):
            return self.field(node), {}
        field, given = None, {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                field = self.field(value)
            else:
                given[str(self.sources.value(key))] = value
        return field, given

    def _registered(self, names: list[str], field: _Field | None, given: dict[str, Any]) -> Row:
        base: dict[str, Any] = {}
        if field is not None:
            annotation, default = self.sources.fields(field.owner).get(field.name, (None, None))
            if annotation is not None:
                base = {**field_row(self.sources, annotation), "default": self.sources.value(default)}
            given = {**self.changes.get(field, {}), **given}
        return argparse_row(self.sources, names, given, base)

    def every_field(self, owner: str) -> Iterator[Row]:
        """`for key, value in kwargs.items(): add_argument(f"--{key}", **value)`."""
        for name in self.sources.fields(owner):
            field = _Field(owner, name)
            flags = self.changes.get(field, {}).get("flags")
            extra = self.sources.value(flags) if flags is not None else []
            yield self._registered([f"--{name.replace('_', '-')}", *extra], field, {})


def flags_of(sources: Sources, definition: ast.FunctionDef | None, owner: str = "", name: str = "") -> Iterator[Row]:
    """Each flag that a function registers, in order. `owner` is what `cls` is; `name` of a variable given from outside
    holds the owner's kwargs."""
    if definition is None:
        return
    reading = _Reading(sources, owner)
    if name:
        reading.classes[name] = owner
    for customised in _customisations(sources, owner):
        reading.classes["frontend_kwargs"] = owner
        for node in customised.body:
            _follow(reading, node)
    for statement in definition.body:
        yield from _statement(reading, statement)


def _statement(reading: _Reading, statement: ast.stmt) -> Iterator[Row]:
    _follow(reading, statement)
    if isinstance(statement, ast.For):
        looped = statement.iter
        if isinstance(looped, ast.Call) and isinstance(looped.func, ast.Attribute) and looped.func.attr == "items":
            owner = reading.classes.get(last_name(looped.func.value))
            if owner is not None:
                yield from reading.every_field(owner)
                return
    inner = [*getattr(statement, "body", []), *getattr(statement, "orelse", [])]
    for nested in inner:
        yield from _statement(reading, nested)
    if inner:
        return
    for node in ast.walk(statement):
        if isinstance(node, ast.Call) and called(node) == "add_argument":
            row = reading.row(node)
            if row is not None:
                yield row


def _follow(reading: _Reading, statement: ast.stmt) -> None:
    if isinstance(statement, ast.Assign):
        reading.assign(statement)
    elif isinstance(statement, ast.Delete):
        reading.delete(statement)
    elif isinstance(statement, ast.If):
        for nested in statement.body:
            _follow(reading, nested)


def _customisations(sources: Sources, owner: str) -> list[ast.FunctionDef]:
    """_customize_cli_kwargs of a class and its bases, the bases' first."""
    definition = sources.classes.get(owner)
    if definition is None:
        return []
    found = [one for base in definition.bases for one in _customisations(sources, last_name(base))]
    own = function(definition, "_customize_cli_kwargs")
    return [*found, own] if own is not None else found


def function(tree: ast.Module | ast.ClassDef, name: str) -> ast.FunctionDef | None:
    return next((node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name), None)
