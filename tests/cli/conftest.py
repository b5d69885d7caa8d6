"""Runs the command line as a user does: a process, its streams, its exit code."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Result = subprocess.CompletedProcess[str]
Run = Callable[..., Result]


@pytest.fixture
def servolt(tmp_path: Path) -> Run:
    """`servolt("plan", "guide", stdin=..., SETTING=...)` with all folders under the test's own."""

    def run(*args: str, stdin: str | None = None, timeout_s: float = 120, **environ: str) -> Result:
        ours = ("SERVOLT_", "OLLAMA_", "AI_AGENT", "AGENT")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return subprocess.run(
            [sys.executable, "-m", "servolt", *args],
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            env={**kept, "SERVOLT_HOME": str(tmp_path / "home"), **environ},
            check=False,
            timeout=timeout_s,
        )

    return run
