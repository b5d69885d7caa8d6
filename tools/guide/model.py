"""The Llama architecture in torch, as small as it gets: what is trained here is what llama.cpp runs."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

__all__ = ["SHAPE", "Llama", "Shape"]


@dataclass(frozen=True)
class Shape:
    """Sizes of the network. Every row is a multiple of 64, so that q8_0 (blocks of 32) fits without a rest."""

    vocabulary: int = 2048
    hidden: int = 256
    feed_forward: int = 640
    layers: int = 4
    heads: int = 8
    kv_heads: int = 4
    head_dim: int = 32
    context: int = 2048
    rope_theta: float = 10000.0
    rms_epsilon: float = 1e-5


SHAPE = Shape()


class RmsNorm(nn.Module):  # type: ignore[misc] # torch has no types here
    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(x, (x.shape[-1],), self.weight, self.epsilon)


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """RoPE in the order of Hugging Face's Llama: the two halves of a head are the pairs (write_gguf.py permutes)."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Layer(nn.Module):  # type: ignore[misc] # torch has no types here
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        query_rows, kv_rows = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.input_layernorm = RmsNorm(shape.hidden, shape.rms_epsilon)
        self.q_proj = nn.Linear(shape.hidden, query_rows, bias=False)
        self.k_proj = nn.Linear(shape.hidden, kv_rows, bias=False)
        self.v_proj = nn.Linear(shape.hidden, kv_rows, bias=False)
        self.o_proj = nn.Linear(query_rows, shape.hidden, bias=False)
        self.post_attention_layernorm = RmsNorm(shape.hidden, shape.rms_epsilon)
        self.gate_proj = nn.Linear(shape.hidden, shape.feed_forward, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.feed_forward, bias=False)
        self.down_proj = nn.Linear(shape.feed_forward, shape.hidden, bias=False)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        x = x + self._attention(self.input_layernorm(x), cos, sin)
        y = self.post_attention_layernorm(x)
        return x + self.down_proj(functional.silu(self.gate_proj(y)) * self.up_proj(y))

    def _attention(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        rows, length, _ = x.shape
        shape = self.shape
        q = self.q_proj(x).view(rows, length, shape.heads, shape.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(rows, length, shape.kv_heads, shape.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(rows, length, shape.kv_heads, shape.head_dim).transpose(1, 2)
        q, k = rotated(q, cos, sin), rotated(k, cos, sin)
        group = shape.heads // shape.kv_heads
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        # Written out: on CPUs the backward pass of scaled_dot_product_attention takes 0.4 of a step's whole time.
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        scores = (q * shape.head_dim**-0.5) @ k.transpose(2, 3)
        mixed = scores.masked_fill(later, float("-inf")).softmax(-1) @ v
        return self.o_proj(mixed.transpose(1, 2).reshape(rows, length, -1))


class Llama(nn.Module):  # type: ignore[misc] # torch has no types here
    """Tokens (rows, length) to logits (rows, length, vocabulary); input and output embedding are one matrix."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = RmsNorm(shape.hidden, shape.rms_epsilon)
        half = torch.arange(0, shape.head_dim, 2).float() / shape.head_dim
        angles = torch.outer(torch.arange(shape.context).float(), shape.rope_theta**-half)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        self.apply(self._start)

    def _start(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """The hidden states before the output matrix: `logits` is applied only where a token is learned."""
        length = tokens.shape[1]
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, self.cos[:length], self.sin[:length])
        return self.norm(x)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return functional.linear(hidden, self.embed_tokens.weight)
