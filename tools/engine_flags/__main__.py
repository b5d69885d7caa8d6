"""`python -m tools.engine_flags ENGINE --source DIR --version V --date D`: writes the table of one version's flags.

DIR is an unpacked wheel or source package; nothing of it is run. What is kept are names, types, choices and defaults.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tools.engine_flags import llama_cpp, sglang, tensorrt_llm, transformers, vllm
from tools.engine_flags.rows import Row

FOLDER = Path(__file__).parents[2] / "src/servolt/data/engines/flags"
READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "vllm": vllm.flags,
    "sglang": sglang.flags,
    "transformers": transformers.flags,
    "tensorrt_llm": tensorrt_llm.flags,
    "llamacpp": llama_cpp.flags,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.engine_flags", description=__doc__)
    parser.add_argument("engine", choices=READERS)
    parser.add_argument("--source", type=Path, required=True, help="the unpacked package")
    parser.add_argument("--version", required=True)
    parser.add_argument("--date", required=True, help="of reading it, such as 2026-11-20")
    parser.add_argument("--from", dest="origin", required=True, help="what was read, in words")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    asked = parser.parse_args()
    rows = merged(READERS[asked.engine](asked.source))
    path = asked.folder / f"{asked.engine}-{asked.version}.json"
    head = {"engine": asked.engine, "version": asked.version, "date": asked.date, "source": asked.origin}
    path.write_text(written(head, rows), encoding="utf-8")
    print(f"{path.name}: {len(rows)} flags")
    return 0


def merged(rows: Iterable[Row]) -> dict[str, Row]:
    """By flag, in alphabetical order. What is registered later replaces what was, as in argparse."""
    found: dict[str, Row] = {}
    for row in rows:
        found[row["flag"]] = {key: value for key, value in row.items() if key != "flag"}
    return dict(sorted(found.items()))


def written(head: dict[str, str], rows: dict[str, Row]) -> str:
    """One line for each flag, so that two versions can be compared as text."""
    lines = [f"    {json.dumps(flag)}: {json.dumps(row)}" for flag, row in rows.items()]
    opening = "".join(f"  {json.dumps(key)}: {json.dumps(value)},\n" for key, value in head.items())
    body = ",\n".join(lines)
    return f'{{\n  "schema": "servolt.engine_flags/1",\n{opening}  "flags": {{\n{body}\n  }}\n}}\n'


if __name__ == "__main__":
    sys.exit(main())
