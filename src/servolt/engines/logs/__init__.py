"""Start-up logs of engines: text in, values out. Nothing is run and nothing is fetched."""

from types import ModuleType

from servolt.engines.logs import llamacpp, sglang, vllm
from servolt.engines.logs.startup import EngineName, RankLog, StartupLog
from servolt.engines.logs.text import lines_of
from servolt.errors import InvalidInputError

__all__ = ["RankLog", "StartupLog", "parse_log"]

PARSERS: dict[EngineName, ModuleType] = {"vllm": vllm, "sglang": sglang, "llamacpp": llamacpp}


def parse_log(text: str, engine: EngineName | None = None) -> StartupLog:
    """What the log says. The engine is told by its wordings, unless it is named.

    Raises InvalidInputError where no engine's lines are in it, or none that says anything about memory.
    """
    info = sglang.server_info(text) if engine in (None, "sglang") else None
    if info is not None:
        return _with_memory(sglang.parse_server_info(info))
    found = engine or _engine_of(text)
    if found is None:
        raise InvalidInputError(
            "no line of it is of an engine's start that is known here: vLLM, SGLang, llama.cpp.",
            "Give the log from the engine's first line on; for vLLM, VLLM_LOGGING_LEVEL=DEBUG tells most.",
        )
    parser = PARSERS[found]
    log: StartupLog = parser.parse(list(lines_of(text, parser.WORDS)))
    return _with_memory(log)


def _engine_of(text: str) -> EngineName | None:
    """Whose wordings are there most often; forks of one engine quote another's."""
    signs = {name: sum(text.count(sign) for sign in module.SIGNS) for name, module in PARSERS.items()}
    most = max(signs, key=lambda name: signs[name])
    return most if signs[most] else None


def _with_memory(log: StartupLog) -> StartupLog:
    if not log.ranks and log.kv_cache_tokens is None and log.num_gpu_blocks is None:
        raise InvalidInputError(
            f"it is a log of {log.engine}, but no line of it says how much memory anything took.",
            "Give the log up to the line that says that the server is ready.",
        )
    return log
