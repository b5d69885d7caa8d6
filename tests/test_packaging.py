"""What is in the wheel works without the checkout."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        timeout=120,
    )
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_model_and_the_types_and_nothing_of_the_checkout(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"servolt/py.typed", "servolt/data/guide/guide-f16.gguf", "servolt/data/guide/guide-q8_0.gguf"} <= names
    assert not [name for name in names if not name.startswith("servolt")]


def test_the_command_answers_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SERVOLT_")}
    environ |= {"PYTHONPATH": str(tmp_path / "site"), "SERVOLT_HOME": str(tmp_path / "home")}
    program = (
        "import servolt, sys; assert servolt.__file__.startswith(sys.argv[1]); "
        "from servolt.cli.main import run; sys.exit(run(['run', 'guide', 'What is TTFT?']))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "site")],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert "first token" in result.stdout.lower(), result.stderr


def test_every_dependency_is_imported_and_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    reasons = (ROOT / "docs" / "decisions" / "0002-dependencies.md").read_text(encoding="utf-8")
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    for requirement in project["dependencies"]:
        name = requirement.partition(">=")[0]
        module = {"prometheus-client": "prometheus_client", "pyyaml": "yaml"}.get(name, name)
        assert re.search(rf"^\s*(import|from) {module}\b", sources, re.MULTILINE), f"nothing imports {module}"
        assert f"| {name} |" in reasons or re.search(rf"\|.*\b{name}\b.*\|", reasons), f"{name} has no reason"


def test_the_pins_name_no_index() -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert "://" not in pins
    assert "--index-url" not in pins
