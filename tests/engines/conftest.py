"""A model as its config describes it, for engines that read folders of safetensors."""

import pytest

from servolt.model import Model, model_from_config

CONFIG = {
    "model_type": "qwen3",
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": False,
    "max_position_embeddings": 40960,
    "torch_dtype": "bfloat16",
}


@pytest.fixture(scope="session")
def qwen() -> Model:
    return model_from_config(CONFIG, name="Qwen/Qwen3-8B")
