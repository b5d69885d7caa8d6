"""A deployment and its workload as one line of text that can be sent to somebody, and back.

    servolt://plan?v=1&engine=vllm&hardware.accelerator=H100&input_len=1024&model=Qwen/Qwen3-8B&output_len=256

Names are those of the fields, in alphabetical order; fields of parts are dotted; lists are comma-separated, and what
else has no plain text is JSON. What is not set is not there, so one deployment has one link.
"""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, quote

from servolt.deployment import Deployment
from servolt.document import canonical_json
from servolt.errors import InvalidInputError
from servolt.workload import Workload

__all__ = ["PREFIX", "link_of", "read_link"]

PREFIX = "servolt://plan?"
VERSION = "1"
MAX_LENGTH = 8192  # what chat programs and proxies take of a link; the longest real ones have some 600 characters
MAX_FIELDS = 128  # more than a deployment and a workload have
EXAMPLES = {"hardware": "accelerator", "speculative_config": "method"}  # parts, and a field of each
LISTS = ("tensor_split", "concurrency", "request_rate")
AS_JSON = ("limit_mm_per_prompt", "engine_args", "input_lengths", "output_lengths", "slo", "trace")
# Always said, so that a later version's other default changes no link.
ALWAYS = ("engine", "input_len", "output_len", "concurrency", "request_rate")
FORM = f"A link begins with {PREFIX} and names fields; `servolt plan MODEL --link` prints one."


def link_of(deployment: Deployment, workload: Workload) -> str:
    """Raises InvalidInputError for one that is too long.

    >>> link_of(Deployment.of("guide:q8_0"), Workload(concurrency=(1, 4)))
    'servolt://plan?v=1&concurrency=1,4&engine=llamacpp&input_len=64&model=guide&output_len=64&quantization=q8_0'
    """
    fields = {**_flat(deployment), **_flat(workload)}
    try:
        said = [f"{name}={quote(_text(name, value), safe='/,:[]{}')}" for name, value in sorted(fields.items())]
    except UnicodeEncodeError as error:
        raise InvalidInputError("a field holds what is no text.", "Correct the deployment.") from error
    link = PREFIX + "&".join([f"v={VERSION}", *said])
    if len(link) > MAX_LENGTH:
        raise InvalidInputError(
            f"the link has {len(link):,} characters, and {MAX_LENGTH:,} are the most.",
            "Share the deployment as a file: -o plan.json.",
        )
    return link


def read_link(text: str) -> tuple[Deployment, Workload]:
    """Raises InvalidInputError, which names the field that does not fit."""
    fields = _fields(text)
    version = fields.pop("v", VERSION)
    if version != VERSION:
        raise InvalidInputError(f"the link is of the form {version[:20]!r}; this servolt reads 1.", "Update servolt.")
    if both := sorted(EXAMPLES.keys() & fields.keys()):
        raise InvalidInputError(
            f"{both[0]} in the link is no value.", f"Name its parts, such as {both[0]}.{EXAMPLES[both[0]]}."
        )
    ours = {"deployment": dict[str, Any](), "workload": dict[str, Any]()}
    for name, value in fields.items():
        head, dot, rest = name.partition(".")
        kind = "workload" if head in Workload.model_fields else "deployment"
        if dot and head in EXAMPLES:
            ours[kind].setdefault(head, {})[rest] = value
        else:
            ours[kind][name] = _value(name, value)
    return Deployment.from_plain(ours["deployment"]), Workload.from_plain(ours["workload"])


def _flat(document: Deployment | Workload) -> dict[str, Any]:
    """What is set and no default. A count of devices that was said stays, since unsaid it follows the parallelism."""
    plain = document.model_dump(mode="json", exclude_defaults=True)
    plain |= {name: getattr(document, name) for name in ALWAYS if getattr(document, name, None)}
    plain.pop("schema", None)
    found: dict[str, Any] = {}
    for name, value in plain.items():
        if name in EXAMPLES:
            part = getattr(document, name).model_dump(mode="json", exclude_unset=True, exclude_none=True)
            found |= {f"{name}.{inner}": one for inner, one in part.items()}
        else:
            found[name] = value
    return found


def _text(name: str, value: Any) -> str:
    if name in LISTS:
        return ",".join(_text("", one) for one in value)
    return value if isinstance(value, str) else canonical_json(value).decode()


def _fields(text: str) -> dict[str, str]:
    if len(text) > MAX_LENGTH:
        raise InvalidInputError(f"the link has {len(text):,} characters, and {MAX_LENGTH:,} are the most.", FORM)
    if not text.startswith(PREFIX) or not text.isprintable():
        raise InvalidInputError("this is no link to a plan.", FORM)
    try:
        pairs = parse_qsl(
            text.removeprefix(PREFIX).replace("+", "%2B"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
    except ValueError as error:
        raise InvalidInputError(f"the link can't be read: {error}.", FORM) from error
    names = [name for name, _ in pairs]
    twice = sorted({name[:60] for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInputError(f"the link names {', '.join(twice)} more than once.", "Leave one of them.")
    return dict(pairs)


def _value(name: str, text: str) -> Any:
    if name in LISTS:
        return text.split(",") if text else []
    if name not in AS_JSON:
        return text
    try:
        plain = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{name} in the link is no JSON.", FORM) from error
    if not isinstance(plain, Mapping):
        raise InvalidInputError(f"{name} in the link is no JSON object.", FORM)
    return plain


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number")
