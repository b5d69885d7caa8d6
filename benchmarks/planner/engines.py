"""Which engine, at which version, a case means: logs and posts say "vLLM v0.9.2", "b1691", "spring 2024"."""

import re
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Engine", "engine_of"]


class Engine(NamedTuple):
    """`version` is None where nothing says which one it was."""

    name: str
    version: str | None


# The first word that the text holds. Programs that run llama.cpp inside are llama.cpp; LLMBoost and AMD's own
# submissions to MLPerf run vLLM.
WORDS = (
    ("ik_llama", "ik_llamacpp"),
    ("llama.cpp", "llamacpp"),
    ("llamacpp", "llamacpp"),
    ("ollama", "llamacpp"),
    ("lmstudio", "llamacpp"),
    ("lucebox", "llamacpp"),
    ("sglang", "sglang"),
    ("tensorrt", "tensorrt_llm"),
    ("trtllm", "tensorrt_llm"),
    ("vllm", "vllm"),
    ("llmboost", "vllm"),
    ("aiter", "vllm"),
    ("mlc", "mlc_llm"),
    ("mlx", "mlx"),
    ("exllama", "exllamav2"),
    ("transformers", "transformers"),
    ("openvino", "openvino"),
)
# Versions as each engine writes them. TensorRT's own (10.11) and Dynamo's (0.8.1) are not TensorRT-LLM's.
VERSIONS = {
    "vllm": r"(?<![\d.])(0\.\d+(?:\.\d+)*)",
    "sglang": r"(?<![\d.])(0\.\d+(?:\.\d+)*)",
    "tensorrt_llm": r"(?<![\d.])(1\.\d+\.\d+(?:rc\d+)?)",
    "llamacpp": r"(?:\bb|\bbuild[^(]*\(|^)(\d{4,5})(?![0-9a-f])",
    "ik_llamacpp": r"(?!)",
}
YEARS = range(2000, 2100)

# The release of a month, for what names no version but a date. From logs and posts that name both.
RELEASES: dict[str, tuple[tuple[str, str], ...]] = {
    "vllm": (
        ("2023-11", "0.2.2"),
        ("2024-07", "0.5.3"),
        ("2024-11", "0.6.4"),
        ("2025-01", "0.7.1"),
        ("2025-05", "0.9.0"),
        ("2025-07", "0.10.0"),
        ("2025-12", "0.12.0"),
        ("2026-02", "0.15.1"),
        ("2026-03", "0.17.0"),
        ("2026-04", "0.19.0"),
        ("2026-05", "0.20.2"),
        ("2026-06", "0.24.0"),
        ("2026-07", "0.25.1"),
        ("2026-08", "0.26.0"),
        ("2026-11", "0.33.0"),
    ),
    "sglang": (
        ("2025-07", "0.4.9"),
        ("2025-12", "0.5.6"),
        ("2026-02", "0.5.8"),
        ("2026-03", "0.5.9"),
        ("2026-04", "0.5.10"),
        ("2026-07", "0.5.15"),
        ("2026-08", "0.5.18"),
        ("2026-11", "0.5.23"),
    ),
    "tensorrt_llm": (
        ("2025-09", "1.0.0"),
        ("2025-12", "1.1.0"),
        ("2026-01", "1.2.0"),
        ("2026-03", "1.3.0"),
    ),
    "llamacpp": (
        ("2023-11", "b1500"),
        ("2023-12", "b1691"),
        ("2024-05", "b2833"),
        ("2025-04", "b5138"),
        ("2025-08", "b6325"),
        ("2025-12", "b7400"),
        ("2026-04", "b8778"),
        ("2026-05", "b9102"),
        ("2026-07", "b9870"),
        ("2026-08", "b10333"),
        ("2026-11", "b11549"),
    ),
}
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
SEASONS = {"spring": 5, "summer": 8, "autumn": 11, "winter": 2}


def engine_of(name: str, version: str = "", date: str = "") -> Engine:
    """`date` is the row's, "2026-07-17" or less, and counts where nothing else names a version.

    >>> engine_of("vLLM v0.9.2"), engine_of("llama.cpp", "llama-bench, spring 2024")
    (Engine(name='vllm', version='0.9.2'), Engine(name='llamacpp', version='b2833'))
    >>> engine_of("sglang", "main of July 2026 (0.5.15 or so)").version, engine_of("TensorRT 10.11, CUDA 12.9").version
    ('0.5.15', None)
    """
    lower = name.lower()
    found = next((engine for word, engine in WORDS if word in lower), None)
    if found is None:
        return Engine(re.sub(r"[^a-z0-9]+", "_", lower).strip("_") or "vllm", version or None)
    return Engine(found, _version(found, version or name) or _of_date(found, version) or _of_date(found, date))


def _version(engine: str, text: str) -> str | None:
    match = re.search(VERSIONS.get(engine, r"(?<![\d.])(\d+(?:\.\d+)+)"), text)
    if match is None:
        return None
    if engine == "llamacpp":
        return None if int(match[1]) in YEARS and f"b{match[1]}" not in text else f"b{match[1]}"
    return match[1]


def _of_date(engine: str, text: str) -> str | None:
    """The newest release up to the month that the text names; a year alone is too little."""
    month = _month(text.lower())
    releases: Sequence[tuple[str, str]] = RELEASES.get(engine, ())
    older = [release for since, release in releases if month and since <= month]
    return older[-1] if older else None


def _month(text: str) -> str | None:
    """
    >>> _month("2024-11 build"), _month("feb 2026 rocm"), _month("autumn 2023"), _month("2026")
    ('2024-11', '2026-02', '2023-11', None)
    """
    if match := re.search(r"\b(20\d\d)-(\d\d)", text):
        return match[0]
    year = re.search(r"\b20\d\d\b", text)
    words = re.findall(r"[a-z]+", text)
    months = [MONTHS.index(word[:3]) + 1 for word in words if word[:3] in MONTHS and word not in ("mango",)]
    months += [SEASONS[word] for word in words if word in SEASONS]
    return f"{year[0]}-{months[0]:02}" if year and months else None
