"""Prompts of /v1/completions."""

import pytest

from servolt.serve.openai.prompts import check_vocabulary, prompts_of
from servolt.serve.refusal import RefusedError


def test_a_token_that_the_model_does_not_have_is_named() -> None:
    with pytest.raises(RefusedError, match="holds the token 2,048, and the model's vocabulary has 2,048") as refused:
        check_vocabulary(prompts_of([[1, 2], [3, 2048]]), 2048)
    assert refused.value.param == "prompt"


@pytest.mark.parametrize(("prompt", "size"), [([0, 2047], 2048), ("text", 2048), (["a", [1]], 2), ([99_999], 0)])
def test_tokens_of_the_vocabulary_and_text_pass(prompt: object, size: int) -> None:
    check_vocabulary(prompts_of(prompt), size)
