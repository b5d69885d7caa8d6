"""What some models have beside mixers and MLPs: several residual streams, embeddings of layers, compressed keys."""

from typing import NamedTuple

from servolt.model.families import Family
from servolt.model.fields import Fields
from servolt.model.weights import Weight, matrix, vector

__all__ = ["Compressed", "compressed_attention", "in_each_layer", "outside_layers"]


def in_each_layer(fields: Fields, family: Family) -> list[Weight]:
    hidden = fields.least("hidden_size")
    weights = _streams_in_layer(fields, hidden) + _alternating_in_layer(fields, hidden)
    narrow = fields.size("hidden_size_per_layer_input", 0)
    if narrow:  # Gemma 3n and 4
        weights += [
            matrix("per_layer_input_gate", "other", narrow, hidden, "none")._replace(linear=False),
            matrix("per_layer_projection", "other", hidden, narrow, "none")._replace(linear=False),
            vector("post_per_layer_input_norm", hidden, "norm", "none"),
        ]
    if family.layer_scalars:
        weights.append(vector("scalars", family.layer_scalars, sharding="none"))
    return weights


def outside_layers(fields: Fields, layers: int) -> list[Weight]:
    hidden = fields.least("hidden_size")
    weights: list[Weight] = []
    narrow = fields.size("hidden_size_per_layer_input", 0)
    if narrow:
        vocabulary = fields.size("vocab_size_per_layer_input", fields.least("vocab_size"))
        weights += [
            matrix("embed_tokens_per_layer", "embedding", vocabulary, layers * narrow, "vocab")._replace(linear=False),
            matrix("per_layer_model_projection", "other", layers * narrow, hidden, "none")._replace(linear=False),
            vector("per_layer_projection_norm", narrow, "norm", "none"),
        ]
    streams = fields.size("altup_num_inputs", 0)
    if streams:
        weights.append(vector("altup_projections", 2 * (streams - 1) * hidden * hidden, "other", "none"))
    streams = fields.size("hc_mult", 0)
    if streams and fields.text("model_type") in ("deepseek_v4", "hy_v4"):
        weights.append(vector("hc_head", streams * (streams * hidden) + streams + 1, "other", "none"))
    return weights


def _streams_in_layer(fields: Fields, hidden: int) -> list[Weight]:
    """Hyper-connections: before the mixer and before the MLP the streams are mixed."""
    streams = fields.size("hc_mult", 0)
    if streams < 2:
        return []
    is_plain = fields.has("hc_magnitude")  # HunYuan 4 leaves the mixing matrix out
    rows = 2 * streams if is_plain else streams * streams + 2 * streams
    size = rows * streams * hidden + rows + (2 if is_plain else 3)
    return [vector("hyper_connections", 2 * size, "other", "none")]


def _alternating_in_layer(fields: Fields, hidden: int) -> list[Weight]:
    """Gemma 3n's alternating updates, and its low-rank path beside attention."""
    weights: list[Weight] = []
    streams, rank = fields.size("altup_num_inputs", 0), fields.size("laurel_rank", 0)
    if streams:
        own = hidden if fields.flag("altup_correct_scale", otherwise=True) else 0
        size = own + streams * streams + streams**3 + streams * hidden + hidden
        weights.append(vector("altup", size, "other", "none"))
    if rank:
        weights.append(vector("laurel", 2 * rank * hidden + hidden, "other", "none"))
    return weights


class Compressed(NamedTuple):
    """Of DeepSeek-V4: `ratio` tokens share an entry, and the last ones have one each; 0 is the last ones alone."""

    weights: list[Weight]
    heads: int
    width: int
    rope: int
    ratio: int
    index_width: int
    index_topk: int


def compressed_attention(fields: Fields, layer: int) -> Compressed | None:
    """None for layers of any other model."""
    ratios = fields.sizes("compress_ratios")
    rates = fields.inside("compress_rates")
    kinds = fields.names("layer_types")
    if ratios is None and rates is None:
        return None
    if ratios is not None:
        ratio = ratios[layer % len(ratios)]
    else:
        assert rates is not None
        ratio = rates.size(kinds[layer % len(kinds)], 0) if kinds else 0
    hidden, heads, width = fields.least("hidden_size"), fields.least("num_attention_heads"), fields.least("head_dim")
    rank, index_topk = fields.least("q_lora_rank"), fields.size("index_topk", 0)
    groups, out_rank = fields.least("o_groups", 1), fields.least("o_lora_rank")
    has_index = 0 < ratio <= 16  # few tokens in an entry leave many entries, among which an indexer chooses
    index_width = fields.size("index_head_dim", 0) if has_index else 0
    at = "self_attn."
    weights = [
        matrix(at + "q_a_proj", "attention", rank, hidden, "none"),
        vector(at + "q_a_norm", rank, "norm", "none"),
        matrix(at + "q_b_proj", "attention", heads * width, rank),
        matrix(at + "kv_proj", "attention", width, hidden, "none"),
        vector(at + "kv_norm", width, "norm", "none"),
        matrix(at + "o_a_proj", "attention", groups * out_rank, heads * width // groups),
        matrix(at + "o_b_proj", "attention", hidden, groups * out_rank),
        vector(at + "sinks", heads),
    ]
    if ratio:
        weights += _compressor(at + "compressor.", hidden, width * (2 if has_index else 1), width, ratio)
    if has_index:
        index_heads, inner = fields.size("index_n_heads", 0), at + "compressor.indexer."
        weights += [
            *_compressor(inner, hidden, 2 * index_width, index_width, ratio),
            matrix(inner + "q_b_proj", "attention", index_heads * index_width, rank, "none"),
            matrix(inner + "weights_proj", "attention", index_heads, hidden, "none")._replace(linear=False),
        ]
    rope = fields.size("qk_rope_head_dim", 0)
    return Compressed(weights, heads, width, rope, ratio, index_width, index_topk if has_index else 0)


def _compressor(at: str, hidden: int, rows: int, width: int, ratio: int) -> list[Weight]:
    return [
        matrix(at + "kv_proj", "attention", rows, hidden, "none")._replace(linear=False),
        matrix(at + "gate_proj", "attention", rows, hidden, "none")._replace(linear=False),
        vector(at + "position_bias", ratio * rows, "other", "none"),
        vector(at + "kv_norm", width, "norm", "none"),
    ]
