"""Makes guide from nothing: text, tokenizer, weights, GGUF files, and how often they are right.

`make guide` runs this in an environment made from requirements.txt. It takes 10 to 20 minutes on two cores.
Progress goes to standard error, the table of results to standard output.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "src" / "servolt" / "data" / "guide"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=SHIPPED, help="where the two GGUF files go")
    parser.add_argument("--steps", type=int, help="fewer for a quick look; the default is what is shipped")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    with tempfile.TemporaryDirectory(prefix="guide-") as trained:
        stage("corpus")
        stage("train", "--out", trained, *(["--steps", str(arguments.steps)] if arguments.steps else []))
        stage("write_gguf", "--trained", trained, "--out", str(out))
    stage("evaluate", *map(str, sorted(out.glob("guide-*.gguf"))))


def stage(module: str, *arguments: str) -> None:
    """One module as its own process, from the repository's root, so that memory and threads are its own."""
    print(f"guide: {module}", file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, "-m", f"tools.guide.{module}", *arguments], cwd=ROOT, check=False)
    if done.returncode != 0:
        raise SystemExit(f"tools.guide.{module} failed with exit code {done.returncode}; what it printed says why.")


if __name__ == "__main__":
    main()
