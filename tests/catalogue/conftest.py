"""Every test has a settings folder of its own, so that nobody's rows reach into it."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user's rows stand."""
    monkeypatch.setenv("SERVOLT_HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "config" / "catalogue"
    folder.mkdir(parents=True)
    return folder
