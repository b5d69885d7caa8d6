"""servolt as a library, from a process that has imported nothing else."""

import subprocess
import sys


def test_the_verb_is_the_package_whatever_was_imported_first() -> None:
    for first in ("import servolt", "import servolt.plan", "from servolt.plan import Plan; import servolt"):
        code = f"{first}; print(servolt.plan('guide').verdict)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert (done.stdout.strip(), done.stderr) == ("fits", ""), first


def test_the_package_itself_imports_next_to_nothing() -> None:
    code = "import servolt, sys; print('pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False"
