"""The words that a program would be started with, read out of an export the way its target reads it."""

import re
import shlex
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

__all__ = ["WORDS", "words_of"]

# Prints each word, then an empty line's worth of marks, so that several starts can be told apart.
STUB = "#!/bin/sh\nprintf '%s\\0' \"${0##*/}\" \"$@\"\nprintf '\\1\\0'\n"
PROGRAMS = ("vllm", "python3", "transformers", "trtllm-serve", "llama-server", "docker")
NODES = {"SKYPILOT_NODE_IPS": "10.0.0.5\n10.0.0.6", "LEADER": "10.0.0.5"}


def words_of(target: str, text: str, folder: Path) -> list[list[str]]:
    """One list for each process; the program is the first word."""
    return WORDS[target](text, folder)


def run(script: str, folder: Path, environment: Mapping[str, str] | None = None) -> list[list[str]]:
    for program in PROGRAMS:
        path = folder / program
        if not path.exists():
            path.write_text(STUB, encoding="utf-8")
            path.chmod(0o755)
    found = {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(folder), **NODES, **(environment or {})}
    result = subprocess.run(["/bin/sh", "-ec", script], env=found, cwd=folder, capture_output=True, check=True)
    starts = result.stdout.decode().split("\x01\x00")[:-1]
    return [start.split("\x00")[:-1] for start in starts]


def _shell(text: str, folder: Path) -> list[list[str]]:
    return run(text, folder)


def _docker(text: str, folder: Path) -> list[list[str]]:
    """What stands behind the image, with what the image starts by itself or --entrypoint before it."""
    (words,) = run(text, folder)
    entrypoint = words[words.index("--entrypoint") + 1] if "--entrypoint" in words else None
    place = next(place for place, word in enumerate(words) if re.fullmatch(r"[\w./-]+/[\w.-]+:[\w.-]+", word))
    return [_started(words[place], entrypoint, words[place + 1 :])]


def _started(image: str, entrypoint: str | None, words: list[str]) -> list[str]:
    if entrypoint is not None:
        return [entrypoint, *words]
    return ["vllm", "serve", *words] if "vllm" in image else ["llama-server", *words]


def _compose(text: str, folder: Path) -> list[list[str]]:
    (service,) = yaml.safe_load(text)["services"].values()
    entrypoint = [word.replace("$$", "$") for word in service.get("entrypoint", [])]
    words = [word.replace("$$", "$") for word in service["command"]]
    return [[*entrypoint, *words] if entrypoint else _started(service["image"], None, words)]


def _kubernetes(text: str, folder: Path) -> list[list[str]]:
    return [_container(pod) for pod in pods(text)]


def pods(text: str) -> list[dict[str, Any]]:
    """The specs of all pods that the documents describe."""
    found = []
    for document in yaml.safe_load_all(text):
        spec = document.get("spec", {})
        group = spec.get("leaderWorkerTemplate", {})
        templates = [spec.get("template"), group.get("leaderTemplate"), group.get("workerTemplate")]
        cluster = spec.get("rayClusterConfig", {})
        templates += [
            one["template"] for one in [cluster.get("headGroupSpec"), *cluster.get("workerGroupSpecs", [])] if one
        ]
        found += [template.get("spec", template) for template in templates if template]
    return found


def _container(pod: dict[str, Any]) -> list[str]:
    """As the kubelet replaces variables: those of LeaderWorkerSet's controller, and $$( means $(."""
    (container,) = pod["containers"]
    known = {"LWS_GROUP_SIZE": "2", "LWS_WORKER_INDEX": "1", "LWS_LEADER_ADDRESS": "10.0.0.5"}
    known |= {one["name"]: one["value"] for one in container.get("env", []) if "value" in one}

    def replaced(word: str) -> str:
        found = re.sub(r"(?<!\$)\$\((\w+)\)", lambda match: known[match[1]], word)
        return found.replace("$$(", "$(")

    return [replaced(word) for word in [*container.get("command", []), *container.get("args", [])]]


def _kserve(text: str, folder: Path) -> list[list[str]]:
    """What the controller's script runs: the model's name and its fields, then the arguments by a shell's rules."""
    spec = yaml.safe_load(text)["spec"]
    environment = {one["name"]: one.get("value") for one in spec["template"]["containers"][0]["env"]}
    told = shlex.split((environment.get("VLLM_ADDITIONAL_ARGS") or "").replace("$$(", "$("))
    tensor = spec.get("parallelism", {}).get("tensor")
    fields = ["--served-model-name", spec["model"]["name"], "--port", "8000"]
    fields += ["--tensor-parallel-size", str(tensor)] if tensor else []
    return [["vllm", "serve", "/mnt/models", *fields, *told]]


def _skypilot(text: str, folder: Path) -> list[list[str]]:
    task = yaml.safe_load(text)
    found = []
    for rank in range(task["num_nodes"]):
        environment = {"SKYPILOT_NODE_RANK": str(rank), "SKYPILOT_NUM_NODES": str(task["num_nodes"])}
        found += run(task["run"], folder, {**environment, **task.get("envs", {})})
    return found


def _production_stack(text: str, folder: Path) -> list[list[str]]:
    """The chart's own order: fields as flags, then extraArgs (helm/templates/deployment-vllm-multi.yaml)."""
    (model,) = yaml.safe_load(text)["servingEngineSpec"]["modelSpec"]
    config = model["vllmConfig"]
    words = ["vllm", "serve", model["modelURL"], "--host", "0.0.0.0", "--port", "8000"]
    words.append("--enable-prefix-caching" if config["enablePrefixCaching"] else "--no-enable-prefix-caching")
    if "enableChunkedPrefill" in config:
        words.append("--enable-chunked-prefill" if config["enableChunkedPrefill"] else "--no-enable-chunked-prefill")
    for key, flag in (
        ("maxModelLen", "--max-model-len"),
        ("dtype", "--dtype"),
        ("tensorParallelSize", "--tensor-parallel-size"),
        ("maxNumSeqs", "--max-num-seqs"),
        ("gpuMemoryUtilization", "--gpu-memory-utilization"),
    ):
        if key in config:
            words += [flag, str(config[key])]
    return [[*words, *config.get("extraArgs", [])]]


def _systemd(text: str, folder: Path) -> list[list[str]]:
    (line,) = [line.removeprefix("ExecStart=") for line in text.splitlines() if line.startswith("ExecStart=")]
    words = re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', line)
    plain = [re.sub(r"\\(.)", r"\1", quoted or bare).replace("$$", "$").replace("%%", "%") for quoted, bare in words]
    return [plain[1:] if plain[0] == "/usr/bin/env" else plain]


def _env(text: str, folder: Path) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return run('eval "exec $SERVOLT_COMMAND"', folder, dict(line.split("=", 1) for line in lines))


def _vllm_config(text: str, folder: Path) -> list[list[str]]:
    """vLLM reads the file itself."""
    path = folder / f"{abs(hash(text))}.yaml"
    path.write_text(text, encoding="utf-8")
    return [["vllm", "serve", "--config", str(path)]]


def _llama_swap(text: str, folder: Path) -> list[list[str]]:
    (model,) = yaml.safe_load(text)["models"].values()
    return [shlex.split(model["cmd"].replace("${PORT}", "5800"))]


WORDS: dict[str, Callable[[str, Path], list[list[str]]]] = {
    "shell": _shell,
    "docker": _docker,
    "compose": _compose,
    "kubernetes": _kubernetes,
    "lws": _kubernetes,
    "kserve": _kserve,
    "skypilot": _skypilot,
    "production-stack": _production_stack,
    "systemd": _systemd,
    "env": _env,
    "vllm-config": _vllm_config,
    "llama-swap": _llama_swap,
}
