"""The weights of one attention layer: grouped queries, or a latent as in DeepSeek-V2 (MLA), with an indexer or not."""

from typing import NamedTuple

from servolt.model.families import Family
from servolt.model.fields import Fields
from servolt.model.weights import Weight, matrix, vector

__all__ = ["Heads", "Latent", "grouped_query", "has_latent", "heads_of", "latent_attention", "latent_of", "mlp_bias"]

BIAS_OF_QKV = ("attention_bias", "qkv_bias", "use_qkv_bias", "add_qkv_bias", "use_attention_bias")
BIAS_OF_OUT = ("attention_out_bias", "attention_bias")
BIAS_OF_MLP = ("mlp_bias", "use_mlp_bias")
BIAS_OF_ALL = ("use_bias", "bias", "enable_bias", "add_bias_linear")
ASKED_QK_NORM = ("use_qk_norm", "qk_norm", "norm_qk", "qk_layernorm", "use_qk_layernorm")


def qkv_bias(fields: Fields, family: Family) -> bool:
    if family.qkv_bias is not None:
        return family.qkv_bias
    return fields.flag(*BIAS_OF_QKV) or fields.flag(*BIAS_OF_ALL)


def out_bias(fields: Fields, family: Family) -> bool:
    if family.out_bias is not None:
        return family.out_bias
    return fields.flag(*BIAS_OF_OUT) or fields.flag(*BIAS_OF_ALL)


def mlp_bias(fields: Fields, family: Family) -> bool:
    if family.mlp_bias is not None:
        return family.mlp_bias
    return fields.flag(*BIAS_OF_MLP) or fields.flag(*BIAS_OF_ALL)


class Heads(NamedTuple):
    """`values` is False where the keys serve as values too; the index is that of a sparse layer's selection."""

    queries: int
    keys: int
    width_k: int
    width_v: int
    values: bool = True
    index_heads: int = 0
    index_width: int = 0
    index_topk: int = 0


def heads_of(fields: Fields, mixer: str, layer: int) -> Heads:
    """Layers of one kind may have their own: `swa_*` the sliding ones (MiMo-V2), `global_*` the full ones (Gemma 4)."""
    own = fields.layer(layer)
    queries = own.size("num_attention_heads", layer=layer)
    if own.has("num_attention_heads_per_layer"):  # Laguna
        queries = own.size("num_attention_heads_per_layer", queries, layer=layer)
    keys = _key_heads(own, queries, layer)
    if queries and (not keys or queries % keys):
        raise own.fault("num_key_value_heads", f"a number from 1 on that divides the {queries} attention heads")
    width = own.size("head_dim", fields.least("hidden_size") // queries if queries else 0)
    width_v = own.size("v_head_dim", width)
    values = True
    if mixer == "sliding":
        queries = fields.size("swa_num_attention_heads", queries)
        keys = fields.size("swa_num_key_value_heads", keys)
        width, width_v = fields.size("swa_head_dim", width), fields.size("swa_v_head_dim", width_v)
    if mixer == "full" and fields.has("global_head_dim"):
        width = width_v = fields.size("global_head_dim")
    if mixer == "full" and fields.flag("attention_k_eq_v"):
        keys, values = fields.size("num_global_key_value_heads", keys), False
    return _with_index(fields, Heads(queries, keys, width, width_v, values), layer)


def _with_index(fields: Fields, heads: Heads, layer: int) -> Heads:
    """MiniMax-M3's: blocks of keys are chosen by a few narrow heads, in the layers that say so."""
    at = fields.sizes("sparse_attention_freq")
    if at is None or not at[layer % len(at)]:
        return heads
    return heads._replace(
        index_heads=fields.size("sparse_num_index_heads", fields.size("index_n_heads", 0)),
        index_width=fields.size("sparse_index_dim", fields.size("index_head_dim", 0)),
        index_topk=fields.size("sparse_topk_blocks", 0) * fields.size("sparse_block_size", 1),
    )


def _key_heads(fields: Fields, queries: int, layer: int) -> int:
    """Multi-query attention has one; Falcon's newer layout counts its own."""
    if fields.flag("new_decoder_architecture"):
        return fields.size("num_key_value_heads", queries, layer=layer)
    if fields.flag("multi_query_attention"):
        return fields.size("multi_query_group_num", 1)
    if fields.flag("multi_query"):
        return 1
    return fields.size("num_key_value_heads", queries, layer=layer)


def grouped_query(fields: Fields, family: Family, heads: Heads, mixer: str) -> list[Weight]:
    """Layers that read the keys and values of an earlier one are stored with projections of their own all the same:
    Gemma 3n E4B has 6.87 B weights without its towers, Gemma 4 E4B 7,996,156,490 with them."""
    hidden = fields.least("hidden_size")
    gate = gate_of(fields, family)
    q = heads.queries * heads.width_k * (2 if gate == "query" else 1)
    k = heads.keys * heads.width_k
    v = heads.keys * heads.width_v if heads.values else 0
    out = heads.queries * heads.width_v
    at = "self_attn."
    weights = [
        matrix(at + "q_proj", "attention", q, hidden),
        matrix(at + "k_proj", "attention", k, hidden, "kv_heads"),
        matrix(at + "v_proj", "attention", v, hidden, "kv_heads"),
        matrix(at + "o_proj", "attention", hidden, out),
        *gate_weights(gate, heads.queries, out, hidden),
    ]
    if qkv_bias(fields, family):
        weights += [vector(at + "q_proj.bias", q), vector(at + "kv.bias", k + v, sharding="kv_heads")]
    if out_bias(fields, family):
        weights.append(vector(at + "o_proj.bias", hidden, sharding="none"))
    if family.sinks in ("all", mixer):
        weights.append(vector(at + "sinks", heads.queries))
    if family.inner_norms:
        weights.append(vector(at + "attn_sub_norm", out, "norm"))
    if heads.index_heads:
        weights += [
            matrix(at + "indexer.q_proj", "attention", heads.index_heads * heads.index_width, hidden, "none"),
            matrix(at + "indexer.k_proj", "attention", heads.index_width, hidden, "none"),
            vector(at + "indexer.norms", 2 * heads.index_width, "norm", "none"),
        ]
    return weights + _query_key_norms(fields, family, heads)


def gate_of(fields: Fields, family: Family) -> str:
    if family.gate:
        return family.gate
    return "query" if fields.flag("attn_output_gate", "attention_output_gate") else ""


def gate_weights(gate: str, heads: int, out: int, hidden: int) -> list[Weight]:
    rows = {"width": out, "head": heads}.get(gate, 0)
    return [matrix("self_attn.gate_proj", "attention", rows, hidden)] if rows else []


def _query_key_norms(fields: Fields, family: Family, heads: Heads) -> list[Weight]:
    kind = family.qk_norm
    asked = fields.flag(*ASKED_QK_NORM)
    if not kind and asked:
        kind = family.qk_norm_asked
    if kind and asked:
        said = fields.text("qk_norm_type")
        kind = "width" if said == "per_layer" else "head" if said == "per_head" else kind
    if kind in ("", "never"):
        return []
    width, vectors = heads.width_k, 2 if kind == "head_bias" else 1
    over_all = kind == "width"
    sizes = {"q": heads.queries if over_all else 1, "k": heads.keys if over_all else 1}
    return [
        vector(f"self_attn.{name}_norm", vectors * count * width, "norm", "tensor" if over_all else "none")
        for name, count in sizes.items()
    ]


class Latent(NamedTuple):
    """Widths of MLA: nope and rope parts of a head, values, ranks; the indexer's heads and width are 0 without one."""

    queries: int
    nope: int
    rope: int
    width_v: int
    q_rank: int
    kv_rank: int
    index_heads: int
    index_width: int
    index_topk: int


def has_latent(fields: Fields) -> bool:
    return bool(fields.get("kv_lora_rank")) and fields.has("qk_nope_head_dim")


def latent_of(fields: Fields) -> Latent:
    return Latent(
        queries=fields.least("num_attention_heads"),
        nope=fields.least("qk_nope_head_dim"),
        rope=fields.size("qk_rope_head_dim", 0),
        width_v=fields.least("v_head_dim", fields.least("qk_nope_head_dim")),
        q_rank=fields.size("q_lora_rank", 0),
        kv_rank=fields.least("kv_lora_rank"),
        index_heads=fields.size("index_n_heads", 0),
        index_width=fields.size("index_head_dim", 0),
        index_topk=fields.size("index_topk", 0),
    )


def latent_attention(fields: Fields, family: Family, latent: Latent, *, indexer: bool) -> list[Weight]:
    """Only what has heads is divided over ranks: each rank holds the projections to the ranks whole."""
    hidden, heads = fields.least("hidden_size"), latent.queries
    q, out = heads * (latent.nope + latent.rope), heads * latent.width_v
    at = "self_attn."
    weights = [
        matrix(at + "kv_a_proj_with_mqa", "attention", latent.kv_rank + latent.rope, hidden, "none"),
        vector(at + "kv_a_layernorm", latent.kv_rank, "norm", "none"),
        matrix(at + "kv_b_proj", "attention", heads * (latent.nope + latent.width_v), latent.kv_rank),
        matrix(at + "o_proj", "attention", hidden, out),
    ]
    if latent.q_rank:
        weights += [
            matrix(at + "q_a_proj", "attention", latent.q_rank, hidden, "none"),
            vector(at + "q_a_layernorm", latent.q_rank, "norm", "none"),
            matrix(at + "q_b_proj", "attention", q, latent.q_rank),
        ]
    else:
        weights.append(matrix(at + "q_proj", "attention", q, hidden))
    if fields.flag("attention_bias"):
        weights.append(vector(at + "bias", latent.q_rank + latent.kv_rank + latent.rope + hidden, sharding="none"))
    gate = "width" if fields.flag("mla_use_output_gate") else family.gate
    weights += gate_weights(gate, heads, out, hidden)
    if family.sinks == "all":
        weights.append(vector(at + "sinks", heads))
    return weights + (indexer_weights(fields, latent) if indexer else [])


def indexer_weights(fields: Fields, latent: Latent) -> list[Weight]:
    """DeepSeek-V3.2's: chooses the tokens that are attended to. GLM-5-Next pools keys before it."""
    hidden = fields.least("hidden_size")
    at = "self_attn.indexer."
    weights = [
        matrix(at + "wq_b", "attention", latent.index_heads * latent.index_width, latent.q_rank or hidden, "none"),
        matrix(at + "wk", "attention", latent.index_width, hidden, "none"),
        matrix(at + "weights_proj", "attention", latent.index_heads, hidden, "none")._replace(linear=False),
        vector(at + "k_norm", 2 * latent.index_width, "norm", "none"),
    ]
    pooled = fields.size("index_kpool", 0)
    if pooled:
        weights.append(vector(at + "pooling", (hidden + pooled) * latent.index_width, "attention", "none"))
    return weights
