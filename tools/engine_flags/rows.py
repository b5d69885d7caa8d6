"""One flag of an engine's command line, and how its kind follows from a type or from argparse's own words."""

import ast
from collections.abc import Mapping
from typing import Any

from tools.engine_flags.syntax import UNKNOWN, Sources, called, last_name

__all__ = ["Row", "argparse_row", "field_row", "row_of"]

Row = dict[str, Any]  # flag, aliases, kind, choices, default, off: as they stand in the tables

LISTS = {"list", "tuple", "set", "List", "Tuple", "Sequence"}
SCALARS = {"int": "int", "float": "float", "str": "str", "bool": "switch", "Path": "str", "Literal": "str"}
PARSERS = {
    "loads": "json",
    "json_list_type": "json",
    "human_readable_int": "int",
    "human_readable_int_or_auto": "int",
    "nullable_kvs": "str",
    "nullable_str": "str",
    "union_dict_and_str": "json",
}


def row_of(names: list[str], kind: str, *, choices: Any = None, default: Any = UNKNOWN) -> Row:
    """The first long name is the flag, the others are its aliases."""
    flag = next((name for name in names if name.startswith("--")), names[0])
    row: Row = {"flag": flag, "kind": kind}
    others = [name for name in names if name != flag]
    if others:
        row["aliases"] = others
    if isinstance(choices, list) and choices:
        row["choices"] = [choice for choice in choices if choice is not None]
    if default is not UNKNOWN and default is not None:
        row["default"] = default
    if kind == "toggle":
        row["off"] = [f"--no-{name[2:]}" for name in names if name.startswith("--")]
    return row


def field_row(sources: Sources, annotation: ast.expr) -> dict[str, Any]:
    """`kind` and `choices` of an annotated field, by the rules of vLLM's get_kwargs."""
    members = sources.union(annotation)
    names = {_type_name(member) for member in members}
    if names & set(sources.classes) and any(_is_dataclass(sources, name) for name in names):
        return {"kind": "json"}
    if names == {"bool", "str", "None"}:
        return {"kind": "str"}
    if "bool" in names:
        return {"kind": "toggle"}
    options = sources.literals(annotation)
    if options is not None:
        free = "str" in names
        kind = "int" if all(isinstance(option, int) for option in options) else "str"
        return {"kind": kind, **({"known": options} if free else {"choices": options})}
    if names & LISTS:
        inside = [part for member in members if _type_name(member) in LISTS for part in _arguments(member)]
        options = sources.literals(inside[0]) if inside else None
        return {"kind": "list", **({"choices": options} if options else {})}
    if "int" in names:
        return {"kind": "int"}
    if "float" in names:
        return {"kind": "float"}
    if names & {"dict", "Dict", "Mapping"} or any(_is_dict(sources, name) for name in names):
        return {"kind": "json"}
    return {"kind": "str"}


def argparse_row(sources: Sources, names: list[str], given: Mapping[str, Any], base: Mapping[str, Any]) -> Row:
    """What add_argument(*names, **given) registers; `base` is what the field's type says where it comes from one."""
    kind, choices, default = base.get("kind", "str"), base.get("choices"), base.get("default", UNKNOWN)
    if isinstance(given.get("type"), ast.expr) and kind != "list":
        kind = _kind_of_parser(given["type"])
    if isinstance(given.get("action"), ast.expr):
        kind = _kind_of_action(sources, given["action"], given, kind)
    elif isinstance(given.get("nargs"), ast.expr) and sources.value(given["nargs"]) in ("+", "*"):
        kind = "list"
    elif "nargs" in given and given["nargs"] is None and kind == "list":  # taken away again
        kind = "json" if "type" in given else "str"
    if isinstance(given.get("choices"), ast.expr):
        choices = sources.value(given["choices"])
    if isinstance(given.get("default"), ast.expr):
        default = sources.value(given["default"])
    row = row_of(names, kind, choices=choices, default=default)
    if "known" in base:
        row["known"] = [option for option in base["known"] if option is not None]
    return row


def _kind_of_parser(node: ast.expr) -> str:
    """`int`, `json.loads`, `optional_type(int)`."""
    if isinstance(node, ast.Call) and node.args:
        return _kind_of_parser(node.args[0])
    name = last_name(node)
    return SCALARS.get(name) or PARSERS.get(name, "str")


def _kind_of_action(sources: Sources, node: ast.expr, given: Mapping[str, Any], kind: str) -> str:
    """An action of the program's own takes what it would take without it."""
    action = sources.value(node)
    if action in ("store_true", "store_false", "store_const"):
        return "switch"
    if action == "append":
        return "list"
    name = last_name(node)
    if "BooleanOptional" in name:
        return "toggle"
    if "StoreTrue" in name or name == "DeprecatedAction" or "StoreConst" in name:
        return "switch" if "choices" not in given else "str"
    return "list" if isinstance(given.get("nargs"), ast.expr) else kind


def _type_name(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return "None" if node.value is None else str(node.value)
    if isinstance(node, ast.Subscript):
        return last_name(node.value)
    if isinstance(node, ast.Call):
        return called(node)
    return last_name(node)


def _arguments(node: ast.expr) -> list[ast.expr]:
    if not isinstance(node, ast.Subscript):
        return []
    return node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]


def _is_dict(sources: Sources, name: str) -> bool:
    definition = sources.classes.get(name)
    return definition is not None and any(_type_name(base) == "dict" for base in definition.bases)


def _is_dataclass(sources: Sources, name: str) -> bool:
    definition = sources.classes.get(name)
    if definition is None:
        return False
    marks = [mark.func if isinstance(mark, ast.Call) else mark for mark in definition.decorator_list]
    return any(last_name(mark) in ("config", "dataclass") for mark in marks)
