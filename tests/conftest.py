"""What all tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def _home_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What this machine's user has measured or set must not change a plan that a test looks at."""
    before = os.environ.get("SERVOLT_HOME")
    home = tmp_path_factory.mktemp("home")
    os.environ["SERVOLT_HOME"] = str(home)
    yield home
    if before is None:
        del os.environ["SERVOLT_HOME"]
    else:
        os.environ["SERVOLT_HOME"] = before
