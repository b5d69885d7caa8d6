"""`python -m tools.engine_envs [NAME ...]`: the environments of engines and of what starts them, outside the checkout.

They are kept between runs in ~/.cache/servolt/engine-envs, or where SERVOLT_ENGINE_ENVS says, and made anew when their
lock changes. `engines` and `targets` are environments of their own; each other one is one version of an engine, which
lies before the engines' packages on Python's path. torch comes by pip, which has to find its CPU build
(PIP_FIND_LINKS); all else by uv, which is faster.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from tools.engine_envs.places import LOCKS, TOOL, TORCH, folder, python_of, whole

PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check")
TRIES = 2  # a registry that does not answer once is asked again


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.engine_envs", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(sorted(LOCKS))}; all by default")
    names = parser.parse_args().names or sorted(LOCKS, key=lambda name: (not whole(name), name))
    for name in names:
        if not is_made(name):
            print(f"making {folder(name)}", file=sys.stderr, flush=True)
            make(name)
    return 0


def is_made(name: str) -> bool:
    stamp = folder(name) / "lock"
    return stamp.exists() and stamp.read_text(encoding="utf-8") == digest(name)


def digest(name: str) -> str:
    return hashlib.sha256(LOCKS[name].read_bytes() + TORCH.read_bytes() + sys.version.encode()).hexdigest()


def make(name: str) -> None:
    place = folder(name)
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    if whole(name):
        run(sys.executable, "-m", "venv", "--without-pip", str(place))
        install(LOCKS[name], "--python", python_of(name))
        if name == "engines":
            pip = (*PIP, "--python", python_of(name), "install", "--no-deps", "--require-hashes", "-r", str(TORCH))
            run(sys.executable, *pip, tries=TRIES)
    else:
        install(LOCKS[name], "--python", python_of(name), "--target", str(place))
        prune(place)
        if name.startswith("vllm-"):
            call_it_the_cpu_build(place, name.partition("-")[2])
    (place / "lock").write_text(digest(name), encoding="utf-8")


def install(lock: Path, *where: str) -> None:
    run(uv(), "pip", "install", "--quiet", "--no-deps", "--require-hashes", *where, "-r", str(lock), tries=TRIES)


def uv() -> str:
    place = folder("uv")
    program = place / "bin/uv"
    if not program.exists():
        run(sys.executable, *PIP, "install", "--no-deps", "--require-hashes", "--target", str(place), "-r", str(TOOL))
    return str(program)


def prune(place: Path) -> None:
    """Only the sources are read; kernels for GPUs would be most of the disk's use. Triton's own is what it imports."""
    for library in place.rglob("*.so"):
        if library.name != "libtriton.so":
            library.unlink()


def call_it_the_cpu_build(place: Path, version: str) -> None:
    """vLLM asks the metadata of a package `vllm` whether it was built for processors."""
    for found in place.glob("vllm*.dist-info"):
        shutil.rmtree(found)
    named = place / f"vllm-{version}+cpu.dist-info"
    named.mkdir()
    text = f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n"
    (named / "METADATA").write_text(text, encoding="utf-8")


def run(*words: str, tries: int = 1) -> None:
    for left in range(tries - 1, -1, -1):
        result = subprocess.run(words, check=False)
        if result.returncode == 0:
            return
        if not left:
            raise SystemExit(f"{' '.join(words)} ended with {result.returncode}")


if __name__ == "__main__":
    sys.exit(main())
