"""GGUF files have layers and parts as configs have them."""

from servolt.model.gguf import read_gguf_header

from .conftest import Make

LAYER = {
    "attn_norm.weight": (64,),
    "attn_q.weight": (64, 64),
    "attn_k.weight": (32, 64),
    "attn_v.weight": (32, 64),
    "attn_output.weight": (64, 64),
    "ffn_norm.weight": (64,),
    "ffn_gate.weight": (96, 64),
    "ffn_up.weight": (96, 64),
    "ffn_down.weight": (64, 96),
}


def layer(number: int, tensors: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {f"blk.{number}.{name}": shape for name, shape in tensors.items()}


def test_parts_add_up_to_the_file(make_gguf: Make) -> None:
    model = read_gguf_header(make_gguf(tensors=layer(0, LAYER) | layer(1, LAYER)))
    inside = [part for kind in model.layers for part in kind.parts for _ in range(kind.count)]
    assert sum(part.parameters for part in (*inside, *model.parts)) == model.total_params
    assert sum(part.bytes for part in (*inside, *model.parts)) == model.weights_bytes
    assert [(kind.count, kind.mixer, kind.intermediate_size) for kind in model.layers] == [(2, "full", 96)]
    assert model.layer_order == (0, 0)
    keys = next(part for part in model.layers[0].parts if part.sharding == "kv_heads")
    assert (keys.parameters, keys.dtype) == (2 * 32 * 64, "f16")


def test_experts_are_counted_by_those_that_a_token_passes(make_gguf: Make) -> None:
    sparse = {name: shape for name, shape in LAYER.items() if not name.startswith("ffn_")}
    sparse |= {"ffn_gate_inp.weight": (8, 64)}
    sparse |= {f"ffn_{name}_exps.weight": (8, 32, 64) for name in ("gate", "up")}
    sparse |= {"ffn_down_exps.weight": (8, 64, 32)}
    settings = {"llama.expert_count": 8, "llama.expert_used_count": 2}
    model = read_gguf_header(make_gguf(settings, layer(0, sparse) | layer(1, LAYER)))
    experts = model.layers[0].experts
    assert experts is not None
    assert (experts.num_experts, experts.experts_per_token, experts.intermediate_size) == (8, 2, 32)
    assert model.active_params == model.total_params - 6 * 3 * 32 * 64


def test_a_state_is_read_from_the_tensors(make_gguf: Make) -> None:
    recurrent = {
        "attn_norm.weight": (64,),
        "ssm_in.weight": (300, 64),
        "ssm_conv1d.weight": (160, 4),
        "ssm_a": (4,),
        "ssm_d": (4,),
        "ssm_out.weight": (64, 128),
    }
    settings = {
        "llama.ssm.conv_kernel": 4,
        "llama.ssm.state_size": 16,
        "llama.ssm.inner_size": 128,
        "llama.ssm.time_step_rank": 4,
        "llama.ssm.group_count": 1,
    }
    model = read_gguf_header(make_gguf(settings, layer(0, recurrent) | layer(1, LAYER)))
    kind = model.layers[0]
    assert (kind.mixer, kind.conv_elements, kind.conv_kernel, kind.state_elements) == ("mamba2", 160, 4, 128 * 16)
    both = read_gguf_header(make_gguf(settings, layer(0, recurrent | LAYER) | layer(1, recurrent | LAYER)))
    assert [both.layers[index].mixer for index in both.layer_order] == ["mamba2", "full", "mamba2", "full"]


def test_a_latent_is_known_by_its_projection(make_gguf: Make) -> None:
    latent = {name: shape for name, shape in LAYER.items() if name not in ("attn_k.weight", "attn_v.weight")}
    latent |= {"attn_kv_a_mqa.weight": (40, 64), "attn_k_b.weight": (4, 32, 16), "attn_v_b.weight": (4, 16, 32)}
    settings = {"llama.attention.kv_lora_rank": 32, "llama.rope.dimension_count": 8}
    model = read_gguf_header(make_gguf(settings, layer(0, latent) | layer(1, latent)))
    kind = model.layers[0]
    assert (kind.mixer, kind.kv_lora_rank, kind.rope_head_dim) == ("mla", 32, 8)


def test_layers_with_a_window_are_those_that_the_file_lists(make_gguf: Make) -> None:
    settings = {"llama.attention.sliding_window": 128, "llama.attention.sliding_window_pattern": [1, 0]}
    model = read_gguf_header(make_gguf(settings, layer(0, LAYER) | layer(1, LAYER)))
    assert [(kind.mixer, kind.window) for kind in model.layers] == [("sliding", 128), ("full", None)]
    plain = read_gguf_header(make_gguf({"llama.attention.sliding_window": 128}, layer(0, LAYER) | layer(1, LAYER)))
    assert {kind.mixer for kind in plain.layers} == {"full"}


def test_heads_may_differ_from_layer_to_layer(make_gguf: Make) -> None:
    wide = LAYER | {"attn_k.weight": (64, 64), "attn_v.weight": (64, 64)}
    settings = {"llama.attention.head_count_kv": [2, 4]}
    model = read_gguf_header(make_gguf(settings, layer(0, LAYER) | layer(1, wide)))
    assert [kind.num_kv_heads for kind in model.layers] == [2, 4]


def test_blocks_behind_the_last_layer_guess_tokens(make_gguf: Make) -> None:
    settings = {"llama.nextn_predict_layers": 1}
    model = read_gguf_header(make_gguf(settings, layer(0, LAYER) | layer(1, LAYER)))
    assert len(model.layer_order) == 1
    assert [part.component for part in model.parts if part.component == "mtp"]


def test_a_file_that_claims_too_many_layers_has_none_that_are_known(make_gguf: Make) -> None:
    assert read_gguf_header(make_gguf({"llama.block_count": 2_000_000_000})).layers == ()
