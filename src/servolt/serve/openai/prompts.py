"""The four shapes of /v1/completions' prompt."""

from collections.abc import Sequence
from typing import Any

from servolt.serve.refusal import RefusedError

__all__ = ["check_vocabulary", "prompts_of"]

MAX_TOKEN = 2**31 - 1


def prompts_of(prompt: Any) -> list[str | list[int]]:
    """From text, token ids, or a list of either. Raises RefusedError; so does an empty prompt.

    >>> prompts_of([[1, 2], [3]])
    [[1, 2], [3]]
    >>> prompts_of([1, 2])
    [[1, 2]]
    """
    if isinstance(prompt, str):
        found: list[str | list[int]] = [prompt]
    elif isinstance(prompt, list) and prompt and _are_tokens(prompt):
        found = [prompt]
    elif isinstance(prompt, list) and all(isinstance(one, str) or _are_tokens(one) for one in prompt):
        found = list(prompt)
    else:
        raise RefusedError(
            "invalid", "prompt must be text, token ids, or a list of either.", "Correct it.", param="prompt"
        )
    if not found or not all(found):
        raise RefusedError("invalid", "prompt must hold at least one token.", "Send some text.", param="prompt")
    return found


def check_vocabulary(prompts: Sequence[str | Sequence[int]], vocab_size: int) -> None:
    """Raises RefusedError for a token that the model does not have. A size of 0 is not known."""
    highest = max((max(prompt) for prompt in prompts if not isinstance(prompt, str)), default=0)
    if vocab_size and highest >= vocab_size:
        raise RefusedError(
            "invalid",
            f"prompt holds the token {highest:,}, and the model's vocabulary has {vocab_size:,}.",
            "Take the tokens from this model's own tokenizer.",
            param="prompt",
        )


def _are_tokens(value: Any) -> bool:
    return isinstance(value, list) and all(type(token) is int and 0 <= token <= MAX_TOKEN for token in value)
