"""How many elements live at the widest point of a layer, for each token, on one rank."""

from servolt.model import LayerKind, Model
from servolt.plan.memory.sharding import Ranks

__all__ = ["widest_layer"]


def widest_layer(kind: LayerKind, model: Model, ranks: Ranks) -> float:
    """Residual and input; then gate, up and their product, or queries, keys, values and the attention's output.

    Of experts, what each token's chosen ones take, since kernels write them side by side.
    """
    between = max(kind.num_heads * kind.head_dim_v, kind.conv_elements) / ranks.attention_tp
    queries = kind.num_heads * kind.head_dim_k / ranks.attention_tp
    heads = kind.num_heads if kind.kv_lora_rank else kind.num_kv_heads
    keys = -(-heads // ranks.attention_tp) * (kind.head_dim_k + kind.head_dim_v)
    dense = 3.0 * kind.intermediate_size / ranks.tp
    chosen = 0.0
    if kind.experts is not None:
        among = ranks.tp if ranks.ep <= 1 else 1
        of_one = 3.0 * kind.experts.intermediate_size / among + 2.0 * model.hidden_size
        chosen = kind.experts.experts_per_token * of_one / max(1, ranks.ep)
    return 2.0 * model.hidden_size + max(dense, chosen, between + queries + keys + kind.conv_elements / ranks.tp)
