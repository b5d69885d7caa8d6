"""One way to run one model."""

from typing import Literal

from pydantic import Field, field_validator

from servolt.document import Document, digest

__all__ = ["Deployment"]


class Deployment(Document):
    """All that changes a deployment's speed, memory, energy or answers. None is the engine's own default.

    Field names are vLLM's wherever vLLM has one.
    """

    schema_: Literal["servolt.deployment/1"] = Field("servolt.deployment/1", alias="schema")
    model: str = Field(min_length=1, description="a built-in name such as guide, or the path of a GGUF file")
    quantization: str | None = Field(None, description="which weights of the model: f16, q8_0 ...")
    engine: str = "llamacpp"
    engine_executable: str | None = Field(None, description="an executable to use in place of the engine's own")
    max_model_len: int | None = Field(None, ge=1, le=2**31 - 1, description="context of one sequence, tokens")
    max_num_seqs: int | None = Field(None, ge=1, le=4096, description="sequences that run at the same time")
    max_num_batched_tokens: int | None = Field(None, ge=1, le=2**20, description="tokens of one step")
    kv_cache_dtype: str | None = None
    enable_prefix_caching: bool | None = None
    threads: int | None = Field(None, ge=1, le=4096)

    @field_validator("model")
    @classmethod
    def _no_control_characters(cls, model: str) -> str:
        if not model.isprintable():
            raise ValueError("a model's name holds printable characters only")
        return model

    @property
    def digest(self) -> str:
        """Names this deployment everywhere: 64 hex digits over the fields that are set."""
        return digest(self.model_dump(mode="json", exclude_none=True))

    @property
    def label(self) -> str:
        """What people call it: guide:q8_0.

        >>> Deployment(model="guide", quantization="q8_0").label
        'guide:q8_0'
        """
        return f"{self.model}:{self.quantization}" if self.quantization else self.model

    @classmethod
    def of(cls, name: str, **settings: object) -> "Deployment":
        """From NAME or NAME:QUANTIZATION; a path may hold colons, so only a short last part counts as one.

        >>> Deployment.of("guide:q8_0").quantization
        'q8_0'
        """
        head, colon, tail = name.rpartition(":")
        is_tag = bool(colon and head) and "/" not in tail and "\\" not in tail and not tail.endswith(".gguf")
        if is_tag and tail != "latest":
            settings.setdefault("quantization", tail.lower())
        return cls.from_plain({"model": head if is_tag else name, **settings})
