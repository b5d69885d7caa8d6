"""Where the environments are, and the Python of each."""

import os
from pathlib import Path

__all__ = ["LOCKS", "TOOL", "TORCH", "folder", "path_of", "python_of", "whole"]

FOLDER = Path(__file__).parent / "locks"
TOOL, TORCH = FOLDER / "uv.txt", FOLDER / "torch.txt"
LOCKS = {path.stem: path for path in FOLDER.glob("*.txt") if path not in (TOOL, TORCH)}
WHOLE = ("engines", "targets")  # environments of their own


def whole(name: str) -> bool:
    return name in WHOLE


def folder(name: str) -> Path:
    root = os.environ.get("SERVOLT_ENGINE_ENVS")
    return (Path(root) if root else Path.home() / ".cache/servolt/engine-envs") / name


def python_of(name: str) -> str:
    return str(folder(name if whole(name) else "engines") / "bin/python")


def path_of(name: str) -> str:
    """PYTHONPATH: what lies before the environment's own packages."""
    return "" if whole(name) else str(folder(name))
