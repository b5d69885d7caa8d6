"""Ollama's `options`, `keep_alive` and `format`, in our terms."""

from collections.abc import Mapping
from typing import Any

from servolt.serve.refusal import RefusedError
from servolt.serve.request import INT32_MAX, Row, Sampling, check_sampling

__all__ = ["check_context", "response_format", "sampling_of", "uncut_rows"]

# Ollama's documented defaults: its clients expect them where they set nothing.
DEFAULTS = {
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.9,
    "min_p": 0.0,
    "typical_p": 1.0,
    "repeat_last_n": 64,
    "repeat_penalty": 1.0,
}

_FLOATS = {"temperature", "top_p", "min_p", "typical_p", "repeat_penalty", "presence_penalty", "frequency_penalty"}
_INTEGERS = {"top_k", "seed", "repeat_last_n", "num_predict", "num_ctx"}
# Known to Ollama, decided when an engine starts and not for one request.
_LOADING: dict[str, type] = {
    "num_keep": int,
    "num_batch": int,
    "num_gpu": int,
    "main_gpu": int,
    "use_mmap": bool,
    "num_thread": int,
    "draft_num_predict": int,
}
_TYPE_WORDS = {int: "integer", float: "float32", bool: "boolean"}


def sampling_of(options: Mapping[str, Any] | None) -> tuple[Sampling, list[Row]]:
    """With Ollama's defaults, and rows for what is not honoured. Raises RefusedError in Ollama's words."""
    values: dict[str, Any] = dict(DEFAULTS)
    rows: list[Row] = []
    for name, value in (options or {}).items():
        if value is None:
            continue
        if name in _FLOATS:
            values[name] = float(_number(name, value, float))
        elif name in _INTEGERS:
            values[name] = _number(name, value, int)
        elif name == "stop":
            values["stop"] = _stop(value)
        elif name in _LOADING:
            _check_loading(name, value)
            rows.append(Row(name, "dropped", value, None, "decided when the engine starts"))
        else:
            rows.append(Row(name[:100], "dropped", value, None, "no option that servolt knows"))
    most = _most_tokens(values.pop("num_predict", -1))
    values.pop("num_ctx", None)
    sampling = Sampling(**values, max_tokens=most)
    check_sampling(sampling)
    return sampling, rows


def _most_tokens(num_predict: int) -> int | None:
    """-1 is no limit, -2 up to the end of the context: the context ends either. 0 sets nothing, as in Ollama."""
    if not -2 <= num_predict <= INT32_MAX:
        raise RefusedError(
            "invalid",
            f"num_predict must be a number of tokens up to {INT32_MAX:,}, or -1 for no limit but the context, "
            f"not {str(num_predict)[:40]}.",
            "Correct it, or leave it out. -2 and 0 mean the same as -1.",
            param="options.num_predict",
        )
    return num_predict if num_predict > 0 else None


def check_context(options: Mapping[str, Any] | None, max_model_len: int | None) -> list[Row]:
    """A row if more context is asked for than the engine was started with. The prompt is never cut for it."""
    asked = (options or {}).get("num_ctx")
    if asked is None:
        return []
    if asked < 1:
        raise RefusedError(
            "invalid", f"num_ctx must be at least 1, not {asked}.", "Leave it out.", param="options.num_ctx"
        )
    if max_model_len is None or asked <= max_model_len:
        return []
    reason = "the engine runs with this context; serve the model with a larger --max-model-len"
    return [Row("num_ctx", "altered", asked, max_model_len, reason)]


def uncut_rows(truncate: bool | None, shift: bool | None) -> list[Row]:
    """Ollama would cut a prompt that is too long; here it is an error that says how long it is."""
    asked = {"truncate": truncate, "shift": shift}
    reason = "what does not fit the context is refused and never cut"
    return [Row(name, "altered", True, False, reason) for name, value in asked.items() if value]


def response_format(value: Any) -> Any:
    """`json` or a JSON schema, in OpenAI's shape."""
    if value is None or value == "":
        return None
    if value == "json":
        return {"type": "json_object"}
    if isinstance(value, dict):
        return {"type": "json_schema", "json_schema": {"name": "format", "schema": value}}
    raise RefusedError("invalid", 'format must be "json" or a JSON schema.', "Correct it.", param="format")


def _number(name: str, value: Any, kind: type) -> Any:
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not isinstance(value, int | float) or (kind is int and not whole):
        raise _wrong_type(name, _TYPE_WORDS[kind])
    return kind(value)


def _stop(value: Any) -> list[str] | None:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise _wrong_type("stop", "array of strings")
    return value or None


def _check_loading(name: str, value: Any) -> None:
    kind = _LOADING[name]
    if kind is bool and not isinstance(value, bool):
        raise _wrong_type(name, "boolean")
    if kind is int:
        _number(name, value, int)


def _wrong_type(name: str, word: str) -> RefusedError:
    cause = f'option "{name}" must be of type {word}.'
    return RefusedError("invalid", cause, "Correct it, or leave it out.", param=f"options.{name}")
