"""`llama-server`: common/arg.cpp, whose options are C++ calls of one shape."""

import re
from collections.abc import Iterator
from pathlib import Path

from tools.engine_flags.rows import Row

__all__ = ["flags"]

# add_opt(common_arg({"-c", "--ctx-size"}, "N", ... [](common_params & params, int value) ... ).set_env("X"));
OPTION = re.compile(
    r"add_opt\(common_arg\((?:\s*//[^\n]*)*\s*(\{[^}]*\})(?:,\s*(\{[^}]*\}))?(.*?)(?=\n    add_opt\(|\n    if \(|\Z)",
    re.DOTALL,
)
VALUE = re.compile(
    r"\[[^\]]*\]\(common_params & ?\w*(?:, (int|bool|const std::string &) ?\w*)?(?:, const std::string & ?\w*)?\)"
)
NAME = re.compile(r'"(-[^"]+)"')


def flags(root: Path) -> Iterator[Row]:
    """Options for every program, and those for the server."""
    text = (root / "common/arg.cpp").read_text(encoding="utf-8")
    for option in OPTION.finditer(text):
        names, off, rest = NAME.findall(option[1]), NAME.findall(option[2] or ""), option[3]
        places = re.findall(r"set_examples\(\{([^}]*)\}", rest)
        if not names or (
            places and not {"LLAMA_EXAMPLE_SERVER", "LLAMA_EXAMPLE_COMMON"} & set(re.findall(r"\w+", places[0]))
        ):
            continue
        yield _row(names, off, rest)


def _row(names: list[str], off: list[str], rest: str) -> Row:
    value = VALUE.search(rest)
    kind = {"int": "int", "const std::string &": "str", "bool": "toggle"}.get(value[1] if value else "", "switch")
    flag = next((name for name in reversed(names) if name.startswith("--")), names[0])
    row: Row = {"flag": flag, "kind": kind}
    others = [name for name in names if name != flag]
    if others:
        row["aliases"] = others
    if off:
        row["off"] = off
    variable = re.search(r'set_env\("(\w+)"\)', rest)
    if variable is not None:
        row["env"] = variable[1]
    return row
