"""The fields of a config.json under all their spellings, with the right type or a complaint that names the field."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from servolt.errors import ModelFileError
from servolt.model.ignored import is_ignored

__all__ = ["MOST_LAYERS", "TEXT_CONFIGS", "Fields", "text_fields"]

MOST_LAYERS = 4096  # the deepest published models have some 130
LARGEST = 2**31  # of one dimension; the largest published ones, contexts, reach 10 million

# One quantity, the names it goes by: today's first, then those of GPT-2, Falcon, MPT, ChatGLM, Mistral and others.
SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "hidden_size": ("n_embd", "d_model", "model_dim", "dim"),
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers", "num_transformer_layers"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads", "num_query_heads", "attention_heads"),
    "num_key_value_heads": ("n_head_kv", "num_kv_heads", "n_kv_heads", "num_query_groups", "kv_n_heads"),
    "head_dim": ("kv_channels", "head_size", "attention_head_dim", "attn_head_dim"),
    "v_head_dim": ("value_head_dim",),
    "intermediate_size": (
        "ffn_hidden_size",
        "ffn_dim",
        "n_inner",
        "d_ff",
        "mlp_hidden_size",
        "hidden_dim",
        "block_ff_dim",
    ),
    "vocab_size": ("padded_vocab_size", "n_vocab", "embedding_size"),
    "max_position_embeddings": (
        "n_positions",
        "max_seq_len",
        "max_sequence_length",
        "seq_length",
        "n_ctx",
        "model_max_length",
        "max_seq_length",
        "max_context_length",
    ),
    "tie_word_embeddings": ("tie_embeddings", "share_input_output_layers"),
    "sliding_window": ("sliding_window_size", "attention_window_size", "local_attention_window"),
    "num_experts": (
        "n_expert",
        "num_local_experts",
        "n_routed_experts",
        "moe_num_experts",
        "num_moe_experts",
        "n_experts",
    ),
    "num_experts_per_tok": (
        "num_experts_per_token",
        "n_expert_per_token",
        "experts_per_token",
        "top_k_experts",
        "moe_top_k",
        "moe_topk",
        "moe_k",
        "num_selected_experts",
        "router_topk",
    ),
    "moe_intermediate_size": (
        "expert_intermediate_size",
        "expert_ffn_hidden_size",
        "moe_ffn_hidden_size",
        "expert_dim",
    ),
    "n_shared_experts": ("num_shared_experts", "num_shared_expert", "moe_num_shared_experts", "moe_num_shared_expert"),
    "first_k_dense_replace": ("num_dense_layers", "moe_layer_start_index"),
    "shared_expert_intermediate_size": (
        "moe_shared_expert_intermediate_size",
        "shared_intermediate_size",
        "moe_shared_intermediate_size",
        "share_expert_dim",
    ),
    "mamba_num_heads": ("mamba_n_heads", "n_mamba_heads"),
    "mamba_head_dim": ("mamba_d_head", "mamba_headdim"),
    "linear_conv_kernel_dim": ("short_conv_kernel_size",),
    "swa_num_attention_heads": ("num_sliding_attention_heads",),
    "moe_latent_size": ("routed_expert_hidden_size",),
    "num_nextn_predict_layers": ("mtp_num_hidden_layers", "num_mtp_modules", "mtp_num_layers"),
    "dtype": ("torch_dtype",),
}

# Where models of text with images or sound keep the part that speaks.
TEXT_CONFIGS = ("text_config", "llm_config", "language_config", "language_model_config", "thinker_config")
NESTED = ("attn_config", "ffn_config", "sparse_attention_config")
# Kimi Linear's group of fields, under the names that its successors give them outside of any group.
LINEAR = {
    "num_heads": "linear_num_heads",
    "head_dim": "linear_head_dim",
    "short_conv_kernel_size": "linear_conv_kernel_dim",
}


class Fields:
    """Marks what is read, so that what was not understood can be named."""

    def __init__(self, values: Mapping[str, Any], name: str, *, is_nested: bool = False) -> None:
        self.values, self.name, self.is_nested = values, name, is_nested
        self.stated = frozenset(values)  # by the config itself; what is usual may be added
        self.read: set[str] = set()
        self.doubted: set[str] = set()  # read, and not understood: what is planned from it is wider

    @property
    def values(self) -> Mapping[str, Any]:
        return self._values

    @values.setter
    def values(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._found: dict[tuple[str, ...], Any] = {}  # every layer asks for the same fields again
        self._sizes: dict[tuple[str, int | None], int] = {}

    def get(self, *keys: str) -> Any:
        """The first that is there and not null; every spelling of each."""
        if keys in self._found:
            return self._found[keys]
        found = None
        for key in keys:
            for spelling in (key, *SPELLINGS.get(key, ())):
                self.read.add(spelling)
                if found is None:
                    found = self._values.get(spelling)
        self._found[keys] = found
        return found

    def has(self, *keys: str) -> bool:
        return self.get(*keys) is not None

    def size(self, key: str, otherwise: int | None = None, *, layer: int = 0) -> int:
        """A whole number from 0 on; where a list gives one for each layer, that of the layer. Raises ModelFileError."""
        known = self._sizes.get((key, otherwise))
        if known is not None:
            return known
        value = self.get(key)
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        if is_list:
            value = value[layer] if layer < len(value) else None
        value = otherwise if value is None else value
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if type(value) is not int or not 0 <= value < LARGEST:
            raise self.fault(key, "a whole number from 0 on")
        if not is_list:
            self._sizes[key, otherwise] = value
        return value

    def least(self, key: str, otherwise: int | None = None) -> int:
        """A size that can't be 0."""
        size = self.size(key, otherwise)
        if size < 1:
            raise self.fault(key, "above 0")
        return size

    def number(self, key: str, otherwise: float) -> float:
        value = self.get(key)
        value = otherwise if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.fault(key, "a number")
        return float(value)

    def flag(self, *keys: str, otherwise: bool = False) -> bool:
        value = self.get(*keys)
        return otherwise if value is None else bool(value)

    def text(self, *keys: str) -> str:
        """Empty where it is not there."""
        value = self.get(*keys)
        return value if isinstance(value, str) else ""

    def sizes(self, *keys: str) -> tuple[int, ...] | None:
        """A list of whole numbers or truths; None where there is no list."""
        value = self.get(*keys)
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            return None
        if not all(isinstance(item, int) for item in value):
            raise self.fault(keys[0], "a list of whole numbers")
        return tuple(int(item) for item in value)

    def names(self, *keys: str) -> tuple[str, ...] | None:
        """A list of words; None where there is no list."""
        value = self.get(*keys)
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            return None
        return tuple(str(item) for item in value)

    def inside(self, *keys: str) -> "Fields | None":
        """A nested config; None where it is not there."""
        value = self.get(*keys)
        return Fields(value, f"{self.name}: {keys[0]}") if isinstance(value, Mapping) else None

    def layer(self, layer: int) -> "Fields":
        """With what the config sets for this layer alone: Gemma 4's `per_layer_config`."""
        every = self.get("per_layer_config")
        own = every.get(f"{layer:02d}", every.get(str(layer))) if isinstance(every, Mapping) else None
        if not isinstance(own, Mapping):
            return self
        fields = Fields({**self.values, **own}, self.name)
        fields.read, fields.doubted = self.read, self.doubted
        return fields

    def layers(self, otherwise: int | None = None) -> int:
        count = self.size("num_hidden_layers", otherwise)
        if not 1 <= count <= MOST_LAYERS:
            raise self.fault("num_hidden_layers", f"between 1 and {MOST_LAYERS:,}")
        return count

    def fault(self, key: str, what: str) -> ModelFileError:
        value = self.get(key)
        found = "is missing" if value is None else f"is {value!r:.60}"
        return ModelFileError(
            f"The config of {self.name} can't be used: {key} should be {what} and {found}.",
            "Correct the config, or give the figures by hand.",
        )

    def left(self) -> tuple[str, ...]:
        """What was not read and may matter."""
        unread = (
            key
            for key, value in self.values.items()
            if key in self.stated - self.read and value not in (None, False, 0, "", [], {}) and not is_ignored(key)
        )
        return tuple(sorted({*unread, *self.doubted}))


def text_fields(config: Mapping[str, Any], name: str) -> Fields:
    """The part that speaks, completed by what stands outside of it; groups like `attn_config` are opened."""
    values = dict(config)
    for _ in range(2):  # thinker_config holds a text_config
        nested = next((values[key] for key in TEXT_CONFIGS if isinstance(values.get(key), Mapping)), None)
        if nested is None:
            break
        outer = {key: value for key, value in values.items() if key not in TEXT_CONFIGS}
        values = {**outer, **{key: value for key, value in nested.items() if value is not None}}
    if isinstance(config.get("tie_word_embeddings"), bool):  # of the whole, whose head it is
        values["tie_word_embeddings"] = config["tie_word_embeddings"]
    for key in NESTED:
        if isinstance(values.get(key), Mapping):
            values = {**values[key], **values}
    linear: Any = values.get("linear_attn_config")
    if isinstance(linear, Mapping):
        values = {**{LINEAR.get(str(key), str(key)): value for key, value in linear.items()}, **values}
    return Fields(values, name, is_nested=any(key in config for key in TEXT_CONFIGS))
