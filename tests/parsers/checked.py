"""What each export is checked with. `python -m tests.parsers.checked` writes the table of docs/exports.md anew."""

from pathlib import Path

from servolt.cli.rendered import TARGETS
from servolt.engines.flags import versions
from tools.engine_envs.places import FOLDER, LOCKS

__all__ = ["DOCUMENT", "ENGINES", "PARSED", "WITH", "environment_of", "table"]

DOCUMENT = Path(__file__).parents[2] / "docs" / "exports.md"
START, END = "<!-- checked: begin -->", "<!-- checked: end -->"

# Targets that hold an engine's command line, which the engine's own parser reads out of each of them.
PARSED = (
    *("shell", "docker", "compose", "kubernetes", "lws", "kserve", "skypilot", "production-stack", "systemd", "env"),
    *("vllm-config", "llama-swap"),
)

# What reads the file itself.
WITH = {
    "shell": "a shell (`sh`) runs it with a program that prints its words",
    "json": "`servolt.command.Command` reads it back",
    "yaml": "`servolt.command.Command` reads it back",
    "docker": "`docker create` of Docker's own command line, where it is installed",
    "compose": "the parser of the compose specification: PyPI `compose-spec` {compose-spec}",
    "kubernetes": "Kubernetes' own schemas, strict: PyPI `kubernetes-validate` {kubernetes-validate}",
    "lws": "pods and Service by Kubernetes' schemas; the rest by fields of `leaderworkerset_types.go`, written by hand",
    "kserve": "the pod by Kubernetes' schemas; the rest by fields of `v1alpha2/llm_inference_service_types.go`, "
    "written by hand",
    "ray-serve": "`ServeDeploySchema` and `LLMConfig` of PyPI `ray` {ray}, and vLLM's `AsyncEngineArgs`",
    "rayservice": "the file inside as for ray-serve; pods by Kubernetes' schemas; the rest by fields of KubeRay's "
    "sample, written by hand",
    "skypilot": "`Task.from_yaml_config` of PyPI `skypilot` {skypilot}; names of accelerators are not checked",
    "production-stack": "fields of the chart's `values.schema.json`, written by hand; not by Helm",
    "systemd": "`systemd-analyze verify`, where it is installed",
    "env": "a shell runs it as its head says",
    "vllm-config": "`vllm serve --config` itself",
    "modelfile": "PyPI `owist-modelfile-lint` {owist-modelfile-lint}, which is not Ollama",
    "llama-swap": "fields of its `config-schema.json`, written by hand; not by llama-swap",
}
ENGINES = {
    "vllm": "`vllm serve`: parser, its `validate`, `AsyncEngineArgs.from_cli_args`",
    "sglang": "`ServerArgs.add_cli_args`",
    "tensorrt_llm": "no parser to be had; the table of flags only",
    "transformers": "`transformers serve`",
    "llamacpp": "llama.cpp's `common_params_parse`, in xllamacpp's library",
}
INSTALLED = {"transformers": "5.19.0", "vllm": "0.32.0"}  # in the engines' environment itself


def environment_of(engine: str, version: str) -> str | None:
    """Where this version's own parser can be had; None where it can't."""
    if INSTALLED.get(engine) == version:
        return "engines"
    name = f"{engine}-{version}"
    return name if name in LOCKS else None


def table() -> str:
    pins = _pins()
    lines = ["| target | the file is read by |", "|---|---|"]
    lines += [f"| `{target}` | {WITH[target].format(**pins)} |" for target in TARGETS]
    lines += [
        "",
        "| engine | its command line is read by | versions | by the table of flags only |",
        "|---|---|---|---|",
    ]
    for engine, how in ENGINES.items():
        read = [version for version in versions(engine) if _has_parser(engine, version)]
        rest = [version for version in versions(engine) if version not in read]
        lines.append(f"| {engine} | {how} | {', '.join(read) or '-'} | {', '.join(rest) or '-'} |")
    return "\n".join(lines)


def _has_parser(engine: str, version: str) -> bool:
    return engine == "llamacpp" or environment_of(engine, version) is not None


def _pins() -> dict[str, str]:
    """Versions as the locks have them; kubernetes-validate's own number says whose schemas it holds."""
    pinned = [line.partition(" ")[0] for path in FOLDER.glob("*.txt") for line in path.read_text().splitlines()]
    return {name: version for name, equals, version in (line.partition("==") for line in pinned) if equals}


def document(text: str) -> str:
    head, _, rest = text.partition(START)
    return f"{head}{START}\n{table()}\n{END}{rest.partition(END)[2]}"


def main() -> None:
    DOCUMENT.write_text(document(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
