"""A package's source as syntax: its classes, constants and types by name. Nothing of it is imported or run."""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["UNKNOWN", "Sources", "called", "keywords", "last_name"]


class _Unknown:
    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = _Unknown()  # a value that only running the program would tell


class Sources:
    """The modules of some folders and files below `root`. A name that two modules define means the first of them."""

    def __init__(self, root: Path, paths: Iterable[str]) -> None:
        self.modules: dict[str, ast.Module] = {}
        self.classes: dict[str, ast.ClassDef] = {}
        self.constants: dict[str, ast.expr] = {}
        for path in paths:
            for file in _files(root / path):
                tree = ast.parse(file.read_text(encoding="utf-8"))
                self.modules[str(file.relative_to(root))] = tree
                self._index(tree)

    def _index(self, tree: ast.Module) -> None:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                self.classes.setdefault(node.name, node)
        for statement in tree.body:
            for name, expression in _assigned(statement):
                self.constants.setdefault(name, expression)

    def fields(self, name: str) -> dict[str, tuple[ast.expr, ast.expr | None]]:
        """Annotation and default of each field of a class; those of its bases first."""
        found: dict[str, tuple[ast.expr, ast.expr | None]] = {}
        definition = self.classes.get(name)
        if definition is None:
            return found
        for base in definition.bases:
            if isinstance(base, ast.Name):
                found.update(self.fields(base.id))
        for statement in definition.body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                found[statement.target.id] = (statement.annotation, statement.value)
        return found

    def union(self, annotation: ast.expr) -> list[ast.expr]:
        """The members of Optional, Union and `|`, aliases resolved: `int | None` is [int, None]."""
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            return self.union(ast.parse(annotation.value, mode="eval").body)
        if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
            return self.union(annotation.left) + self.union(annotation.right)
        if isinstance(annotation, ast.Subscript):
            outer, inside = last_name(annotation.value), _elements(annotation.slice)
            if outer == "Optional":
                return [*self.union(inside[0]), ast.Constant(None)]
            if outer == "Union":
                return [member for part in inside for member in self.union(part)]
            if outer in ("Annotated", "SkipValidation", "ClassVar", "A", "InitVar"):
                return self.union(inside[0])
        if isinstance(annotation, ast.Name) and annotation.id in self.constants:
            return self.union(self.constants[annotation.id])
        return [annotation]

    def literals(self, annotation: ast.expr) -> list[Any] | None:
        """The options of Literal[...], those of Literals inside too; None for another type."""
        found: list[Any] = []
        for member in self.union(annotation):
            if not (isinstance(member, ast.Subscript) and last_name(member.value) == "Literal"):
                continue
            for option in _elements(member.slice):
                inner = self.literals(option) if isinstance(option, ast.Name | ast.Subscript) else None
                found += inner if inner is not None else [self.value(option)]
        return found or None

    def value(self, node: ast.expr | None) -> Any:
        """What an expression says as JSON would hold it, UNKNOWN where it has to be run."""
        if node is None:
            return UNKNOWN
        try:
            return _plain(ast.literal_eval(node))
        except ValueError:
            pass
        if isinstance(node, ast.Name):
            return self.value(self.constants[node.id]) if node.id in self.constants else UNKNOWN
        if isinstance(node, ast.Attribute):
            return self._attribute(node)
        if isinstance(node, ast.BinOp):
            return _joined(self.value(node.left), self.value(node.right), node.op)
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            return self._several(node.elts)
        if isinstance(node, ast.ListComp):
            return self._listed(node)
        return self._call(node) if isinstance(node, ast.Call) else UNKNOWN

    def _attribute(self, node: ast.Attribute) -> Any:
        """`Class.field` is the field's default, `Enum.MEMBER.value` the member's value."""
        if node.attr == "value" and isinstance(node.value, ast.Attribute):
            return self._attribute(node.value)
        owner = last_name(node.value)
        if owner in self.classes:
            fields = self.fields(owner)
            if node.attr in fields:
                return self.value(fields[node.attr][1])
            members = dict(_members(self.classes[owner]))
            if node.attr in members:
                return self.value(members[node.attr])
        return UNKNOWN

    def _several(self, elements: list[ast.expr]) -> Any:
        found: list[Any] = []
        for element in elements:
            one = self.value(element.value if isinstance(element, ast.Starred) else element)
            if one is UNKNOWN:
                return UNKNOWN
            found += one if isinstance(element, ast.Starred) else [one]
        return found

    def _listed(self, node: ast.ListComp) -> Any:
        """`[member.value for member in Enum]`."""
        owner = last_name(node.generators[0].iter)
        if owner in self.classes and isinstance(node.elt, ast.Attribute) and node.elt.attr == "value":
            return self._several([value for _, value in _members(self.classes[owner])])
        return UNKNOWN

    def _call(self, node: ast.Call) -> Any:
        name = called(node)
        if name == "get_args" and node.args:
            return self.literals(node.args[0]) or UNKNOWN
        if name in ("list", "sorted", "tuple", "set") and node.args:
            return self.value(node.args[0])
        if name == "get_field" and len(node.args) == 2:
            owner, field = last_name(node.args[0]), self.value(node.args[1])
            return self.value(self.fields(owner).get(field, (None, None))[1])
        if name in ("field", "Field"):
            given = keywords(node)
            factory = given.get("default_factory")
            if factory is not None:
                return self._made(factory)
            return self.value(given.get("default", node.args[0] if node.args else None))
        return UNKNOWN

    def _made(self, factory: ast.expr) -> Any:
        if isinstance(factory, ast.Lambda):
            return self.value(factory.body)
        return {"list": [], "dict": {}, "set": []}.get(last_name(factory), UNKNOWN)


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(path.rglob("*.py"))
    elif path.exists():
        yield path


def _assigned(statement: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target = statement.targets[0]
        if isinstance(target, ast.Name):
            yield target.id, statement.value
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
        yield statement.target.id, statement.value
    elif isinstance(statement, ast.If | ast.Try):
        # What stands in for a type while the program runs says less than the type.
        stand_in = isinstance(statement, ast.If) and last_name(statement.test) == "TYPE_CHECKING"
        for inner in [*statement.body, *([] if stand_in else statement.orelse)]:
            yield from _assigned(inner)


def _members(definition: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    for statement in definition.body:
        yield from _assigned(statement)


def last_name(node: ast.expr) -> str:
    """`b` of `a.b` and of `b`; nothing of anything else."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def called(node: ast.Call) -> str:
    return last_name(node.func)


def keywords(node: ast.Call) -> dict[str, ast.expr]:
    return {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg is not None}


def _elements(node: ast.expr) -> list[ast.expr]:
    return node.elts if isinstance(node, ast.Tuple) else [node]


def _joined(left: Any, right: Any, operator: ast.operator) -> Any:
    if left is UNKNOWN or right is UNKNOWN:
        return UNKNOWN
    if isinstance(operator, ast.Add | ast.BitOr) and isinstance(left, list) and isinstance(right, list):
        return left + right
    numbers = isinstance(left, int | float) and isinstance(right, int | float)
    if numbers and isinstance(operator, ast.Mult):
        return left * right
    if numbers and isinstance(operator, ast.Pow):
        return left**right
    return left + right if numbers and isinstance(operator, ast.Add) else UNKNOWN


def _plain(value: Any) -> Any:
    """A set comes in no order of its own, so it is sorted."""
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    if isinstance(value, bytes) or value is ...:
        return UNKNOWN
    return value
