"""A deployment's settings as an engine's options: each one that is set is either written or a problem."""

import difflib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from servolt.deployment import Deployment
from servolt.document import Problem
from servolt.engines.flags import Flag, Known
from servolt.errors import InvalidInputError

__all__ = ["MACHINES", "Options", "Special", "fill"]

# Not settings of the engine, or written by the adapter itself.
APART = frozenset({"schema_", "model", "engine", "engine_executable", "engine_version", "hardware", "engine_args"})

# Which engines have a setting that others lack: the remedy names them.
WHO_HAS = {
    "block_size": "vllm, sglang, tensorrt_llm and transformers",
    "cpu_offload_gb": "vllm and sglang",
    "data_parallel_size": "vllm and sglang",
    "decode_context_parallel_size": "vllm and sglang",
    "enable_chunked_prefill": "vllm, sglang and tensorrt_llm",
    "enable_dp_attention": "sglang and tensorrt_llm",
    "enable_expert_parallel": "vllm, sglang and tensorrt_llm",
    "enable_lora": "vllm, sglang and tensorrt_llm",
    "enable_prefix_caching": "vllm, sglang, tensorrt_llm and llamacpp",
    "enforce_eager": "vllm, sglang, tensorrt_llm and transformers",
    "expert_parallel_size": "sglang and tensorrt_llm",
    "flash_attn": "llamacpp",
    "free_gpu_memory_fraction": "tensorrt_llm",
    "gpu_memory_utilization": "vllm",
    "kv_cache_dtype": "vllm, sglang, tensorrt_llm and llamacpp",
    "kv_cache_memory_bytes": "vllm",
    "kv_unified": "llamacpp",
    "limit_mm_per_prompt": "vllm and sglang",
    "max_cudagraph_capture_size": "vllm, sglang and tensorrt_llm",
    "max_lora_rank": "vllm, sglang and tensorrt_llm",
    "max_loras": "vllm, sglang and tensorrt_llm",
    "max_model_len": "vllm, sglang, tensorrt_llm and llamacpp",
    "max_num_seqs": "vllm, sglang, tensorrt_llm and llamacpp",
    "mem_fraction_static": "sglang",
    "n_cpu_moe": "llamacpp",
    "n_gpu_layers": "llamacpp",
    "override_tensor": "llamacpp",
    "pipeline_parallel_size": "vllm, sglang and tensorrt_llm",
    "served_model_name": "vllm and sglang",
    "speculative_config": "vllm, sglang and tensorrt_llm",
    "swa_full_tokens_ratio": "sglang",
    "tensor_parallel_size": "vllm, sglang and tensorrt_llm",
    "tensor_split": "llamacpp",
    "threads": "llamacpp and vllm",
    "ubatch_size": "llamacpp",
}

# Off in an engine that does not have them.
OFF_ANYWAY = frozenset({"cpu_offload_gb", "enable_dp_attention", "enable_expert_parallel", "enable_lora", "n_cpu_moe"})

# Options that the launcher or the adapter sets, and those that hold a secret, which must not stand in any command.
LAUNCHERS = frozenset(
    {
        *("host", "port", "uds", "model", "model-path", "config", "extra-llm-api-options"),
        *("node-rank", "master-addr", "headless", "dist-init-addr"),
    }
)
MACHINES = "nnodes"
SECRET = re.compile(r"(^|-)(api-key|key|token|password|secret)$")


class Options:
    """Collects options in order, and what can't be written as problems. Nothing that a version lacks is ever kept."""

    def __init__(self, title: str, known: Known) -> None:
        self.title, self.known = title, known
        self.problems: list[Problem] = []
        self.written: dict[str, Any] = {}
        self.env: dict[str, str] = {}
        self.file: dict[str, Any] = {}  # keys of an options file, for an engine that has one

    def put(self, field: str, value: Any, *spellings: str) -> None:
        """The first spelling that the version knows. False on an option that is off by itself is written as nothing."""
        spelling = next((one for one in spellings if self.known.flag(one) is not None), None)
        flag = self.known.flag(spelling) if spelling is not None else None
        if spelling is None or flag is None:
            self._unknown(field, spellings[0])
        elif (why := _misfit(flag, value)) is not None:
            self.refuse(field, f"{self.title} {self.known.version} takes {why} for {spelling}, not {_said(value)}.")
        elif flag in map(self.known.flag, self.written):
            self.refuse(field, f"{spelling} is set twice, by {field} and by another setting.", "Set one of them.")
        else:
            self.written[spelling] = value

    def put_in_file(self, field: str, value: Any, key: str, inner: str | None = None) -> None:
        """Under a key of the options file, or under a name inside what that key holds."""
        if self.known.flag(key) is None:
            self._unknown(field, key)
        elif inner is not None:
            self.file.setdefault(key, {})[inner] = value
        elif key in self.file:
            self.refuse(field, f"{key} is set twice, by {field} and by another setting.", "Set one of them.")
        else:
            self.file[key] = value

    def refuse(self, field: str, message: str, remedy: str | None = None, *, code: str = "setting_value") -> None:
        """Left out of the command, and said."""
        told = remedy or f"Change {field}, or leave it out for the engine's default."
        self.problems.append(Problem(code=code, severity="error", message=message, remedy=told))

    def lacks(self, field: str) -> None:
        who = WHO_HAS.get(field)
        remedy = f"Leave it out, or take an engine that has it: {who}." if who else "Leave it out."
        self.refuse(field, f"{self.title} has no {field}.", remedy, code="unsupported_setting")

    def note(self, code: str, message: str, remedy: str) -> None:
        self.problems.append(Problem(code=code, severity="note", message=message, remedy=remedy))

    def warn(self, code: str, message: str, remedy: str) -> None:
        self.problems.append(Problem(code=code, severity="warning", message=message, remedy=remedy))

    def argv(self) -> list[str]:
        return [word for name, value in self.written.items() for word in _words(self.known.flag(name), name, value)]

    def named(self) -> dict[str, Any]:
        """What argv says, for exports that hold no command line."""
        return {name.lstrip("-"): value for name, value in self.written.items()}

    def checked(self) -> None:
        """Raises InvalidInputError for the first setting that can't be written."""
        for problem in self.problems:
            if problem.severity == "error":
                raise InvalidInputError(problem.message, problem.remedy)

    def _unknown(self, field: str, spelling: str) -> None:
        version = self.known.version
        if self.known.exact:
            message = f"{self.title} {version} knows no {spelling}, which {field} needs."
        else:
            read = " and ".join(self.known.tables)
            message = (
                f"Whether {self.title} {version} knows {spelling} is not known here: {read} differ in it, or lack it."
            )
        self.refuse(field, message, f"Leave {field} out, or plan for another version.", code="unknown_flag")


Special = Callable[[Options, Any, Deployment], None]


def fill(
    options: Options, deployment: Deployment, simple: Mapping[str, tuple[str, ...]], special: Mapping[str, Special]
) -> None:
    """Every field that is set, then engine_args."""
    for field, value in deployment:
        if value is None or field in APART:
            continue
        if field in special:
            special[field](options, value, deployment)
        elif field in simple:
            options.put(field, value, *simple[field])
        elif not _is_off(field, value):
            options.lacks(field)
    for name, given in (deployment.engine_args or {}).items():
        if given is not None and name.lstrip("-") != MACHINES:  # what each machine is told, its launcher says
            _hand_through(options, name, given)
    _version_read(options, deployment)


def _is_off(field: str, value: Any) -> bool:
    """Asked for what an engine without the setting does anyway."""
    return (field in OFF_ANYWAY and not value) or (field.endswith("_parallel_size") and value == 1)


def _hand_through(options: Options, name: str, value: str | int | float | bool) -> None:
    plain = name.lstrip("-")
    dashed, underscored = f"--{plain.replace('_', '-')}", f"--{plain.replace('-', '_')}"
    key = dashed.removeprefix("--")
    if key in LAUNCHERS:
        options.refuse(
            "engine_args",
            f"{dashed} is set by whoever starts the engine.",
            "Leave it out of engine_args.",
            code="reserved_flag",
        )
    elif SECRET.search(key):
        options.refuse(
            "engine_args",
            f"{dashed} holds a secret, which must not stand in a command.",
            "Give it by the environment.",
            code="secret_flag",
        )
    elif options.known.flag(underscored.removeprefix("--")) is not None:
        options.put_in_file(f"engine_args.{plain}", value, underscored.removeprefix("--"))
    elif options.known.flag(dashed) is None and options.known.flag(underscored) is None:
        options.refuse(
            "engine_args",
            f"{options.title} {options.known.version} knows no option {dashed}.",
            _nearest(options.known, dashed),
            code="unknown_flag",
        )
    else:
        options.put(f"engine_args.{plain}", value, dashed, underscored)


def _nearest(known: Known, name: str) -> str:
    near = difflib.get_close_matches(name, known.names(), n=3, cutoff=0.6)
    return f"Near to it are {', '.join(near)}." if near else "Leave it out of engine_args."


def _version_read(options: Options, deployment: Deployment) -> None:
    if deployment.engine_version is None or options.known.exact:
        return
    tables = options.known.tables
    options.warn(
        "engine_version_unread",
        f"The flags of {options.title} {options.known.version} were not read: those of {' and '.join(tables)} count.",
        "Compare the command with the engine's --help before you rely on it.",
    )


def _misfit(flag: Flag, value: Any) -> str | None:
    """What the option takes, in words, where it does not take this."""
    if flag.kind in ("switch", "toggle", "bool"):
        return None if isinstance(value, bool) else "yes or no"
    if isinstance(value, bool):
        return "a value"
    if flag.kind == "int" and not isinstance(value, int) and not _counts(value):
        return "a whole number"
    if flag.kind == "float" and not isinstance(value, int | float):
        return "a number"
    if flag.kind == "json" and isinstance(value, str) and not _is_json(value):
        return "JSON"
    if flag.choices and value not in flag.choices and str(value) not in map(str, flag.choices):
        return f"one of {', '.join(map(str, flag.choices))}"
    return None


def _counts(value: Any) -> bool:
    """vLLM reads 8k and auto too."""
    return isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?[kKmMgGtT]?|auto", value) is not None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _said(value: Any) -> str:
    return json.dumps(value) if isinstance(value, Mapping | list) else str(value)


def _words(flag: Flag | None, name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        if flag is not None and flag.kind == "switch":
            return [name] if value else []
        return [name] if value else list(flag.off[:1] if flag is not None else ())
    text = _said(value)
    # A value that starts with a dash would be read as the next option.
    return [f"{name}={text}"] if text.startswith("-") else [name, text]
